"""Good and bad cases of a model, as the picture of its card.

    python benchmarks/pictures.py --model mini --output docs/images/mini.jpg

Images of scikit-image and drawn scenes that no training run of ``mini`` saw; nothing is chosen by
its result: the scenes are the first ones that show the word.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import skimage.data
from numpy.typing import NDArray
from skimage.color import gray2rgb
from skimage.segmentation import find_boundaries
from skimage.util import img_as_float

from clsclip import Predictor
from clsclip.predict.regions import Box
from clsclip.training.evaluate import SCENE_SEED
from clsclip.training.scenes import Scenes

DRAWN = ("nucleus", "cell", "filament", "star")
"""Words of drawn scenes."""

COLUMNS = 4
TINT = np.array([1.0, 0.85, 0.1])


@dataclass(frozen=True)
class Case:
    """What is asked of an image."""

    name: str
    image: NDArray[np.uint8]
    word: str
    boxes: tuple[Box, ...] = ()


def cases() -> Iterator[Case]:
    """Photographs and microscopy of scikit-image, then one drawn scene per word."""
    yield Case("cell", skimage.data.cell(), "cell")
    yield Case("immunohistochemistry", skimage.data.immunohistochemistry(), "nucleus")
    yield Case("astronaut", skimage.data.astronaut(), "nucleus")
    yield Case("coins", skimage.data.coins(), "nucleus")
    yield Case("astronaut", skimage.data.astronaut(), "person")
    yield Case("astronaut", skimage.data.astronaut(), "person", ((0.0, 60.0, 512.0, 420.0),))
    yield Case("chelsea", skimage.data.chelsea(), "cat", ((5.0, 60.0, 300.0, 420.0),))
    yield Case("coins", skimage.data.coins(), "coin", ((233.0, 18.0, 288.0, 75.0),))
    scenes = Scenes(SCENE_SEED)
    for word in DRAWN:
        index = next(i for i in range(len(scenes)) if word in scenes[i].masks)
        yield Case(f"drawn scene {index}", scenes[index].image, word)


def overlay(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The image with the mask tinted and outlined, shape (H, W, 3), in [0, 1]."""
    rgb: NDArray[np.float64] = img_as_float(image if image.ndim == 3 else gray2rgb(image))
    rgb[mask] = 0.6 * rgb[mask] + 0.4 * TINT
    rgb[find_boundaries(mask, mode="thick")] = TINT
    return rgb


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    mpl.use("agg")
    import matplotlib.pyplot as plt

    predictor = Predictor(args.model)
    asked = list(cases())
    rows = -(-len(asked) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(3 * COLUMNS, 3.2 * rows))
    for axis, case in zip(axes.flat, asked, strict=True):
        regions = {case.word: case.boxes} if case.boxes else {}
        result = predictor.segment(case.image, [case.word], regions=regions, vouched=True)
        mask = result.labels() > 0
        axis.imshow(overlay(case.image, mask))
        for top, left, bottom, right in case.boxes:
            axis.add_patch(
                plt.Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor="w")
            )
        box = " in the box" if case.boxes else ""
        axis.set_title(f'{case.name}\n"{case.word}"{box}: {mask.mean():.1%}', fontsize=10)
        axis.axis("off")
    figure.tight_layout()
    args.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.output, dpi=70)


if __name__ == "__main__":
    main()
