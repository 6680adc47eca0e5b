"""Open what is on disk as an image source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from clsclip.image_files import is_deep_colour, read_faults, read_image
from clsclip.image_sources.source import ImageSource, Once, check_level
from clsclip.image_sources.tiffs import TIFF_ENDINGS, tiff_source
from clsclip.image_sources.zarrs import zarr_source


def open_source(path: Path, *, level: int = 0, channels: tuple[int, ...] = ()) -> ImageSource:
    """Open an image file or a zarr folder to read parts of it.

    Parameters
    ----------
    path : Path
        A zarr array of (H, W), (H, W, 3) or (H, W, 4), of planes of these, (planes, H, W), or
        with named dimensions; an OME-Zarr group; a TIFF file, of which the first image series is
        taken; or a file that :func:`clsclip.image_files.read_image` reads.
    level : int
        Resolution level of OME-Zarr groups and TIFF pyramids; 0 is the full resolution.
    channels : tuple of int
        Channels to read, counted from 0: one as grey, or three as colours. Empty: all.

    Raises
    ------
    FileError
        If it cannot be read.
    InvalidConfigError
        If there is no such level.
    InvalidImageError
        If it has no rows and columns, or a number of channels that is not taken; see
        :class:`ImageSource`.
    """
    with read_faults(str(path)):
        if path.is_dir():
            return zarr_source(path, level, channels)
        if path.suffix.lower() in TIFF_ENDINGS:
            return tiff_source(path, level, channels)
        check_level(str(path), level, 1)
        with Image.open(path) as image:
            bands = {"P": 3, "PA": 4}.get(image.mode, len(image.getbands()))
            size = (image.height, image.width)
            shallow = {"1": "?", "I": "i4", "F": "f4"}.get(image.mode, "u1")
            deep = image.mode.startswith("I;16") or is_deep_colour(image)
            dtype = np.dtype("u2" if deep else shallow)
    whole = Once(lambda: read_image(path))
    return ImageSource(
        str(path), whole, (*size, bands)[: 2 + (bands > 1)], dtype, "yxs"[: 2 + (bands > 1)],
        whole.forget, chosen=channels,
    )  # fmt: skip
