"""Where ClsCLIP+ zooms in: the part of an image that is cut out around a region proposal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clsclip.errors import InvalidConfigError

Box = tuple[float, float, float, float]
"""Top, left, bottom, right in image pixels, the last two exclusive."""

MARGIN: Final = 0.15
"""Context on each side of a region, as a part of its height or width (ours)."""

SMALLEST: Final = 8
"""Side of a frame in pixels below which there is nothing to see."""

MOST_BOXES: Final = 2**16 - 1
"""Regions of a word: as many as the owners of pixels have ids."""

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
        If a region's word is not asked for, a box shows nothing of the image, or a word has too
        many.
    """
    for word, boxes in regions.items():
        if word not in words:
            raise InvalidConfigError(
                f"There are regions for '{word}', which is not among the words asked for "
                f"({', '.join(words)}). Ask for it too, or leave its regions out."
            )
        if len(boxes) > MOST_BOXES:
            raise InvalidConfigError(
                f"There are {len(boxes)} regions for '{word}'; at most {MOST_BOXES} can be told "
                "apart. Leave some out."
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


def frame_around(
    box: Box, shape: tuple[int, int], smallest: float = SMALLEST, margin: float = MARGIN
) -> Frame:
    """The part of an image to look at for a region: the box with a margin on each side.

    It is stretched to the network's square input. A side that would be magnified too much gets
    more context instead, from within the image where that is large enough (ours).

    Parameters
    ----------
    box : Box
    shape : tuple of int
        Rows and columns of the image.
    smallest : float
        Smallest side of a frame in image pixels.
    margin : float
        See :data:`MARGIN`.
    """
    top, left, bottom, right = box
    (first, height), (column, width) = (
        _side(low, high, length, smallest, margin)
        for low, high, length in ((top, bottom, shape[0]), (left, right, shape[1]))
    )
    return Frame(first, column, height, width)


def _side(low: float, high: float, length: int, smallest: float, margin: float) -> tuple[int, int]:
    """First pixel and number of pixels of a frame along an axis."""
    around = margin * (high - low)
    first, last = math.floor(low - around), math.ceil(high + around)
    side = max(SMALLEST, last - first, round(smallest))
    start = min(max(round((low + high - side) / 2), last - side), first)
    if last - first < side <= length:
        start = min(max(start, 0), length - side)
    return start, side


def share_frames(
    boxes: Sequence[Box], shape: tuple[int, int], smallest: float, margin: float = MARGIN
) -> tuple[list[Frame], NDArray[np.intp]]:
    """Frames for many boxes; small ones that lie in one frame with their margins share it.

    Parameters
    ----------
    boxes, shape, smallest, margin
        As :func:`frame_around` takes them.

    Returns
    -------
    frames : list of Frame
        In the order of the boxes that they were made for.
    places : ndarray of int, shape (n,)
        For each box, the place of its frame.
    """
    frames: list[Frame] = []
    shared: list[tuple[int, tuple[int, int, int, int]]] = []
    places = np.zeros(len(boxes), dtype=np.intp)
    for index, box in enumerate(boxes):
        frame = frame_around(box, shape, smallest, margin)
        small = max(frame.height, frame.width) <= max(SMALLEST, round(smallest))
        if small and shared:
            edges = np.array([corners for _, corners in shared])
            top, left, bottom, right = padded(box, shape, margin)
            holds = (edges[:, :2] <= (top, left)).all(1) & (edges[:, 2:] >= (bottom, right)).all(1)
            if holds.any():
                places[index] = shared[int(holds.argmax())][0]
                continue
        places[index] = len(frames)
        frames.append(frame)
        if small:
            low = (frame.top, frame.left)
            high = (frame.top + frame.height, frame.left + frame.width)
            shared.append((len(frames) - 1, (*low, *high)))
    return frames, places


def trusted(
    box: Box, shape: tuple[int, int], margin: float = MARGIN
) -> tuple[slice, slice, NDArray[np.float32], NDArray[np.float32]]:
    """How far a region is believed about the pixels around it.

    Parameters
    ----------
    box : Box
    shape : tuple of int
        Rows and columns of the image.
    margin : float
        See :data:`MARGIN`.

    Returns
    -------
    rows, columns : slice
        Pixels that the box with its margin touches.
    trust : ndarray of float32, shape (rows, columns), in [0, 1]
        1 inside the box, falling to 0 across the margin.
    distance : ndarray of float32, shape (rows, columns)
        From the middle of the box, in halves of its sides: 1 where an ellipse in it ends.
    """
    top, left, bottom, right = box
    rows, columns = inside(padded(box, shape, margin), shape)
    within = inside(box, shape)
    trust, distance = np.ones((1, 1)), np.zeros((1, 1))
    for along, low, high, part, whole in (
        ((-1, 1), top, bottom, rows, within[0]), ((1, -1), left, right, columns, within[1])
    ):  # fmt: skip
        centres = np.arange(part.start, part.stop, dtype=np.float32) + 0.5
        outside = np.maximum(np.maximum(low - centres, centres - high), 0)
        ramp = np.clip(1 - outside / max(margin * (high - low), 1e-6), 0, 1)
        ramp[whole.start - part.start : whole.stop - part.start] = 1
        away = ((centres - (low + high) / 2) / (max(high - low, 1.0) / 2)) ** 2
        trust = trust * ramp.reshape(along)
        distance = distance + away.reshape(along)
    return rows, columns, trust.astype(np.float32), np.sqrt(distance).astype(np.float32)


def padded(box: Box, shape: tuple[int, int], margin: float) -> Box:
    """The part of a box with its margin that lies in the image."""
    top, left, bottom, right = box
    down, across = margin * (bottom - top), margin * (right - left)
    return (
        max(top - down, 0.0), max(left - across, 0.0),
        min(bottom + down, float(shape[0])), min(right + across, float(shape[1])),
    )  # fmt: skip


def inside(box: Box, shape: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the pixels that a box touches."""
    top, left, bottom, right = box
    rows = slice(max(0, int(top)), min(shape[0], max(int(top) + 1, -int(-bottom // 1))))
    columns = slice(max(0, int(left)), min(shape[1], max(int(left) + 1, -int(-right // 1))))
    return rows, columns
