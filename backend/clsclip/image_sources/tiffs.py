"""TIFF files as image sources."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import zarr
from numpy.typing import NDArray
from tifffile import TiffFile, TiffPageSeries

from clsclip.errors import FileError
from clsclip.image_sources.pixel_size import PixelSize, tiff_pixel_size
from clsclip.image_sources.source import CHANNEL_AXES, ImageSource, Once, check_level

TIFF_ENDINGS: Final = (".tif", ".tiff")

_WHOLE_VALUES: Final = 2048 * 2048
"""TIFF files of one plane and at most this many values are read at once, which is faster."""


def tiff_source(path: Path, level: int, channels: tuple[int, ...]) -> ImageSource:
    """See :func:`clsclip.image_sources.opening.open_source`."""
    file = TiffFile(path)
    try:
        if not file.series:
            raise FileError(f"'{path}' holds no image.")
        series = file.series[0]
        check_level(str(path), level, len(series.levels))
        chosen = series.levels[level]
        size = _at_level(tiff_pixel_size(file), series, chosen)
        return _series_source(path, file, chosen, size, channels)
    except BaseException:
        file.close()
        raise


def _at_level(
    size: PixelSize | None, full: TiffPageSeries, level: TiffPageSeries
) -> PixelSize | None:
    """Pixel size of a level of a pyramid, from that of the full resolution."""
    if size is None or level is full:
        return size
    steps = [full.shape[full.axes.index(a)] / level.shape[level.axes.index(a)] for a in "YX"]
    return size[0] * steps[0], size[1] * steps[1]


def _series_source(
    path: Path, file: TiffFile, series: TiffPageSeries, pixel_size: PixelSize | None,
    channels: tuple[int, ...],
) -> ImageSource:  # fmt: skip
    shape, axes, name = series.shape, series.axes.lower(), str(path)
    if series.dtype is None:
        raise FileError(f"The pixels of '{path}' are of no single type.")
    dtype = np.dtype(series.dtype)
    whole = Once(series.asarray)

    def close() -> None:
        whole.forget()
        file.close()

    def source(open_array: Callable[[], Any]) -> ImageSource:
        return ImageSource(name, open_array, shape, dtype, axes, close, pixel_size, channels)

    planes = _planes(shape, axes)
    if planes == 1 and np.prod(shape) <= _WHOLE_VALUES:
        return source(whole)
    if series.dataoffset is not None:
        stored, offset = dtype.newbyteorder(file.byteorder), series.dataoffset
        # mapped anew for every reading, so that pages which were read do not stay
        return source(lambda: np.memmap(path, stored, "r", offset, shape))
    chunked: Any = zarr.open(series.aszarr(), mode="r")
    if np.prod(chunked.chunks) <= np.prod(shape) // (2 * planes):
        return source(lambda: chunked)
    if planes == 1:
        return source(whole)
    paged = _PlaneByPlane(chunked, axes)
    return source(lambda: paged)


def _planes(shape: tuple[int, ...], axes: str) -> int:
    lengths = zip(axes, shape, strict=True)
    return math.prod(n for axis, n in lengths if axis not in "yx" + CHANNEL_AXES)


class _PlaneByPlane:
    """An array of planes that are decoded as a whole; the last one is remembered."""

    def __init__(self, array: Any, axes: str) -> None:
        self._array = array
        self._within = [axis in "yx" + CHANNEL_AXES for axis in axes]
        self._last: tuple[tuple[int, ...], NDArray[Any]] | None = None

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[Any]:
        where = tuple(zip(index, self._within, strict=True))
        number = tuple(place for place, within in where if not within)
        if self._last is None or self._last[0] != number:
            self._last = None  # not two at a time
            every = tuple(slice(None) if within else place for place, within in where)
            self._last = (number, np.asarray(self._array[every]))
        part: NDArray[Any] = self._last[1][tuple(place for place, within in where if within)]
        return part
