"""Region proposals that a person drew in a napari Shapes layer.

The paper's Table 7 shows what they are worth: correct boxes gave +23.6 mIoU where the detector's
were wrong.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clsclip.errors import InvalidConfigError
from clsclip.predict.regions import Box
from clsclip.regions.region import Checkpoint, Region, go_on

_OUTSIDE: Final = "outside the image"
_CENTRE: Final = 0.5  # the middle of the first pixel is 0 in napari, its edge is 0 in a box


@dataclass(frozen=True)
class DrawnBoxes:
    """Boxes around drawn shapes; a :class:`clsclip.regions.region.RegionGenerator` for any word.

    Attributes
    ----------
    boxes : tuple of Box
        Top, left, bottom, right in image pixels, the last two exclusive, inside the image.
    dropped : tuple of str
        For each shape that shows nothing, why: "outside the image".
    shape : tuple of int
        Rows and columns of the image.
    """

    boxes: tuple[Box, ...]
    dropped: tuple[str, ...]
    shape: tuple[int, int]

    @property
    def name(self) -> str:
        """What a person calls it."""
        return "drawn boxes"

    @property
    def dropped_because(self) -> str:
        """Reasons with their numbers: "2 outside the image". Empty if all shapes are used."""
        counts = Counter(self.dropped)
        return ", ".join(f"{counts[reason]} {reason}" for reason in sorted(counts))

    def knows(self, word: str) -> bool:
        """True: the person knows."""
        return True

    def propose(
        self, rgb: NDArray[np.float32], word: str, checkpoint: Checkpoint = go_on
    ) -> list[Region]:
        """A region of score 1 for every box, in the order that they were drawn.

        Parameters
        ----------
        rgb : ndarray of float32, shape (H, W, 3)
        word : str
        checkpoint : callable
            Not called: there is one look at most.

        Raises
        ------
        InvalidConfigError
            If the image is not as large as the one that the shapes were drawn on.
        """
        if rgb.shape[:2] != self.shape:
            raise InvalidConfigError(
                f"The boxes were drawn on an image of {self.shape[0]} x {self.shape[1]} pixels, "
                f"and this one has {rgb.shape[0]} x {rgb.shape[1]}. Draw them on this image."
            )
        return [Region(word, 1.0, box, "drawn") for box in self.boxes]


def boxes_around(
    shapes: Sequence[NDArray[Any]] | NDArray[Any], shape: tuple[int, int]
) -> DrawnBoxes:
    """The upright boxes around drawn shapes, cut off at the edges of the image.

    Parameters
    ----------
    shapes : ndarray of shape (n, k, 2), or sequence of ndarray of shape (k, 2)
        Vertices (row, column) in pixels of the image, with the middle of the first pixel at
        (0, 0), as ``napari.layers.Shapes.data`` has them for an image without scale and
        translation: corners of rectangles (also rotated ones) and around ellipses, vertices of
        polygons.
    shape : tuple of int
        Rows and columns of the image.

    Raises
    ------
    InvalidConfigError
        If the vertices of a shape are not rows and columns.
    """
    boxes, dropped = [], []
    for number, vertices in enumerate(shapes):
        corners = np.asarray(vertices, dtype=float)
        if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) == 0:
            raise InvalidConfigError(
                f"Drawn shape {number} has an array of shape {corners.shape}; expected (vertices, "
                "2), rows and columns. Of a shape in more dimensions, give the last two."
            )
        reason = _why_not(corners, shape)
        if reason is not None:
            dropped.append(reason)
            continue
        low = np.clip(corners.min(0) + _CENTRE, 0, shape)
        high = np.clip(corners.max(0) + _CENTRE, 0, shape)
        boxes.append((float(low[0]), float(low[1]), float(high[0]), float(high[1])))
    return DrawnBoxes(tuple(boxes), tuple(dropped), shape)


def boxes_within(boxes: Sequence[Box], shape: tuple[int, int]) -> DrawnBoxes:
    """Boxes that arrive as such, cut off at the edges of the image.

    Parameters
    ----------
    boxes : sequence of Box
        Top, left, bottom, right in image pixels, the last two exclusive; the upper left corner of
        the first pixel is (0, 0). They may reach beyond the image; one that lies outside of it
        is dropped, with the reason.
    shape : tuple of int
        Rows and columns of the image.

    Raises
    ------
    InvalidConfigError
        If a box is not finite or has no area.
    """
    kept: list[Box] = []
    dropped = []
    rows, columns = shape
    for number, (top, left, bottom, right) in enumerate(boxes):
        finite = all(map(math.isfinite, (top, left, bottom, right)))
        if not (finite and top < bottom and left < right):
            raise InvalidConfigError(
                f"The drawn box {number}, ({top}, {left}, {bottom}, {right}), has no area. A box "
                "is (top, left, bottom, right) in pixels, finite, with top < bottom and "
                "left < right."
            )
        if top >= rows or left >= columns or bottom <= 0 or right <= 0:
            dropped.append(_OUTSIDE)
            continue
        kept.append((max(top, 0.0), max(left, 0.0), min(bottom, rows), min(right, columns)))
    return DrawnBoxes(tuple(kept), tuple(dropped), shape)


def _why_not(corners: NDArray[np.float64], shape: tuple[int, int]) -> str | None:
    """Why a shape shows nothing of an image, or None if it shows something."""
    if not np.isfinite(corners).all():
        return "with coordinates that are not finite"
    low, high = corners.min(0) + _CENTRE, corners.max(0) + _CENTRE
    if not (low < high).all():
        return "without an area"
    if (high <= 0).any() or (low >= shape).any():
        return _OUTSIDE
    return None
