"""The zoom at which a word is segmented, from the size of its objects.

A ViT with 16-pixel patches misses objects of a few pixels, and loses sight of the whole when the
image is cut into small tiles (section 3.4 of the paper). So the whole image is looked at first,
and the size of what is found there decides how far to zoom in. Ours; the paper leaves it open.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

TARGET_DIAMETER: Final = 40.0
"""Model pixels across that objects should have: two to three patches of 16."""

GOOD_DIAMETER: Final = 28.0
"""Objects at least this large in the first look are not zoomed."""

MAX_ZOOM: Final = 3.0
"""Model pixels per image pixel beyond which nothing is gained."""

BLIND_STEP: Final = 3.0
"""Factor by which to go on when the first look finds nothing."""


def object_diameter(foreground: NDArray[np.bool_]) -> float | None:
    """Typical width of the objects of a mask, in pixels.

    Each foreground pixel votes for the width of the object it is in: twice the largest distance
    to the background within its connected component, which touching objects do not change.

    Parameters
    ----------
    foreground : ndarray of bool, shape (H, W)

    Returns
    -------
    float or None
        The median vote, or None for a mask without foreground.
    """
    if not foreground.any():
        return None
    depth = ndimage.distance_transform_edt(np.pad(foreground, 1))[1:-1, 1:-1]
    components, count = ndimage.label(foreground)
    ids = np.arange(1, count + 1)
    widths = 2.0 * np.asarray(ndimage.maximum(depth, components, ids)) - 1.0
    areas = np.asarray(ndimage.sum_labels(foreground, components, ids))
    order = np.argsort(widths)
    middle = np.searchsorted(np.cumsum(areas[order]), areas.sum() / 2)
    return float(widths[order][middle])


def whole_image_zoom(shape: tuple[int, int], image_size: int) -> float:
    """Zoom at which an image of ``shape`` (rows, columns) fits the network's input."""
    return min(MAX_ZOOM, image_size / max(shape))


def refined_zoom(foreground: NDArray[np.bool_], zoom: float) -> float | None:
    """The zoom to go on with after a look at the whole image.

    Parameters
    ----------
    foreground : ndarray of bool, shape (H, W)
        What the look found, in model pixels.
    zoom : float
        Model pixels per image pixel of that look.

    Returns
    -------
    float or None
        None if the look is good enough.
    """
    diameter = object_diameter(foreground)
    if diameter is None:
        wanted = min(zoom * BLIND_STEP, max(zoom, 1.0))
    elif diameter >= GOOD_DIAMETER:
        return None
    else:
        wanted = min(zoom * TARGET_DIAMETER / diameter, MAX_ZOOM)
    return wanted if wanted > 1.2 * zoom else None
