"""Small pictures of images with their labels drawn over them, for the list of a batch."""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import Any, Final

import numpy as np
import zarr
from numpy.typing import NDArray
from PIL import Image

from clsclip.batch.files import write_at_once
from clsclip.image_sources import ImageSource
from clsclip.predict.transforms import to_rgb

LONGEST: Final = 128
"""Pixels of the longer side, at most."""

_OPACITY: Final = 0.45
_GOLDEN: Final = 0.618033988749895
"""Of a turn from one hue to the next keeps neighbouring ids apart."""


def write_thumbnail(target: Path, pixels: NDArray[Any], labels: NDArray[Any]) -> None:
    """Draw labels over an image, and write that as a small PNG, at once or not at all.

    Parameters
    ----------
    target : Path
    pixels : ndarray, shape (H, W) or (H, W, C)
        As :func:`clsclip.predict.transforms.to_rgb` takes them.
    labels : ndarray of integer, shape (H, W)
        Ids; 0 is not drawn.

    Raises
    ------
    OSError
    """
    step = _step(pixels.shape)
    _write(target, pixels[::step, ::step], labels[::step, ::step])


def write_large_thumbnail(target: Path, source: ImageSource, labels: Path) -> None:
    """Like :func:`write_thumbnail`, of an image and its labels in a zarr.

    Raises
    ------
    FileError, OSError
    """
    step = _step(source.shape)
    array = zarr.open_array(labels, mode="r")
    _write(target, source.overview(LONGEST), np.asarray(array[::step, ::step]))


def _step(shape: tuple[int, ...]) -> int:
    return -(-max(shape[:2]) // LONGEST)


def _write(target: Path, pixels: NDArray[Any], labels: NDArray[Any]) -> None:
    picture = to_rgb(pixels) * 255
    ids, places = np.unique(labels, return_inverse=True)
    colours = np.array([_colour(int(each)) for each in ids]).reshape(-1, 3)
    drawn = colours[places.reshape(labels.shape)]
    opacity = np.where(labels > 0, _OPACITY, 0.0)[..., None]
    mixed = (picture * (1 - opacity) + drawn * opacity).round().astype(np.uint8)
    write_at_once(target, lambda draft: Image.fromarray(mixed).save(draft, format="png"))


def _colour(label: int) -> tuple[float, float, float]:
    """RGB, 0 to 255."""
    red, green, blue = colorsys.hsv_to_rgb((label * _GOLDEN) % 1.0, 1.0, 1.0)
    return 255 * red, 255 * green, 255 * blue
