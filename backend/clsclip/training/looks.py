"""How a microscopy image looks: what stain and what light, judged by its colours alone."""

from __future__ import annotations

from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Look = Literal["dark", "bright", "stained"]

LOOKS: Final[tuple[Look, ...]] = get_args(Look)
"""Fluorescence (bright on dark), brightfield or phase (grey on bright), coloured stain."""

_COLOURED: Final = 10.0
"""Mean difference of the largest and the smallest channel from which an image counts as stained."""

_BRIGHT: Final = 100.0
"""Median value from which a grey image counts as bright."""


def look(image: NDArray[np.uint8]) -> Look:
    """The look of an image.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        RGB.
    """
    thumbnail = image[:: max(1, image.shape[0] // 64), :: max(1, image.shape[1] // 64)]
    values = thumbnail.astype(np.float32)
    if float(np.median(values)) < _BRIGHT:
        return "dark"
    return "stained" if float(np.ptp(values, axis=-1).mean()) > _COLOURED else "bright"
