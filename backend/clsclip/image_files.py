"""Image files on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from tifffile import TiffFileError, imread

from clsclip.errors import FileError

IMAGE_ENDINGS: Final = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
"""Endings of the files that are taken from a folder."""


def read_image(file: Path, *, indices: bool = False) -> NDArray[Any]:
    """Read one image file as it is stored.

    Parameters
    ----------
    file : Path
    indices : bool
        Keep the indices of an image with a palette, as labels are stored, instead of its colours.

    Returns
    -------
    ndarray, shape (H, W) or (H, W, C)
        More axes for multi-page TIFF files. Palettes are resolved to RGB, unless ``indices``.

    Raises
    ------
    FileError
        If the file cannot be read or is not an image.
    """
    try:
        if file.suffix.lower() in (".tif", ".tiff"):
            return np.asarray(imread(file))
        with Image.open(file) as image:
            coloured = image.mode == "P" and not indices
            return np.asarray(image.convert("RGB") if coloured else image)
    except (OSError, UnidentifiedImageError, TiffFileError, ValueError, SyntaxError,
            Image.DecompressionBombError) as error:  # fmt: skip
        raise FileError(
            f"'{file}' cannot be read as an image ({error}). It may be truncated or of another "
            "format than its name says."
        ) from error


def list_images(folder: Path) -> list[Path]:
    """Image files of a folder (not of its subfolders), by name.

    Raises
    ------
    FileError
        If the folder does not exist or holds no image file.
    """
    if not folder.is_dir():
        raise FileError(f"The folder '{folder}' does not exist.")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGE_ENDINGS)
    if not files:
        raise FileError(f"'{folder}' holds no image files ({', '.join(IMAGE_ENDINGS)}).")
    return files
