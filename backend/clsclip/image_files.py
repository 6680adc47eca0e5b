"""Image files on disk."""

from __future__ import annotations

import lzma
import struct
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError
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
            if is_deep_colour(image):
                image.load()  # its errors are clearer, and it is strict
                return _read_deep_colour(file, len(image.getbands()))
            coloured = image.mode == "P" and not indices
            return np.asarray(image.convert("RGB") if coloured else image)
    except (OSError, UnidentifiedImageError, TiffFileError, ValueError, SyntaxError, struct.error,
            zlib.error, lzma.LZMAError, Image.DecompressionBombError) as error:  # fmt: skip
        raise FileError(
            f"'{file}' cannot be read as an image ({error}). It may be truncated or of another "
            "format than its name says."
        ) from error


def is_deep_colour(image: Image.Image) -> bool:
    """Whether it is a PNG of 16 bits per colour, of which Pillow gives the upper 8 bits only."""
    encoded = image.tile if isinstance(image, ImageFile.ImageFile) else ()
    return image.mode in ("RGB", "RGBA") and any("16" in str(part.args) for part in encoded)


def _read_deep_colour(file: Path, channels: int) -> NDArray[Any]:
    import cv2  # it takes long, and sets environment variables for its own Qt

    # by bytes, because OpenCV opens no names beyond ASCII on Windows
    image = cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint16:
        raise ValueError("OpenCV does not decode it in 16 bits")
    return image[..., [2, 1, 0, 3][:channels]]


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
