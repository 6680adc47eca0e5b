"""Look inside region proposals, zoomed in, and join what is seen (section 3.4 of the paper)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clsclip.predict.regions import Box, Frame, frame_around, inside
from clsclip.predict.steps import Steps
from clsclip.predict.transforms import resize

REGIONS_PER_BATCH: Final = 8
"""Regions that go through the network together."""


def look_inside(
    pixels: Tensor,
    text: Tensor,
    boxes: Sequence[Box],
    *,
    probabilities: Callable[[Tensor, Tensor], Iterable[Tensor]],
    size: int,
    steps: Steps,
) -> tuple[Tensor, float]:
    """Highest probability that a region gives each pixel (Eq. 9, with the threshold left open).

    Parameters
    ----------
    pixels : Tensor, shape (1, 3, H, W)
        RGB in [0, 1].
    text : Tensor, shape (K, d)
        T^cls of words; of several, the highest probability counts.
    boxes : sequence of Box
        At least one; each shows some of the image.
    probabilities : callable
        Takes crops (B, 3, size, size) and ``text``; gives for each word the probabilities
        (B, size, size).
    size : int
        Side of the network's input in pixels.
    steps : Steps

    Returns
    -------
    probability : Tensor of float32, shape (H, W)
        0 outside all regions.
    zoom : float
        Median over the regions of model pixels per image pixel.
    """
    shape = (pixels.shape[2], pixels.shape[3])
    frames = [frame_around(box) for box in boxes]
    total = torch.zeros(shape, device=pixels.device)
    steps.expect(-(-len(boxes) // REGIONS_PER_BATCH))
    for start in range(0, len(boxes), REGIONS_PER_BATCH):
        steps.check()
        part = slice(start, start + REGIONS_PER_BATCH)
        crops = torch.cat([resize(_cut(pixels, f), (size, size)) for f in frames[part]])
        found = torch.stack(list(probabilities(crops, text))).amax(0)
        for box, frame, look in zip(boxes[part], frames[part], found, strict=True):
            near = resize(look[None, None], (frame.height, frame.width))[0, 0]
            rows, columns = inside(box, shape)
            seen = near[rows.start - frame.top : rows.stop - frame.top,
                        columns.start - frame.left : columns.stop - frame.left]  # fmt: skip
            torch.maximum(total[rows, columns], seen, out=total[rows, columns])
        steps.done()
    zoom = float(np.median([size / max(frame.height, frame.width) for frame in frames]))
    return total, zoom


def _cut(pixels: Tensor, frame: Frame) -> Tensor:
    """A part of an image of shape (1, 3, H, W); the edge is repeated where it reaches beyond."""
    top, left = max(frame.top, 0), max(frame.left, 0)
    piece = pixels[..., top : frame.top + frame.height, left : frame.left + frame.width]
    before = (left - frame.left, top - frame.top)
    after = (frame.width - piece.shape[3] - before[0], frame.height - piece.shape[2] - before[1])
    return F.pad(piece, (before[0], after[0], before[1], after[1]), mode="replicate")
