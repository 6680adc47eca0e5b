"""Blocks with a halo: the geometry of working on an image that is too large to hold.

Every pixel belongs to the core of exactly one block. A block reads its core and a margin around
it, the halo, so that what is computed for the core knows its surroundings. Pure arithmetic: no
array is touched, and nothing here imports torch. Ours; the paper leaves large images open.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

from clsclip.errors import InvalidConfigError

Region = tuple[slice, slice]
"""Rows and columns of a part of a plane; both have a start and a stop, and no step."""


@dataclass(frozen=True)
class Block:
    """One block of an image.

    Attributes
    ----------
    number : int
        Row by row from 0; depends on nothing but the image's shape and the size of the cores.
    core : Region
        The pixels that belong to this block, in the image.
    read : Region
        The core and its halo as far as the image goes, in the image.
    inner : Region
        The core within what was read: ``image[block.read][block.inner]`` is
        ``image[block.core]``.
    """

    number: int
    core: Region
    read: Region
    inner: Region

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the core."""
        rows, columns = self.core
        return rows.stop - rows.start, columns.stop - columns.start


class Blocks(Sequence[Block]):
    """The blocks of an image by their number; none is held in memory. See :func:`blocks`."""

    def __init__(self, shape: tuple[int, int], core: tuple[int, int], halo: int) -> None:
        if min(shape) < 1:
            raise InvalidConfigError(f"An image of shape {shape} has no pixels to cut into blocks.")
        if min(core) < 1:
            raise InvalidConfigError(f"The core of a block is {core}; it must be at least 1 pixel.")
        if halo < 0:
            raise InvalidConfigError(f"The halo is {halo}; it must be at least 0 pixels.")
        self.shape, self.core, self.halo = shape, core, halo

    @property
    def grid(self) -> tuple[int, int]:
        """Number of blocks down and across."""
        (height, width), (rows, columns) = self.shape, self.core
        return -(-height // rows), -(-width // columns)

    def __len__(self) -> int:
        down, across = self.grid
        return down * across

    def __iter__(self) -> Iterator[Block]:
        return map(self._block, range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Block: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Block]: ...

    def __getitem__(self, index: int | slice) -> Block | Sequence[Block]:
        numbers = range(len(self))[index]
        if isinstance(numbers, range):
            return tuple(map(self._block, numbers))
        return self._block(numbers)

    def _block(self, number: int) -> Block:
        row, column = divmod(number, self.grid[1])
        places = [
            _along(place, length, core, self.halo)
            for place, length, core in zip((row, column), self.shape, self.core, strict=True)
        ]
        (core_rows, read_rows, inner_rows), (core_columns, read_columns, inner_columns) = places
        return Block(
            number, (core_rows, core_columns), (read_rows, read_columns),
            (inner_rows, inner_columns),
        )  # fmt: skip


def blocks(shape: tuple[int, int], core: int | tuple[int, int], halo: int = 0) -> Blocks:
    """Cut an image into blocks.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the image, at least 1 each.
    core : int or tuple of int
        Pixels of a core down and across, at least 1; the last ones of an axis may be smaller.
        Cores start at multiples of it, so that they can be the chunks of a zarr.
    halo : int, at least 0
        Pixels that are read on each side of a core, where the image has them.

    Returns
    -------
    Blocks
        A sequence of :class:`Block`, row by row.

    Raises
    ------
    InvalidConfigError
        If a number is out of range.

    Examples
    --------
    >>> [(block.core[1], block.read[1]) for block in blocks((10, 25), core=20, halo=3)]
    [(slice(0, 20, None), slice(0, 23, None)), (slice(20, 25, None), slice(17, 25, None))]
    """
    return Blocks(shape, (core, core) if isinstance(core, int) else core, halo)


def window_halo(window: int, zoom: float) -> int:
    """Pixels around a core on which the probabilities in it depend, at most.

    Each of the network's windows that lies over a pixel of the core counts, and each pixel that
    the resizing to model pixels and back mixes in. Ours.

    Parameters
    ----------
    window : int
        Side of a window in model pixels.
    zoom : float
        Model pixels per image pixel.
    """
    rounding = 4  # of the zoomed image's size, and of where its windows begin
    return math.ceil((window + max(1.0, zoom) + rounding) / zoom + max(1.0, 1 / zoom)) + 2


def _along(place: int, length: int, core: int, halo: int) -> tuple[slice, slice, slice]:
    """Core, read and inner of the block at a place of one axis."""
    start, stop = place * core, min((place + 1) * core, length)
    first, last = max(0, start - halo), min(length, stop + halo)
    return slice(start, stop), slice(first, last), slice(start - first, stop - first)
