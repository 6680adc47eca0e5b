"""How the constants of the automatic zoom were chosen: looks at fixed zooms, then rules on them.

    python benchmarks/zoom.py --nuclei DIR/nuclei/train --stride 6

Every image is looked at once at each of a grid of zooms. A rule then picks the looks that it would
have made, so that many rules cost one pass over the images. Printed per rule: IoU over the images,
mean of the images' IoU, and the seconds that its looks took.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clsclip import Predictor
from clsclip.training.formats import LabelFolder
from clsclip.zoom import BLIND_STEP, LEAST_STEP, object_diameter

ZOOMS = tuple(2.0 ** (step / 2) for step in range(-4, 4))
MOST_PIXELS = 3.2e6
"""Of a zoomed image; larger ones are not looked at."""


@dataclass(frozen=True)
class Looks:
    """What was seen of one image: probability, diameter of objects and seconds, by zoom."""

    first: float
    truth: NDArray[np.bool_]
    seen: dict[float, NDArray[np.uint8]]
    diameters: dict[float, float | None]
    seconds: dict[float, float]

    def nearest(self, zoom: float) -> float:
        """The zoom of the grid that is nearest, in proportion."""
        return min(self.seen, key=lambda known: abs(np.log(known / zoom)))


def look(predictor: Predictor, image: NDArray[np.uint8], truth: NDArray[np.bool_]) -> Looks:
    """Look at an image at every zoom."""
    shape = (image.shape[0], image.shape[1])
    first = predictor.whole_image_zoom(shape)
    looks = Looks(first, truth, {}, {}, {})
    for zoom in dict.fromkeys([first, *ZOOMS]):
        if zoom != first and (zoom * max(shape) < 100 or zoom**2 * truth.size > MOST_PIXELS):
            continue
        started = time.perf_counter()
        found = predictor.segment(image, ["nucleus"], zoom=zoom)
        looks.seconds[zoom] = time.perf_counter() - started
        looks.seen[zoom] = found.probabilities[0]
        across = object_diameter(found.labels() > 0)
        looks.diameters[zoom] = None if across is None else across * zoom
    return looks


def automatic(looks: Looks, target: float, most: float, refinements: int) -> list[float]:
    """Zooms that the automatic zoom would look at, one after the other."""
    zooms = [looks.first]
    for _ in range(refinements):
        zoom, diameter = zooms[-1], looks.diameters[zooms[-1]]
        if diameter is None:
            wanted = min(zoom * BLIND_STEP, max(zoom, 1.0))
        else:
            wanted = min(zoom * target / diameter, most)
        nearest = looks.nearest(wanted)
        if wanted <= LEAST_STEP * zoom or nearest in zooms:
            break
        zooms.append(nearest)
    return zooms


def measure(
    name: str, images: Sequence[Looks], rule: Callable[[Looks], tuple[list[float], list[float]]]
) -> None:
    """Print a row: a rule tells the zooms that it looks at, and those whose mean it takes."""
    common, either, ious, seconds = 0, 0, [], 0.0
    for looks in images:
        made, taken = rule(looks)
        mean = np.mean([looks.seen[zoom].astype(np.float32) for zoom in taken], axis=0)
        mask = mean >= 127.5
        both, any_of = int((mask & looks.truth).sum()), int((mask | looks.truth).sum())
        common, either = common + both, either + any_of
        ious.append(both / max(any_of, 1))
        seconds += sum(looks.seconds[zoom] for zoom in {*made, *taken})
    print(f"| {name} | {common / either:.3f} | {np.mean(ious):.3f} | {seconds:.0f} |", flush=True)


def main() -> int:
    """Print a table of rules."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nuclei", type=Path, required=True, help="Holds images/ and labels/.")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--stride", type=int, default=6, help="Every so many images.")
    args = parser.parse_args()
    folder = LabelFolder(args.nuclei / "images", args.nuclei / "labels", "nucleus")
    predictor = Predictor(args.model)
    images = []
    for index in range(0, len(folder), args.stride):
        example = folder[index]
        images.append(look(predictor, example.image, np.asarray(example.masks["nucleus"])))
        print(f"{index} of {len(folder)}", file=sys.stderr, flush=True)
    print("| rule | IoU | mean | seconds |\n| --- | --- | --- | --- |")
    measure("one look at the whole", images, lambda looks: ([], [looks.first]))
    for zoom in ZOOMS:
        measure(f"zoom {zoom:.2f}", images, lambda looks, z=zoom: ([], [looks.nearest(z)]))
    for target, most, refinements in itertools.product((48, 64, 80), (2.0, 2.83), (1, 2)):
        for companion in (None, 2**-0.5, 0.5):

            def rule(
                looks: Looks, target: float = target, most: float = most, n: int = refinements,
                companion: float | None = companion,
            ) -> tuple[list[float], list[float]]:  # fmt: skip
                made = automatic(looks, target, most, n)
                last = made[-1]
                if companion is None or last == looks.first:
                    return made, [last]
                return made, [last, looks.nearest(max(looks.first, last * companion))]

            beside = "" if companion is None else f", and {companion:.2f} of it"
            measure(
                f"target {target}, at most {most:g}, {refinements} refinements{beside}",
                images,
                rule,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
