"""Overlapping tiles, for words of which nothing else has a proposal (ours)."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from clsclip.errors import InvalidConfigError
from clsclip.predict.tiling import plan_windows, window_boxes
from clsclip.regions.region import Checkpoint, Region, go_on

DEFAULT_ZOOM: Final = 2.0
"""Model pixels per image pixel inside a tile."""


class Tiles:
    """The network's own windows; a :class:`clsclip.regions.region.RegionGenerator` for any word.

    They overlap by :data:`clsclip.predict.tiling.OVERLAP`. In prediction their probabilities are
    blended like those of any windows, not joined by the maximum: each window sees objects cut off
    at its edges, and what one of them takes them for is no reason to overrule the others.

    Parameters
    ----------
    zoom : float
        Model pixels per image pixel.
    image_size, patch_size : int
        Sides of the network's input and of its patches.

    Raises
    ------
    InvalidConfigError
        If the zoom or the input has no size.
    """

    name: Final = "overlapping tiles"

    def __init__(
        self, zoom: float = DEFAULT_ZOOM, *, image_size: int = 352, patch_size: int = 16
    ) -> None:
        if not (zoom > 0 and image_size > 0 and patch_size > 0):
            raise InvalidConfigError(f"Zoom {zoom} and input {image_size} must be above 0.")
        self._zoom, self._image_size, self._patch_size = zoom, image_size, patch_size

    def knows(self, word: str) -> bool:
        """True: a tile may show anything."""
        return True

    def propose(
        self, rgb: NDArray[np.float32], word: str, checkpoint: Checkpoint = go_on
    ) -> list[Region]:
        """Tiles of score 1 that cover the image, row by row.

        Parameters
        ----------
        rgb : ndarray of float32, shape (H, W, 3)
        word : str
        checkpoint : callable
            Not called: there is one look at most.
        """
        shape = (rgb.shape[0], rgb.shape[1])
        windows = plan_windows(shape, self._zoom, self._image_size, self._patch_size)
        return [Region(word, 1.0, box, "tile") for box in window_boxes(shape, windows)]
