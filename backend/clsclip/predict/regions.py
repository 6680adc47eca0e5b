"""Where ClsCLIP+ zooms in: the square that is cut out around a region proposal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

Box = tuple[float, float, float, float]
"""Top, left, bottom, right in image pixels, the last two exclusive."""

MARGIN: Final = 0.15
"""Context on each side of a region, as a part of its longer side (ours)."""

SMALLEST: Final = 8
"""Side of a square in pixels below which there is nothing to see."""


@dataclass(frozen=True)
class Square:
    """A square part of an image.

    Attributes
    ----------
    top, left, side : int
        In image pixels. Where the image is smaller than the square, the square reaches beyond it
        on both sides.
    """

    top: int
    left: int
    side: int


def square_around(box: Iterable[float], shape: tuple[int, int], margin: float = MARGIN) -> Square:
    """The square to look at for a region; it is moved into the image where it fits.

    Parameters
    ----------
    box : Box
    shape : tuple of int
        Rows and columns of the image.
    margin : float
        See :data:`MARGIN`.
    """
    top, left, bottom, right = box
    longer = max(bottom - top, right - left)
    side = max(SMALLEST, round(longer * (1 + 2 * margin)))
    first, second = (
        _start((low + high) / 2, side, length)
        for low, high, length in ((top, bottom, shape[0]), (left, right, shape[1]))
    )
    return Square(first, second, side)


def _start(centre: float, side: int, length: int) -> int:
    if side > length:
        return -((side - length) // 2)
    return min(max(round(centre - side / 2), 0), length - side)


def inside(box: Box, shape: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the pixels that a box touches."""
    top, left, bottom, right = box
    rows = slice(max(0, int(top)), min(shape[0], max(int(top) + 1, -int(-bottom // 1))))
    columns = slice(max(0, int(left)), min(shape[1], max(int(left) + 1, -int(-right // 1))))
    return rows, columns
