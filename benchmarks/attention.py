"""Does the replaced [CLS] look at what the word names? Figure 3, in numbers.

    python benchmarks/attention.py --data DIR --model mini

For every validation image of the data folders below DIR and every word with a mask in it: attention
of the [CLS] inside the mask over that outside of it (per pixel), with the original [CLS] and with
the one of the word, layer by layer. Printed per folder and layer: the geometric mean of both over
the (image, word) pairs, and the part of the pairs where the word's [CLS] looks more at the mask.
Masks of less than 0.5 % or more than 90 % of the image are left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clsclip import Predictor
from clsclip.training.sources import find_sources

LEAST, MOST = 0.005, 0.9
"""Part of the image that a mask must cover."""


def inside_over_outside(maps: NDArray[np.float16], mask: NDArray[np.bool_]) -> NDArray[np.floating]:
    """Mean attention in a mask over that outside, shape (...) of maps of shape (..., H, W)."""
    values = maps.astype(np.float64) + 1e-3  # so that no mean is 0
    return values[..., mask].mean(-1) / values[..., ~mask].mean(-1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--limit", type=int, default=1000, help="images per folder")
    parser.add_argument("--depth", type=int, default=10, help="layers of the visual encoder")
    parser.add_argument("--zoom", type=float, help="empty: one look at the whole image")
    args = parser.parse_args()
    predictor = Predictor(args.model)
    for name, source in find_sources(args.data, val=True).items():
        ratios = []
        for example in (source[index] for index in range(min(args.limit, len(source)))):
            masks = {w: m for w, m in example.masks.items() if LEAST < m.mean() < MOST}
            if not masks:
                continue
            maps = predictor.attention(
                example.image, list(masks), zoom=args.zoom, layers=range(args.depth)
            )
            for word, replaced in zip(maps.words, maps.replaced, strict=True):
                both = np.stack([maps.original, replaced])
                ratios.append(inside_over_outside(both, masks[word]))
        if not ratios:
            continue
        found = np.array(ratios)
        original, replaced = np.exp(np.log(found).mean(0))
        wins = (found[:, 1] > found[:, 0]).mean(0)
        print(f"{name}: {len(found)} pairs")
        for layer, row in enumerate(zip(original, replaced, wins, strict=True)):
            print("| {} | {:.2f} | {:.2f} | {:.0%} |".format(layer, *row))


if __name__ == "__main__":
    main()
