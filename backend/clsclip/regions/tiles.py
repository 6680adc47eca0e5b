"""Overlapping tiles and the whole image, for words of which nothing else has a proposal (ours)."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clsclip.errors import InvalidConfigError
from clsclip.predict.regions import MARGIN, SMALLEST, Box
from clsclip.regions.region import Region

DEFAULT_ZOOM: Final = 2.0
"""Model pixels per image pixel inside a tile."""

OVERLAP: Final = 0.25
"""Part of a tile that it shares with its neighbour at least."""

MOST_TILES: Final = 64

_GROWTH: Final = 1.05


def tile_boxes(
    shape: tuple[int, int], side: float, overlap: float = OVERLAP, limit: int = MOST_TILES
) -> list[Box]:
    """Evenly spread tiles that cover an image.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the image.
    side : float
        Image pixels of a tile's side; along an axis that is shorter, the whole axis.
    overlap : float
        Part of a tile that it shares with its neighbour at least, 0 to below 1.
    limit : int
        Most tiles. Where more would be needed, tiles are larger.

    Returns
    -------
    list of Box
        Top, left, bottom, right in whole image pixels, row by row. Every pixel lies in a tile.

    Raises
    ------
    InvalidConfigError
        If a parameter is out of its range.
    """
    if min(shape) < 1 or not math.isfinite(side) or not 0 <= overlap < 1 or limit < 1:
        raise InvalidConfigError(
            f"Tiles of {side} pixels, overlapping by {overlap}, at most {limit}, cannot cover an "
            f"image of shape {shape}. The side must be finite, the overlap in [0, 1), the "
            "number and the image at least 1."
        )
    pixels = max(SMALLEST, round(side))
    while math.prod(_count(length, pixels, overlap) for length in shape) > limit:
        pixels = math.ceil(pixels * _GROWTH)
    height, width = (min(length, pixels) for length in shape)
    return [
        (top, left, top + height, left + width)
        for top in _starts(shape[0], pixels, overlap)
        for left in _starts(shape[1], pixels, overlap)
    ]


class Tiles:
    """Tiles and the whole image; a :class:`clsclip.regions.region.RegionGenerator` for any word.

    Parameters
    ----------
    zoom : float
        Model pixels per image pixel at which a tile with its margin
        (:data:`clsclip.predict.regions.MARGIN`) fills the network's input.
    image_size : int
        Side of that input.
    overlap, limit
        As :func:`tile_boxes` takes them.

    Raises
    ------
    InvalidConfigError
        If the zoom or the input has no size.
    """

    name: Final = "overlapping tiles"

    def __init__(
        self,
        zoom: float = DEFAULT_ZOOM,
        *,
        image_size: int = 352,
        overlap: float = OVERLAP,
        limit: int = MOST_TILES,
    ) -> None:
        if not (zoom > 0 and image_size > 0):
            raise InvalidConfigError(f"Zoom {zoom} and input {image_size} must be above 0.")
        self._side = image_size / zoom / (1 + 2 * MARGIN)
        self._overlap, self._limit = overlap, limit

    def knows(self, word: str) -> bool:
        """True: a tile may show anything."""
        return True

    def propose(self, rgb: NDArray[np.float32], word: str) -> list[Region]:
        """The whole image, then the tiles unless one is as large as it, all of score 1.

        Parameters
        ----------
        rgb : ndarray of float32, shape (H, W, 3)
        word : str
        """
        shape = (rgb.shape[0], rgb.shape[1])
        whole: Box = (0, 0, *shape)
        tiles = tile_boxes(shape, self._side, self._overlap, self._limit)
        return [Region(word, 1.0, box, "tile") for box in dict.fromkeys([whole, *tiles])]


def _count(length: int, side: int, overlap: float) -> int:
    """Tiles along an axis."""
    step = max(1, side - math.ceil(side * overlap))
    return max(0, math.ceil((length - side) / step)) + 1


def _starts(length: int, side: int, overlap: float) -> list[int]:
    """First pixels of the tiles along an axis."""
    count = _count(length, side, overlap)
    return [k * (length - side) // max(1, count - 1) for k in range(count)]
