"""Overlapping windows over an image that is larger than the network's input."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

OVERLAP: Final = 0.25
"""Part of a window that it shares with its neighbour at least."""


@dataclass(frozen=True)
class Windows:
    """Windows of the network over an image at a zoom, in model pixels.

    Attributes
    ----------
    rows, columns : int
        Size of the zoomed image.
    height, width : int
        Size of a window. The image is padded to it where it is smaller.
    overlap : int
        Pixels that neighbours share at least.
    corners : tuple of tuple of int
        First row and column of each window, row by row.
    """

    rows: int
    columns: int
    height: int
    width: int
    overlap: int
    corners: tuple[tuple[int, int], ...]


def plan_windows(shape: tuple[int, int], zoom: float, size: int, patch: int) -> Windows:
    """Windows that cover an image at a zoom.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the image.
    zoom : float
        Model pixels per image pixel.
    size, patch : int
        Sides of the network's input and of its patches in model pixels.
    """
    rows, columns = (max(1, round(zoom * length)) for length in shape)
    height, width = (min(size, -(-length // patch) * patch) for length in (rows, columns))
    overlap = int(size * OVERLAP)
    corners = tuple(
        (top, left)
        for top in window_starts(max(rows, height), height, overlap)
        for left in window_starts(max(columns, width), width, overlap)
    )
    return Windows(rows, columns, height, width, overlap, corners)


def window_boxes(
    shape: tuple[int, int], windows: Windows
) -> list[tuple[float, float, float, float]]:
    """Top, left, bottom, right of windows in image pixels, the last two exclusive.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the image.
    windows : Windows
    """
    down, across = shape[0] / windows.rows, shape[1] / windows.columns
    return [
        (
            top * down, left * across,
            min((top + windows.height) * down, float(shape[0])),
            min((left + windows.width) * across, float(shape[1])),
        )
        for top, left in windows.corners
    ]  # fmt: skip


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
