"""The zoom at which a word is segmented, from the size of its objects.

A ViT with 16-pixel patches misses objects of a few pixels, and loses sight of the whole when the
image is cut into small tiles (section 3.4 of the paper). So the whole image is looked at first,
and the size of what is found there decides how far to zoom in. Ours; the paper leaves it open.
``benchmarks/zoom.py`` chose the constants on training images of nuclei.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.feature import peak_local_max

TARGET_DIAMETER: Final = 64.0
"""Model pixels across that objects should have: four patches of 16."""

MAX_ZOOM: Final = 2.0
"""Model pixels per image pixel beyond which nothing is gained."""

BLIND_STEP: Final = 3.0
"""Factor by which to go on when a look finds nothing."""

LEAST_STEP: Final = 1.2
"""Factor by which another zoom must differ to be worth a look."""

REFINEMENTS: Final = 2
"""Most looks after the first one. The first is often too coarse to tell touching objects apart, and
takes a clump for a large object; the second sees them."""

COMPANION: Final = 2**-0.5
"""The last zoom times this is looked at too, and the mean of both counts: patches then lie
otherwise over the same objects. Not for an image that the first look was enough for."""


def object_diameter(foreground: NDArray[np.bool_]) -> float | None:
    """Typical width of the objects of a mask, in pixels.

    Each peak of the distance to the background stands for an object, also where objects touch;
    twice its height is the object's width. The median is taken over the area that they cover.

    Parameters
    ----------
    foreground : ndarray of bool, shape (H, W)

    Returns
    -------
    float or None
        None for a mask without foreground.
    """
    if not foreground.any():
        return None
    depth = ndimage.distance_transform_edt(np.pad(foreground, 1))[1:-1, 1:-1]
    smooth = ndimage.gaussian_filter(depth, 0.7) * foreground
    peaks = peak_local_max(smooth, min_distance=2, exclude_border=False)  # type: ignore[no-untyped-call]
    heights = depth[tuple(peaks.T)] if len(peaks) else depth.max(keepdims=True).ravel()
    widths = np.sort(2.0 * heights)
    areas = np.cumsum(widths**2)
    return float(widths[np.searchsorted(areas, areas[-1] / 2)])


def whole_image_zoom(shape: tuple[int, int], image_size: int) -> float:
    """Zoom at which an image of ``shape`` (rows, columns) fits the network's input."""
    return min(MAX_ZOOM, image_size / max(shape))


def refined_zoom(foreground: NDArray[np.bool_], zoom: float) -> float | None:
    """The zoom to go on with after a look.

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
    else:
        wanted = min(zoom * TARGET_DIAMETER / diameter, MAX_ZOOM)
    return wanted if wanted > LEAST_STEP * zoom else None
