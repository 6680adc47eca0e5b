"""What patches of drawn objects tell of colours, patterns and shapes, and what words make of it.

    python benchmarks/compared.py [--model mini] [--scenes 300]

For each drawn object, the words of each kind are compared with its patches (``--match`` of
``fit``); right is the word that should fit best of its kind and does. Beside it how many a linear
classifier gets right that reads the same patches (ridge regression on three quarters of the
objects, told the rest): what it cannot tell either, the encoder does not say. Then the mean cosine
of the text tokens of the kind's words, for those that lie close together are hard to tell apart.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
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

SEED, MOST = 777, 20_000
COVERED = 0.6
"""Part of a patch that an object must cover."""

RIDGE = 30.0
"""Weight of the squared coefficients of the linear classifier, of standardised channels."""

KINDS = {
    "colours": [f"{name} object" for name in COLOURS],
    "patterns": [f"{name} object" for name in PATTERNS],
    "shapes": list(SHAPES),
}


@dataclass
class Kind:
    """What is known of the drawn objects of a kind."""

    places: list[int] = field(default_factory=list)
    """Which of the kind's words each is."""

    right: list[bool] = field(default_factory=list)
    """Whether that word fits best."""

    seen: list[Tensor] = field(default_factory=list)
    """Mean and deviation of its patches, shape (2 D,)."""


def read_linearly(seen: Tensor, places: Tensor, count: int) -> float:
    """Part of the last quarter that a linear classifier, fitted to the others, gets right.

    ``seen`` of shape (n, d), ``places`` of shape (n,): one of ``count`` classes each.
    """
    fitted = 3 * len(seen) // 4
    x = (seen - seen[:fitted].mean(0)) / (seen[:fitted].std(0) + 1e-6)
    wanted = F.one_hot(places[:fitted], count).float() - 1 / count
    known = x[:fitted]
    weights = torch.linalg.solve(known.T @ known + RIDGE * torch.eye(x.shape[1]), known.T @ wanted)
    return float(((x[fitted:] @ weights).argmax(1) == places[fitted:]).float().mean())


def mean_cosine(tokens: Tensor) -> float:
    """Of each two of some tokens, shape (n, d)."""
    unit = F.normalize(tokens, dim=1)
    return float((unit @ unit.T)[~torch.eye(len(unit), dtype=torch.bool)].mean())


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--scenes", type=int, default=300)
    args = parser.parse_args()
    model = load_model(find_model(args.model)).eval()
    if model.match is None:
        parser.error(f"The model '{args.model}' compares nothing; train one with fit --match.")
    side = model.image_size
    found = {kind: Kind() for kind in KINDS}
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
                        shown = F.layer_norm(patches[0, covered], patches.shape[-1:])
                        spread = shown.std(0, correction=0)
                        found[kind].seen.append(torch.cat([shown.mean(0), spread]))
                        found[kind].places.append(place)
                        best = fits[:, covered].mean(1).argmax()
                        found[kind].right.append(int(best) == place)
    print("| kind | words | chance | objects | told right | linearly | cosine of the words |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for kind, words in KINDS.items():
        of = found[kind]
        readable = read_linearly(torch.stack(of.seen), torch.tensor(of.places), len(words))
        print(
            f"| {kind} | {len(words)} | {1 / len(words):.0%} | {len(of.places)} "
            f"| {np.mean(of.right):.1%} | {readable:.1%} | {mean_cosine(tokens[kind]):.2f} |"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
