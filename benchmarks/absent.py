"""How much of drawn objects is marked by words that are not in the picture, by kind of word.

    python benchmarks/absent.py [--model mini] [--scenes 200]

Every scene is asked for one absent word of each kind ("red object", "red star", "woven object",
"woven star", "star", and a word of microscopy), in one look at the whole image. The table gives
the mean part that they mark of plain objects, of patterned ones, and of the background: all should
be near 0 (``evaluate --shuffled`` measures the same as an IoU).
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from clsclip import Predictor
from clsclip.config import DEFAULT_MODEL
from clsclip.training.examples import Example
from clsclip.training.scenes import Scenes
from clsclip.training.scenes.colours import COLOURS
from clsclip.training.scenes.objects import WORDS
from clsclip.training.scenes.shapes import SHAPES
from clsclip.training.scenes.textures import PATTERNS

SEED, MOST = 4242, 20_000

MARKED = 128
"""Probability, of 255, from which a pixel is marked."""

FEWEST = 200
"""Pixels from which objects, or the background, count."""


def kind_of(word: str) -> str:
    """What kind of word it is."""
    first, _, second = word.partition(" ")
    if word not in WORDS:
        return "microscopy"
    if not second:
        return "a shape" if first in SHAPES else word
    surface = "a colour" if first in COLOURS else "a pattern"
    return surface if second == "object" else f"{surface} and a shape"


def covered(example: Example, words: list[str]) -> NDArray[np.bool_]:
    """Pixels of any of some words."""
    empty = np.zeros(example.image.shape[:2], dtype=bool)
    return np.logical_or.reduce([empty, *(example.masks[word] for word in words)])


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--scenes", type=int, default=200)
    args = parser.parse_args()
    predictor, rng = Predictor(args.model), np.random.default_rng(SEED)
    marked: defaultdict[str, defaultdict[str, list[float]]]
    marked = defaultdict(lambda: defaultdict(list))
    source = Scenes(SEED, count=MOST)
    examples = (source[index] for index in range(len(source)))
    for example in islice((each for each in examples if each.exact), args.scenes):
        objects = covered(example, list(example.masks))
        patterned = covered(example, [w for w in example.masks if w.split()[0] in PATTERNS])
        places = {"plain": objects & ~patterned, "patterned": patterned, "background": ~objects}
        asked: dict[str, str] = {}
        for word in rng.permutation([w for w in source.words if w not in example.present]):
            asked.setdefault(kind_of(str(word)), str(word))
        zoom = predictor.whole_image_zoom(example.image.shape[:2])
        found = predictor.segment(example.image, list(asked.values()), zoom=zoom)
        for kind, mask in zip(asked, found.probabilities >= MARKED, strict=True):
            for name, place in places.items():
                if place.sum() >= FEWEST:
                    marked[kind][name].append(float(mask[place].mean()))
    print("| absent word | plain objects | patterned objects | background |")
    print("| --- | --- | --- | --- |")
    for kind, parts in sorted(marked.items()):
        figures = (f"{np.mean(parts[name]):.1%}" for name in ("plain", "patterned", "background"))
        print(f"| {kind} | {' | '.join(figures)} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
