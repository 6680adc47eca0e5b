"""Measures of single objects: the columns of the tables that people read. Ours; no torch here."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from skimage.measure import regionprops_table

from clsclip.errors import InvalidImageError

_COLUMNS: Final = {
    "label": "label",
    "area": "area",
    "centroid_row": "centroid-0",
    "centroid_column": "centroid-1",
    "top": "bbox-0",
    "left": "bbox-1",
    "bottom": "bbox-2",
    "right": "bbox-3",
    "mean_probability": "intensity_mean",
    "equivalent_diameter": "equivalent_diameter_area",
    "eccentricity": "eccentricity",
    "solidity": "solidity",
}
"""Columns of the table, and what scikit-image calls them."""


def instance_features(
    labels: NDArray[np.integer[Any]], probability: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    """Measures of every object.

    Parameters
    ----------
    labels : ndarray of int, shape (H, W)
        Ids of objects, at least 0; 0 is background.
    probability : ndarray of uint8 or float, shape (H, W)
        As :func:`checked_probability` takes it.

    Returns
    -------
    dict of str to ndarray, shape (n,)
        ``label``; ``area`` in pixels; ``centroid_row``, ``centroid_column``; the box ``top``,
        ``left``, ``bottom``, ``right`` in pixels, the last two exclusive; ``mean_probability`` in
        [0, 1]; ``equivalent_diameter`` in pixels, of the disc of that area; ``eccentricity`` in
        [0, 1), 0 for a disc; ``solidity`` in (0, 1], the part of its convex hull that it fills.

    Raises
    ------
    InvalidImageError
        If a shape, dtype or value is another.
    """
    plane = checked_probability(probability)
    if labels.shape != plane.shape or labels.dtype.kind not in "ui":
        raise InvalidImageError(
            f"The labels are {labels.dtype} of shape {labels.shape}; expected integers of the "
            f"shape {plane.shape} of the probabilities."
        )
    # regionprops reads no unsigned 64-bit integers
    signed = labels.astype(np.int64) if labels.dtype.itemsize > 2 else labels
    table = regionprops_table(  # type: ignore[no-untyped-call]
        signed,
        intensity_image=plane,
        properties=tuple(dict.fromkeys(name.partition("-")[0] for name in _COLUMNS.values())),
    )
    return {column: table[name] for column, name in _COLUMNS.items()}


def checked_probability(probability: NDArray[Any]) -> NDArray[np.float32]:
    """Probabilities of a plane as floats, after a check of its shape, dtype and values.

    Parameters
    ----------
    probability : ndarray of uint8 or float, shape (H, W)
        0 to 255 for uint8, where ``q`` stands for ``q / 255``, and 0 to 1 for floats.

    Returns
    -------
    ndarray of float32, shape (H, W)
        In [0, 1].

    Raises
    ------
    InvalidImageError
        If the shape, dtype or values are others.
    """
    if probability.ndim != 2:
        raise InvalidImageError(
            f"The probabilities have the shape {probability.shape}; expected one plane (H, W)."
        )
    if probability.dtype == np.uint8:
        scaled: NDArray[np.float32] = np.divide(probability, 255, dtype=np.float32)
        return scaled
    if probability.dtype.kind != "f":
        raise InvalidImageError(
            f"The probabilities are {probability.dtype}; expected uint8 (0 to 255) or floats (0 to "
            "1). A mask of booleans can be given as 'mask.astype(float)'."
        )
    if probability.size and not (probability.min() >= 0 and probability.max() <= 1):
        raise InvalidImageError(
            f"The probabilities go from {probability.min()} to {probability.max()}; floats must be "
            "from 0 to 1, without NaN."
        )
    return probability.astype(np.float32)
