"""How far to zoom in on regions: annotated boxes of nuclei, at limits of the magnification.

python benchmarks/magnification.py --nuclei DIR/nuclei/train --stride 18 --images 8
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from clsclip import Predictor
from clsclip.predict import aggregation
from clsclip.predict.regions import Box, inside
from clsclip.training.formats import LabelFolder
from clsclip.training.metrics import Scores

LIMITS = (1e6, 4.0, 3.0, 2.0)
WORD = "nucleus"


def main() -> int:
    """Print a row per limit: IoU over the images and mean of the images' IoU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nuclei", type=Path, required=True, help="Holds images/ and labels/.")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--stride", type=int, default=18, help="Every so many images.")
    parser.add_argument("--images", type=int, default=8, help="Most images.")
    parser.add_argument("--objects", type=int, default=49, help="Most objects of an image.")
    args = parser.parse_args()
    folder = LabelFolder(args.nuclei / "images", args.nuclei / "labels", WORD)
    predictor = Predictor(args.model)
    names = [f"at most {limit:g}" for limit in LIMITS]
    scores = {name: Scores() for name in ("boxes as masks", "no regions", *names)}
    measured = 0
    for index in range(0, len(folder), args.stride):
        example = folder[index]
        rows = example.boxes.get(WORD, np.zeros((0, 4)))
        if not 0 < len(rows) <= args.objects or measured == args.images:
            continue
        measured += 1
        boxes: list[Box] = [(float(a), float(b), float(c), float(d)) for a, b, c, d in rows]
        truth = np.asarray(example.masks[WORD])
        filled = np.zeros(truth.shape, dtype=bool)
        for box in boxes:
            filled[inside(box, (truth.shape[0], truth.shape[1]))] = True
        scores["boxes as masks"].add(WORD, filled, truth, None)
        whole = predictor.segment(example.image, [WORD]).labels() > 0
        scores["no regions"].add(WORD, whole, truth, None)
        for name, limit in zip(names, LIMITS, strict=True):
            aggregation.MAX_MAGNIFICATION = limit  # type: ignore[misc]
            found = predictor.segment(example.image, [WORD], regions={WORD: boxes})
            scores[name].add(WORD, found.labels() > 0, truth, None)
    print(f"{measured} images\n| magnification | IoU | mean |\n| --- | --- | --- |")
    for name, score in scores.items():
        print(f"| {name} | {score.miou:.3f} | {np.mean(score.images[WORD]):.3f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
