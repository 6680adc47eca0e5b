"""Where ClsCLIP+ zooms in: the square that is cut out around a region proposal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from clsclip.errors import InvalidConfigError

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


def check_regions(
    regions: Mapping[str, Sequence[Box]], words: Sequence[str], shape: tuple[int, int]
) -> Mapping[str, Sequence[Box]]:
    """The regions, once it is sure that every one can be looked at.

    Parameters
    ----------
    regions : mapping of str to sequence of Box
    words : sequence of str
        What is asked for.
    shape : tuple of int
        Rows and columns of the image.

    Raises
    ------
    InvalidConfigError
        If a region's word is not asked for, or a box shows nothing of the image.
    """
    for word, boxes in regions.items():
        if word not in words:
            raise InvalidConfigError(
                f"There are regions for '{word}', which is not among the words asked for "
                f"({', '.join(words)}). Ask for it too, or leave its regions out."
            )
        for box in boxes:
            top, left, bottom, right = box
            filled = all(map(math.isfinite, box)) and top < bottom and left < right
            if not (filled and top < shape[0] and left < shape[1] and bottom > 0 and right > 0):
                raise InvalidConfigError(
                    f"The region {tuple(box)} of '{word}' shows nothing of the image of "
                    f"{shape[0]} x {shape[1]} pixels. A region is (top, left, bottom, right)."
                )
    return regions


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
