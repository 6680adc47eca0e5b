"""TIFF files as image sources."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import zarr
from tifffile import TiffFile, TiffPageSeries

from clsclip.errors import FileError
from clsclip.image_sources.source import ImageSource, Once, check_level

TIFF_ENDINGS: Final = (".tif", ".tiff")

_WHOLE_VALUES: Final = 2048 * 2048
"""TIFF files of at most this many values are read at once, which is faster."""


def tiff_source(path: Path, level: int) -> ImageSource:
    """See :func:`clsclip.image_sources.opening.open_source`."""
    file = TiffFile(path)
    try:
        if not file.series:
            raise FileError(f"'{path}' holds no image.")
        series = file.series[0]
        check_level(str(path), level, len(series.levels))
        return _series_source(path, file, series.levels[level])
    except BaseException:
        file.close()
        raise


def _series_source(path: Path, file: TiffFile, series: TiffPageSeries) -> ImageSource:
    shape, axes, name = series.shape, series.axes.lower(), str(path)
    if series.dtype is None:
        raise FileError(f"The pixels of '{path}' are of no single type.")
    dtype = np.dtype(series.dtype)
    whole = Once(series.asarray)

    def close() -> None:
        whole.forget()
        file.close()

    def source(open_array: Callable[[], Any]) -> ImageSource:
        return ImageSource(name, open_array, shape, dtype, axes, close)

    if np.prod(shape) <= _WHOLE_VALUES:
        return source(whole)
    if series.dataoffset is not None:
        stored, offset = dtype.newbyteorder(file.byteorder), series.dataoffset
        # mapped anew for every reading, so that pages which were read do not stay
        return source(lambda: np.memmap(path, stored, "r", offset, shape))
    chunked: Any = zarr.open(series.aszarr(), mode="r")
    if np.prod(chunked.chunks) > np.prod(shape) // 2:
        return source(whole)
    return source(lambda: chunked)
