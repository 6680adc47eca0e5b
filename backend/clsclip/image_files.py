"""Image files on disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from tifffile import imread

from clsclip.errors import ClsClipError, FileError

IMAGE_ENDINGS: Final = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
"""Endings of the files that are taken from a folder."""

OTHER_WAY: Final = (
    "Files of other formats are labelled from the Batch tab in napari, if a reader plugin there "
    "opens them; or convert them to OME-TIFF."
)
"""What to do with files of other endings."""

ZARR_FILES: Final = ("zarr.json", ".zarray", ".zgroup")
"""Of these, every zarr folder has one."""


def has_image_ending(file: Path) -> bool:
    """Whether a file of this name is taken from a folder."""
    return file.suffix.lower() in IMAGE_ENDINGS


def is_zarr(path: Path) -> bool:
    """Whether a folder is a zarr array or group."""
    return path.is_dir() and any((path / name).is_file() for name in ZARR_FILES)


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
    with read_faults(str(file)):
        if file.suffix.lower() in (".tif", ".tiff"):
            return np.asarray(imread(file))
        with Image.open(file) as image:
            if is_deep_colour(image):
                image.load()  # its errors are clearer, and it is strict
                return _read_deep_colour(file, len(image.getbands()))
            coloured = image.mode == "P" and not indices
            return np.asarray(image.convert("RGB") if coloured else image)


@contextmanager
def read_faults(name: str) -> Iterator[None]:
    """Whatever readers of damaged files raise, as one kind of error.

    That is nearly everything, from zlib's own errors to divisions by zero and arrays of 100 GiB.

    Raises
    ------
    FileError
    """
    try:
        yield
    except ClsClipError:
        raise
    except Exception as error:
        reason = f"'{name}' cannot be read as an image ({str(error) or type(error).__name__})."
        known = Path(name).suffix.lower() in ("", ".zarr", *IMAGE_ENDINGS)
        way = "It may be truncated or of another format than its name says." if known else OTHER_WAY
        raise FileError(f"{reason} {way}") from error


def is_deep_colour(image: Image.Image) -> bool:
    """Whether it is a PNG of 16 bits per colour, of which Pillow gives the upper 8 bits only."""
    encoded = image.tile if isinstance(image, ImageFile.ImageFile) else ()
    deep = any(part[3] in ("RGB;16B", "RGBA;16B") for part in encoded)
    return deep and image.format == "PNG"


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
    files = sorted(file for file in folder.iterdir() if has_image_ending(file))
    if not files:
        raise FileError(f"'{folder}' holds no image files ({', '.join(IMAGE_ENDINGS)}).")
    return files
