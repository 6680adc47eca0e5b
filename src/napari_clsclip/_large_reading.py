"""Parts of a plane that is too large to hold: one after the other, thinned, or reduced.

Numpy only: nothing here imports Qt. Everything is for worker threads, because a lazy image may
take long to read.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import product
from queue import Queue
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clsclip.blocks import Block, Region, blocks
from napari_clsclip._layers import Plane
from napari_clsclip._segment_job import read_plane

_TILE_SIDE: Final = 2048
"""Rows and columns that are read together where less of them is kept."""

_PLACES: Final = 5
_PLACE_SIDE: Final = 32

Advance = Callable[[int, int], None]
"""Told how many of how many tiles are read; may raise to end the reading."""


def part_of(plane: Plane, region: Region, step: int = 1) -> Plane:
    """Rows and columns of a plane as on screen, or every step-th of them."""
    parts = list(plane.index.index)
    for axis, part in zip(plane.index.displayed, region, strict=True):
        parts[axis] = slice(part.start, part.stop, step)
    return replace(plane, index=replace(plane.index, index=tuple(parts)))


def fingerprint(plane: Plane) -> str:
    """A hash of 25 small places of a plane.

    Raises
    ------
    InvalidImageError
        If they cannot be read.
    """
    digest = hashlib.sha256()
    places = [
        np.linspace(0, max(0, length - _PLACE_SIDE), _PLACES).astype(int).tolist()
        for length in plane.index.size
    ]
    for corner in product(*places):
        region = tuple(
            slice(start, min(start + _PLACE_SIDE, length))
            for start, length in zip(corner, plane.index.size, strict=True)
        )
        pixels = read_plane(part_of(plane, (region[0], region[1])))
        digest.update(f"{pixels.shape} {pixels.dtype}".encode())
        digest.update(np.ascontiguousarray(pixels).tobytes())
    return digest.hexdigest()[:16]


def thinned(plane: Plane, step: int, advance: Advance) -> NDArray[Any]:
    """Every step-th pixel of every step-th row of a plane.

    Raises
    ------
    InvalidImageError
    """
    return _by_tiles(plane, step, lambda region: read_plane(part_of(plane, region, step)), advance)


def reduced(plane: Plane, factor: int, advance: Advance) -> NDArray[Any]:
    """A plane with ``factor`` times fewer rows and columns, each pixel the mean of many.

    Returns
    -------
    ndarray, shape (ceil(H / factor), ceil(W / factor)) or with channels
        Integers are rounded.

    Raises
    ------
    InvalidImageError
    """

    def read(region: Region) -> NDArray[Any]:
        pixels = read_plane(part_of(plane, region))
        missing = [(0, -length % factor) for length in pixels.shape[:2]]
        padded = np.pad(pixels, [*missing, *((0, 0),) * (pixels.ndim - 2)], mode="edge")
        rows, columns = (length // factor for length in padded.shape[:2])
        cells = padded.reshape(rows, factor, columns, factor, *padded.shape[2:])
        mean = cells.mean(axis=(1, 3), dtype=np.float64)
        kept: NDArray[Any] = np.rint(mean) if pixels.dtype.kind in "iu" else mean
        return kept.astype(pixels.dtype)

    return _by_tiles(plane, factor, read, advance)


def _by_tiles(
    plane: Plane, step: int, read: Callable[[Region], NDArray[Any]], advance: Advance
) -> NDArray[Any]:
    """Put together what is kept of each tile: a pixel for every ``step`` rows and columns."""
    height, width = (-(-length // step) for length in plane.index.size)
    tiles = blocks(plane.index.size, max(1, _TILE_SIDE // step) * step)
    whole: NDArray[Any] | None = None
    for number, tile in enumerate(tiles):
        advance(number, len(tiles))
        pixels = read(tile.core)
        if whole is None:
            whole = np.empty((height, width, *pixels.shape[2:]), pixels.dtype)
        top, left = (part.start // step for part in tile.core)
        whole[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    assert whole is not None  # a plane has pixels  # noqa: S101
    return whole


class BlockReader:
    """Reads blocks of a plane in a daemon thread, one ahead of whoever takes them.

    Parameters
    ----------
    plane : Plane
    wanted : iterable of Block
        In their order.
    """

    def __init__(self, plane: Plane, wanted: Iterable[Block]) -> None:
        self._plane = plane
        self._wanted = wanted
        self._room = threading.Semaphore(1)
        self._stopped = False
        self._read: Queue[tuple[Block, NDArray[Any] | Exception] | None] = Queue()
        threading.Thread(target=self._work, name="clsclip-read-blocks", daemon=True).start()

    def __iter__(self) -> Iterator[tuple[Block, NDArray[Any]]]:
        """Blocks and their pixels with the halo; raises what reading one of them raised."""
        while (item := self._read.get()) is not None and not self._stopped:
            self._room.release()
            block, pixels = item
            if isinstance(pixels, Exception):
                raise pixels
            yield block, pixels

    def stop(self) -> None:
        """Read no further block; whoever waits for one goes on. For any thread."""
        self._stopped = True
        self._room.release()
        self._read.put(None)

    def _work(self) -> None:
        for block in self._wanted:
            self._room.acquire()
            if self._stopped:
                return
            try:
                self._read.put((block, read_plane(part_of(self._plane, block.read))))
            except Exception as error:
                self._read.put((block, error))
                return
        self._read.put(None)
