"""One region per object: duplicates that overlap a better one are dropped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch

from clsclip.regions.region import Region

DEFAULT_IOU: Final = 0.6
"""Intersection over union from which two regions of one word are the same object."""

MOST_REGIONS: Final = 3000
"""Regions of one word in one image beyond which those with low scores are dropped."""


def suppress(
    regions: Sequence[Region], iou: float = DEFAULT_IOU, limit: int = MOST_REGIONS
) -> list[Region]:
    """Keep the best of the regions that show the same object (greedy non-maximum suppression).

    Parameters
    ----------
    regions : sequence of Region
        In any order; regions of different words never suppress each other.
    iou : float
        Of two boxes of one word that overlap by more than this intersection over union, the one
        with the higher score is kept. 1 keeps all.
    limit : int
        Most regions, those with the highest scores.

    Returns
    -------
    list of Region
        Highest score first; equal scores in the order that they came in.
    """
    if not regions:
        return []
    from torchvision.ops import batched_nms  # type: ignore[import-untyped]  # slow to import

    ordered = sorted(regions, key=lambda region: -region.score)
    places: dict[str, int] = {}
    words = torch.tensor([places.setdefault(region.word, len(places)) for region in ordered])
    boxes = torch.tensor([region.box for region in ordered], dtype=torch.float64)
    # the order stands for the scores, so that equal ones stay in order
    scores = torch.arange(len(ordered), 0, -1, dtype=torch.float64)
    kept = batched_nms(boxes, scores, words, iou).tolist()
    return [ordered[index] for index in sorted(kept)[:limit]]
