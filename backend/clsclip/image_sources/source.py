"""One image on disk, of which parts are read."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tifffile import TiffFileError

from clsclip.blocks import Region, blocks
from clsclip.errors import ClsClipError, FileError, InvalidConfigError, InvalidImageError

_TILE: Final = 1024
"""Rows and columns that are read and remembered together."""

_TILE_BYTES: Final = 128 * 2**20
"""Bytes of tiles that are remembered."""

_CHANNEL_AXES: Final = "cs"


class ImageSource:
    """One image plane on disk, of which parts can be read.

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
        One letter per axis: ``y`` and ``x``, ``c`` or ``s`` for channels, others for more.
    close : callable, optional
        Called by :meth:`close`.

    Attributes
    ----------
    shape : tuple of int
        Rows and columns.
    channels : int or None
        3 or 4 for colour images; None for grey ones.

    Raises
    ------
    InvalidImageError
        If rows or columns are missing, an axis beside rows, columns and channels has more than
        one place, or the number of channels is not 1, 3 or 4.
    """

    def __init__(
        self,
        name: str,
        open_array: Callable[[], Any],
        shape: Sequence[int],
        dtype: np.dtype[Any],
        axes: str,
        close: Callable[[], None] | None = None,
    ) -> None:
        lengths = dict(zip(axes, shape, strict=True))
        more = {a: n for a, n in lengths.items() if a not in "yx" + _CHANNEL_AXES and n > 1}
        plane = {"y", "x"} <= set(lengths)
        if more or not plane:
            listed = ", ".join(f"{axis} ({n})" for axis, n in (more if plane else lengths).items())
            raise InvalidImageError(
                f"'{name}' of shape {tuple(shape)} has the axes {listed}"
                f"{' beside rows and columns' if plane else ''}; expected (height, width), or "
                "these and channels. Choose one plane first, and save it as an image of its own."
            )
        channels = int(np.prod([lengths.get(axis, 1) for axis in _CHANNEL_AXES]))
        if channels not in (1, 3, 4):
            raise InvalidImageError(
                f"'{name}' has {channels} channels; expected 1, 3 or 4. Choose one or three of "
                "them first, and save them as an image of their own."
            )
        self.name, self.dtype = name, dtype
        self.shape = (lengths["y"], lengths["x"])
        self.channels = channels if channels > 1 else None
        self._open_array, self._axes, self._close = open_array, axes, close
        self._tiles: OrderedDict[int, NDArray[Any]] = OrderedDict()
        self._cut = blocks(self.shape, _TILE) if min(self.shape) > 0 else ()

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return self.shape[0] * self.shape[1]

    def read(self, region: Region | None = None) -> NDArray[Any]:
        """A part of the image, or all of it, as it is stored.

        Parameters
        ----------
        region : Region, optional
            Rows and columns within the image.

        Returns
        -------
        ndarray, shape (h, w) or (h, w, channels)

        Raises
        ------
        FileError
            If the file is damaged or gone.
        """
        return self._index(region or (slice(0, self.shape[0]), slice(0, self.shape[1])))

    def read_near(self, region: Region) -> NDArray[Any]:
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
                tile = self._tile(down * across + right)
                top, left = down * _TILE, right * _TILE
                first, last = max(rows.start, top), min(rows.stop, top + _TILE)
                begin, end = max(columns.start, left), min(columns.stop, left + _TILE)
                part[first - rows.start : last - rows.start,
                     begin - columns.start : end - columns.start] = tile[
                         first - top : last - top, begin - left : end - left]  # fmt: skip
        return part

    def overview(self, longest: int) -> NDArray[Any]:
        """Every n-th pixel of every n-th row, at most ``longest`` of each."""
        step = -(-max(self.shape) // longest)
        height, width = self.shape
        group = 64 * step  # so that little of a mapped file is held
        parts = [
            self._index((slice(top, min(top + group, height), step), slice(0, width, step)))
            for top in range(0, height, group)
        ]
        return np.concatenate(parts)

    def fingerprint(self) -> str:
        """A hash of the shape, the type and 25 small places of the image."""
        digest = hashlib.sha256(f"{self.shape} {self.channels} {self.dtype}".encode())
        corners = [np.linspace(0, max(0, n - 32), 5).astype(int).tolist() for n in self.shape]
        for top in corners[0]:
            for left in corners[1]:
                rows = slice(top, min(top + 32, self.shape[0]))
                columns = slice(left, min(left + 32, self.shape[1]))
                digest.update(np.ascontiguousarray(self.read((rows, columns))).tobytes())
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

    def _tile(self, number: int) -> NDArray[Any]:
        if number not in self._tiles:
            tile = self._index(self._cut[number].core)
            held = tile.nbytes + sum(other.nbytes for other in self._tiles.values())
            while self._tiles and held > _TILE_BYTES:
                held -= self._tiles.popitem(last=False)[1].nbytes
            self._tiles[number] = tile
        self._tiles.move_to_end(number)
        return self._tiles[number]

    def _index(self, region: Region) -> NDArray[Any]:
        places: dict[str, slice] = {"y": region[0], "x": region[1]}
        index = tuple(
            places.get(axis, slice(None) if axis in _CHANNEL_AXES else 0) for axis in self._axes
        )
        with read_faults(self.name):
            part = np.array(self._open_array()[index])
        kept = [axis for axis in self._axes if axis in "yx" + _CHANNEL_AXES]
        order = [kept.index(axis) for axis in "yx"]
        order += [k for k, axis in enumerate(kept) if axis in _CHANNEL_AXES]
        plane = part.transpose(order)
        return plane.reshape(*plane.shape[:2], *self._colour)


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
            else f"'{name}' has one resolution only; there is no level {level}. Leave --level out."
        )


@contextmanager
def read_faults(name: str) -> Iterator[None]:
    """What readers of damaged files raise, as one kind of error."""
    try:
        yield
    except ClsClipError:
        raise
    except (OSError, ValueError, SyntaxError, KeyError, TypeError, IndexError, RuntimeError,
            TiffFileError, Image.DecompressionBombError) as error:  # fmt: skip
        raise FileError(
            f"'{name}' cannot be read as an image ({error}). It may be truncated or of another "
            "format than its name says."
        ) from error
