"""One image on disk, of which parts are read."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clsclip.blocks import Region, blocks
from clsclip.errors import InvalidConfigError, InvalidImageError
from clsclip.image_files import read_faults

_TILE: Final = 1024
"""Rows and columns that are read and remembered together."""

_TILE_BYTES: Final = 128 * 2**20
"""Bytes of tiles that are remembered."""

CHANNEL_AXES: Final = "cs"


class ImageSource:
    """One image on disk, or a stack of planes, of which parts can be read.

    Close it, or use it in a ``with`` statement. Reading is safe from one thread at a time.

    Parameters
    ----------
    name : str
        Name for messages.
    open_array : callable
        Gives something of ``shape`` that basic indexing reads; called once per reading.
    shape : tuple of int
        Length of every axis of the array.
    dtype : numpy dtype
    axes : str
        One letter per axis: ``y`` and ``x``, ``c`` or ``s`` for channels, others for planes.
    close : callable, optional
        Called by :meth:`close`.
    pixel_size : tuple of float, optional
        Height and width of a pixel in micrometres, where the file tells it.
    chosen : tuple of int
        Channels to read, counted from 0: one as grey, or three as colours. Empty: all.

    Attributes
    ----------
    shape : tuple of int
        Rows and columns.
    channels : int or None
        3 or 4 for colour images; None for grey ones.
    planes : int
        1 for a single image. The planes of several axes (time, depth) are counted in the order of
        the axes, the last one fastest.
    pixel_size : tuple of float, or None
        Height and width of a pixel in micrometres; None if the file does not tell it.

    Raises
    ------
    InvalidImageError
        If rows or columns are missing, an axis has no places, the number of channels is not
        1, 3 or 4 and none are chosen, or there are no such channels as are chosen.
    """

    def __init__(
        self,
        name: str,
        open_array: Callable[[], Any],
        shape: Sequence[int],
        dtype: np.dtype[Any],
        axes: str,
        close: Callable[[], None] | None = None,
        pixel_size: tuple[float, float] | None = None,
        chosen: tuple[int, ...] = (),
    ) -> None:
        lengths = dict(zip(axes, shape, strict=True))
        listed = ", ".join(f"{axis} ({n})" for axis, n in lengths.items())
        if not {"y", "x"} <= set(lengths):
            raise InvalidImageError(
                f"'{name}' of shape {tuple(shape)} has the axes {listed}; expected rows (y) and "
                "columns (x), and perhaps channels and planes."
            )
        if 0 in lengths.values():
            raise InvalidImageError(f"'{name}' has no pixels: its axes are {listed}.")
        stored = int(np.prod([lengths.get(axis, 1) for axis in CHANNEL_AXES]))
        absent = [channel for channel in chosen if not 0 <= channel < stored]
        if absent:
            raise InvalidImageError(
                f"'{name}' has no channel {absent[0]}; it has {stored}, counted from 0. Choose "
                "others (--channels; Channels in the Batch tab)."
            )
        if not chosen and stored not in (1, 3, 4):
            raise InvalidImageError(
                f"'{name}' has {stored} channels; expected 1, 3 or 4. Choose one or three of them "
                "(--channels; Channels in the Batch tab)."
            )
        self.name, self.dtype = name, dtype
        self.shape = (lengths["y"], lengths["x"])
        channels = len(chosen) or stored
        self.channels = channels if channels > 1 else None
        self._chosen = chosen
        self._channel_axes = {a: n for a, n in lengths.items() if a in CHANNEL_AXES}
        self.pixel_size = pixel_size
        self._stack = {a: n for a, n in lengths.items() if a not in "yx" + CHANNEL_AXES}
        self.planes = math.prod(self._stack.values())
        self._open_array, self._axes, self._close = open_array, axes, close
        self._tiles: OrderedDict[tuple[int | None, int], NDArray[Any]] = OrderedDict()
        self._cut = blocks(self.shape, _TILE)

    @property
    def pixels(self) -> int:
        """Number of pixels of one plane."""
        return self.shape[0] * self.shape[1]

    def read(self, region: Region | None = None, *, plane: int | None = None) -> NDArray[Any]:
        """A part of a plane, or all of it, as it is stored; the other planes are not read.

        Parameters
        ----------
        region : Region, optional
            Rows and columns within the image.
        plane : int, from 0 to ``planes - 1``, optional
            May be left out for a single image only.

        Returns
        -------
        ndarray, shape (h, w) or (h, w, channels)

        Raises
        ------
        FileError
            If the file is damaged or gone.
        InvalidConfigError
            If there is no such plane, or it is left out for a stack.
        """
        return self._index(region or (slice(0, self.shape[0]), slice(0, self.shape[1])), plane)

    def read_near(self, region: Region, *, plane: int | None = None) -> NDArray[Any]:
        """Like :meth:`read`, and what lies around it will soon be asked for.

        Whole tiles are read and the last ones remembered, so that no chunk on disk is decoded for
        every few rows of it.
        """
        rows, columns = region
        part = np.empty(
            (rows.stop - rows.start, columns.stop - columns.start, *self._colour), self.dtype
        )
        across = -(-self.shape[1] // _TILE)
        for down in range(rows.start // _TILE, -(-rows.stop // _TILE)):
            for right in range(columns.start // _TILE, -(-columns.stop // _TILE)):
                tile = self._tile(plane, down * across + right)
                top, left = down * _TILE, right * _TILE
                first, last = max(rows.start, top), min(rows.stop, top + _TILE)
                begin, end = max(columns.start, left), min(columns.stop, left + _TILE)
                part[first - rows.start : last - rows.start,
                     begin - columns.start : end - columns.start] = tile[
                         first - top : last - top, begin - left : end - left]  # fmt: skip
        return part

    def overview(self, longest: int, *, plane: int | None = None) -> NDArray[Any]:
        """Every n-th pixel of every n-th row of a plane, at most ``longest`` of each."""
        step = -(-max(self.shape) // longest)
        height, width = self.shape
        group = 64 * step  # so that little of a mapped file is held
        parts = [
            self._index((slice(top, min(top + group, height), step), slice(0, width, step)), plane)
            for top in range(0, height, group)
        ]
        return np.concatenate(parts)

    def fingerprint(self) -> str:
        """A hash of the shape, the type and 25 small places of the image, or of five planes."""
        stack = f" {self.planes}" if self.planes > 1 else ""
        digest = hashlib.sha256(f"{self.shape} {self.channels} {self.dtype}{stack}".encode())
        corners = [np.linspace(0, max(0, n - 32), 5).astype(int).tolist() for n in self.shape]
        planes = np.unique(np.linspace(0, self.planes - 1, 5).astype(int)).tolist()
        for plane, top, left in itertools.product(planes, *corners):
            rows = slice(top, min(top + 32, self.shape[0]))
            columns = slice(left, min(left + 32, self.shape[1]))
            part = self.read((rows, columns), plane=plane)
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()[:16]

    def close(self) -> None:
        """Forget what was read, and close the file."""
        self._tiles.clear()
        if self._close is not None:
            self._close()

    def __enter__(self) -> ImageSource:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def _colour(self) -> tuple[int, ...]:
        return () if self.channels is None else (self.channels,)

    def _tile(self, plane: int | None, number: int) -> NDArray[Any]:
        key = (plane, number)
        if key not in self._tiles:
            tile = self._index(self._cut[number].core, plane)
            held = tile.nbytes + sum(other.nbytes for other in self._tiles.values())
            while self._tiles and held > _TILE_BYTES:
                held -= self._tiles.popitem(last=False)[1].nbytes
            self._tiles[key] = tile
        self._tiles.move_to_end(key)
        return self._tiles[key]

    def _index(self, region: Region, plane: int | None) -> NDArray[Any]:
        if plane is None and self.planes > 1:
            raise InvalidConfigError(
                f"'{self.name}' is a stack of {self.planes} planes. Choose one plane, or save it "
                "as an image of its own."
            )
        plane = plane or 0
        if not 0 <= plane < self.planes:
            raise InvalidConfigError(
                f"'{self.name}' has no plane {plane}; it has {self.planes}, counted from 0."
            )
        places: dict[str, slice | int] = {"y": region[0], "x": region[1]}
        stack = np.unravel_index(plane, tuple(self._stack.values()))
        places |= zip(self._stack, map(int, stack), strict=True)
        if not self._chosen:
            image = self._part(places)
            return image.reshape(*image.shape[:2], *self._colour)
        parts = []
        for channel in self._chosen:  # where a file holds them apart, the others are not read
            numbers = np.unravel_index(channel, tuple(self._channel_axes.values()))
            apart = dict(zip(self._channel_axes, map(int, numbers), strict=True))
            parts.append(self._part({**places, **apart}))
        return parts[0] if len(parts) == 1 else np.stack(parts, axis=-1)

    def _part(self, places: Mapping[str, slice | int]) -> NDArray[Any]:
        """What lies at some places of the axes: rows, columns, and channels that have no place."""
        index = tuple(places.get(axis, slice(None)) for axis in self._axes)
        with read_faults(self.name):
            part = np.array(self._open_array()[index])
        kept = [
            axis for axis, place in zip(self._axes, index, strict=True) if isinstance(place, slice)
        ]
        order = [kept.index(axis) for axis in "yx"]
        order += [k for k, axis in enumerate(kept) if axis in CHANNEL_AXES]
        return part.transpose(order)


class Once:
    """Calls a function when its result is first needed."""

    def __init__(self, load: Callable[[], NDArray[Any]]) -> None:
        self._load = load
        self._loaded: NDArray[Any] | None = None

    def __call__(self) -> NDArray[Any]:
        """The result, which is held."""
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    def forget(self) -> None:
        """Hold the result no longer."""
        self._loaded = None


def check_level(name: str, level: int, levels: int) -> None:
    """Refuse a resolution level that there is not.

    Raises
    ------
    InvalidConfigError
    """
    if not 0 <= level < levels:
        raise InvalidConfigError(
            f"'{name}' has no resolution level {level}; it has the levels 0 to {levels - 1}."
            if levels > 1
            else f"'{name}' has one resolution only, level 0; there is no level {level}."
        )
