"""What the comparison of patches and words tells apart: colours, patterns, shapes.

    python benchmarks/compared.py [--model mini] [--scenes 100]

For each drawn object, the words of each kind are compared with its patches (``--match`` of
``fit``); right is the word that should fit best of its kind and does. Beside it the mean cosine of
the text tokens of the kind's words: those that lie close together are hard to tell apart.
"""

from __future__ import annotations

import argparse
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clsclip.model.checkpoint import load_model
from clsclip.model.registry import find_model
from clsclip.predict.regions import ANY_OBJECT
from clsclip.predict.transforms import resize, to_tensor
from clsclip.training.scenes import Scenes
from clsclip.training.scenes.colours import COLOURS
from clsclip.training.scenes.shapes import SHAPES
from clsclip.training.scenes.textures import PATTERNS

SEED, MOST = 777, 2000
COVERED = 0.6
"""Part of a patch that an object must cover."""

KINDS = {
    "colours": [f"{name} object" for name in COLOURS],
    "patterns": [f"{name} object" for name in PATTERNS],
    "shapes": list(SHAPES),
}


def mean_cosine(tokens: Tensor) -> float:
    """Of each two of some tokens, shape (n, d)."""
    unit = F.normalize(tokens, dim=1)
    return float((unit @ unit.T)[~torch.eye(len(unit), dtype=torch.bool)].mean())


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--scenes", type=int, default=100)
    args = parser.parse_args()
    model = load_model(find_model(args.model)).eval()
    if model.match is None:
        parser.error(f"The model '{args.model}' compares nothing; train one with fit --match.")
    side = model.image_size
    right: dict[str, list[bool]] = {kind: [] for kind in KINDS}
    drawn = Scenes(SEED, count=MOST)
    examples = (drawn[index] for index in range(len(drawn)))
    with torch.inference_mode():
        tokens = {kind: model.text_cls(words) for kind, words in KINDS.items()}
        anything = model.text_cls([ANY_OBJECT])
        for example in islice((each for each in examples if each.exact), args.scenes):
            image = np.divide(example.image, 255, dtype=np.float32)
            pixels = resize(to_tensor(image), (side, side))
            patches = model.guide(model.encode(pixels).shallow, anything)[:, 1:]
            for kind, words in KINDS.items():
                fits = model.match(patches, tokens[kind])[0]
                for place, word in enumerate(words):
                    if word not in example.masks:
                        continue
                    mask = torch.from_numpy(example.masks[word].astype(np.float32))[None, None]
                    whole = resize(mask, (side, side))[0]
                    covered = F.avg_pool2d(whole, model.patch_size).flatten() > COVERED
                    if covered.any():
                        best = fits[:, covered].mean(1).argmax()
                        right[kind].append(int(best) == place)
    print("| kind | words | objects | told right | mean cosine of the words |")
    print("| --- | --- | --- | --- | --- |")
    for kind, words in KINDS.items():
        share, near = np.mean(right[kind]), mean_cosine(tokens[kind])
        print(f"| {kind} | {len(words)} | {len(right[kind])} | {share:.1%} | {near:.2f} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
