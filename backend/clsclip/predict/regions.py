"""Where ClsCLIP+ zooms in: the part of an image that is cut out around a region proposal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from clsclip.errors import InvalidConfigError

Box = tuple[float, float, float, float]
"""Top, left, bottom, right in image pixels, the last two exclusive."""

MARGIN: Final = 0.15
"""Context on each side of a region, as a part of its height or width (ours)."""

SMALLEST: Final = 8
"""Side of a frame in pixels below which there is nothing to see."""

ANY_OBJECT: Final = "object"
"""The word for whatever a region shows (ours). It learns from the masks of all seen words."""


@dataclass(frozen=True)
class Frame:
    """A rectangular part of an image, which may reach beyond it.

    Attributes
    ----------
    top, left, height, width : int
        In image pixels.
    """

    top: int
    left: int
    height: int
    width: int


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


def frame_around(box: Box, margin: float = MARGIN) -> Frame:
    """The part of an image to look at for a region: the box with a margin on each side.

    It is stretched to the network's square input, so that the box lies at the same place of every
    input and the network knows it.

    Parameters
    ----------
    box : Box
    margin : float
        See :data:`MARGIN`.
    """
    top, left, bottom, right = box
    height, width = (
        max(SMALLEST, round(length * (1 + 2 * margin))) for length in (bottom - top, right - left)
    )
    return Frame(
        round((top + bottom - height) / 2), round((left + right - width) / 2), height, width
    )


def inside(box: Box, shape: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the pixels that a box touches."""
    top, left, bottom, right = box
    rows = slice(max(0, int(top)), min(shape[0], max(int(top) + 1, -int(-bottom // 1))))
    columns = slice(max(0, int(left)), min(shape[1], max(int(left) + 1, -int(-right // 1))))
    return rows, columns
