"""What of a patch reaches the visual encoder: brightness, gradients, texture.

    python benchmarks/patches.py --data DIR [--model mini] [--image-size 96]

Principal components of the patches of training views, from the one that varies most on, and how
much of the variance of the patch embeddings each group of them makes, beside how much of the
patches' own. Texture lies in the later ones: what does not reach the embeddings, no layer can see.
"""

from __future__ import annotations

import argparse
import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from clsclip.model.checkpoint import load_model
from clsclip.model.clip import normalise
from clsclip.model.clsclip import ClsClip
from clsclip.model.registry import find_model
from clsclip.training.batches import Sampler
from clsclip.training.sources import shares, training_sources

GROUPS = (0, 1, 4, 12, 48, 192, 768)
BATCHES, VIEWS = 20, 32


def patches(data: str, size: int, side: int) -> Tensor:
    """Normalised patches of views, shape (n, 3 * side * side), their mean taken away."""
    share = ("scenes=5",)
    sources = training_sources(data, share, 0)
    sampler = Sampler(list(sources.values()), shares(sources, share), plan=lambda _: (VIEWS, size),
                      pairs=1, seed=0)  # fmt: skip
    cut = [
        F.unfold(normalise(sampler.batch().images), side, stride=side).transpose(1, 2).flatten(0, 1)
        for _ in range(BATCHES)
    ]
    found = torch.cat(cut)
    return found - found.mean(0)


def variances(model: ClsClip, found: Tensor) -> tuple[Tensor, Tensor]:
    """Variance of each principal component, and of what the embedding makes of it; in order."""
    filters = model.towers.clip.vision_model.embeddings.patch_embedding.weight.detach().float()
    values, vectors = torch.linalg.eigh(found.T @ found / len(found))
    own = values.flip(0).clamp(min=0)
    return own, own * (filters.flatten(1) @ vectors.flip(1)).square().sum(0)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--image-size", type=int, default=96)
    args = parser.parse_args()
    model = load_model(find_model(args.model))
    side = model.towers.patch_size
    own, embedded = variances(model, patches(args.data, args.image_size, side))
    print("| principal components | of the patches | of their embeddings |")
    print("| --- | --- | --- |")
    for first, last in itertools.pairwise(GROUPS):
        cells = (f"{each[first:last].sum() / each.sum():.3%}" for each in (own, embedded))
        print(f"| {first + 1} to {min(last, len(own))} | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
