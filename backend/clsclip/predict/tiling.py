"""Overlapping windows over an image that is larger than the network's input."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def window_starts(length: int, window: int, overlap: int) -> list[int]:
    """First pixels of evenly spread windows that cover an axis.

    Parameters
    ----------
    length, window, overlap : int
        Pixels of the axis, of a window, and that neighbours share at least. ``length`` is at
        least ``window``.
    """
    if length <= window:
        return [0]
    count = math.ceil((length - overlap) / (window - overlap))
    return [round(k * (length - window) / (count - 1)) for k in range(count)]


def window_weight(rows: int, columns: int, overlap: int) -> Tensor:
    """Weight of each pixel of a window in the blend of overlapping windows.

    Rises linearly over ``overlap`` pixels from every edge and is never 0, so that the weighted
    mean is defined also where only one window lies.

    Returns
    -------
    Tensor of float32, shape (rows, columns), in (0, 1]
    """

    def ramp(length: int) -> Tensor:
        position = torch.arange(length, dtype=torch.float32)
        edge = torch.minimum(position, length - 1 - position) + 1
        return (edge / (overlap + 1)).clamp(max=1.0)

    return ramp(rows)[:, None] * ramp(columns)[None, :]
