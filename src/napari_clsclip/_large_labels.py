"""Labels of a plane that is too large to hold: a zarr on disk, and which blocks of it are done.

A folder ``<image>-<words>-<hash>.zarr`` is a group with the labels at full resolution, ``0``, and
with half, a quarter, ... of their rows and columns, ``1``, ``2``, ...; ``done`` has a 1 for every
finished block. The hash is that of all the labels depend on, so other settings are another file.
No Qt.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
import zarr
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from clsclip.blocks import Block, blocks
from clsclip.errors import FileError
from napari_clsclip._layers import PlaneIndex
from napari_clsclip._placement import Placement

if TYPE_CHECKING:
    from clsclip.looks import Passes

SETTINGS_KEY: Final = "clsclip"
"""Attribute of the group that says what the labels are."""

CHUNK: Final = 512
"""Rows and columns of a chunk: napari reads as many as the canvas shows."""

OVERVIEW_SIDE: Final = 512
"""Longest side of the coarsest level, which is held in memory."""

BYTES_PER_PIXEL: Final = 0.125
"""What a pixel of labels may take on disk, compressed, of all levels together."""

SPARE_BYTES: Final = 32 * 2**20
"""What must be free beside that."""

LOCK_SECONDS: Final = 5.0
"""How long another run into the same file may take to end."""

_DONE: Final = "done"
_NAME_LENGTH: Final = 40


@dataclass(frozen=True)
class BlockPlan:
    """How a plane is cut and looked at; decided once and kept with the labels.

    Attributes
    ----------
    core : int
        Rows and columns of a block, a power of 2.
    passes : tuple of tuple of float
        See :class:`clsclip.looks.Looks`.
    """

    core: int
    passes: Passes


class LargeFile:
    """The place of the labels of a plane, locked against other runs while it is open.

    Use it in a ``with`` statement.

    Parameters
    ----------
    folder : Path
        Made if it does not exist.
    name : str
        Begins the file's name.
    settings : mapping of str to JSON values
        All that the labels depend on.
    pixels : int
        Pixels of the plane.

    Attributes
    ----------
    path : Path

    Raises
    ------
    FileError
        On entering, if the folder cannot be written, another run has the file, or too little
        space is free for a new one.
    """

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any], pixels: int) -> None:
        self._settings: dict[str, Any] = json.loads(json.dumps(settings))  # as it is read: lists
        digest = hashlib.sha256(json.dumps(self._settings, sort_keys=True).encode()).hexdigest()
        stem = re.sub(r"[^\w-]+", "_", name).strip("_")[:_NAME_LENGTH]
        self.path: Final = folder / f"{stem}-{digest[:12]}.zarr"
        self._pixels = pixels
        self._lock = FileLock(folder / f".{self.path.name}.lock")

    def __enter__(self) -> Self:
        folder = self.path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=LOCK_SECONDS)
        except Timeout:
            raise FileError(
                f"'{self.path}' is being written by another napari. Let it finish, or cancel it "
                "there."
            ) from None
        except (OSError, NotImplementedError) as error:
            raise FileError(
                f"The folder for the labels of large planes, '{folder}', cannot be written "
                f"({error}). Name another one in the environment variable NAPARI_CLSCLIP_RESULTS."
            ) from error
        try:
            self._check_space()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()

    def plan(self) -> BlockPlan | None:
        """What was decided when the labels were begun; None if they were not.

        Raises
        ------
        FileError
            If the file is damaged.
        """
        if not self.path.exists():
            return None
        with self._faults():
            kept: Any = zarr.open_group(self.path, mode="r").attrs.asdict()[SETTINGS_KEY]
            if kept["settings"] != self._settings:
                raise ValueError("it has other settings than its name says")
            return BlockPlan(kept["core"], tuple(tuple(zooms) for zooms in kept["passes"]))

    def begin(self, plan: BlockPlan, index: PlaneIndex, placement: Placement) -> None:
        """Make an empty file, at once or not at all.

        Parameters
        ----------
        plan : BlockPlan
        index : PlaneIndex
            The plane in its image.
        placement : Placement
            Where the pixels of the image lie.

        Raises
        ------
        FileError
        """
        draft = self.path.with_name(f".{self.path.name}.new")
        shapes = level_shapes(index, plan.core)
        attributes = {
            SETTINGS_KEY: {
                "settings": self._settings, "core": plan.core, "passes": plan.passes,
            },
            "ome": _ome(shapes, index, placement, self.path.stem),
        }  # fmt: skip
        with self._faults():
            shutil.rmtree(draft, ignore_errors=True)
            group = zarr.create_group(draft, attributes=json.loads(json.dumps(attributes)))
            for number, shape in enumerate(shapes):
                chunks = tuple(
                    min(CHUNK, plan.core, length) if axis in index.displayed else 1
                    for axis, length in enumerate(shape)
                )
                group.create_array(
                    str(number), shape=shape, chunks=chunks, dtype="uint8", fill_value=0
                )
            count = len(blocks(index.size, plan.core))
            group.create_array(_DONE, shape=(count,), chunks=(1,), dtype="uint8", fill_value=0)
            draft.rename(self.path)

    def labels(self, plan: BlockPlan, index: PlaneIndex) -> LargeLabels:
        """Open what :meth:`begin` made.

        Raises
        ------
        FileError
            If the file is damaged.
        """
        with self._faults():
            return LargeLabels(self.path, plan, index)

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _unwritable(self.path, error) from error
        except (ValueError, KeyError, TypeError) as error:
            raise FileError(
                f"'{self.path}' is damaged ({error}). Remove this folder to begin anew."
            ) from error

    def _check_space(self) -> None:
        folder = self.path.parent
        free = shutil.disk_usage(folder).free
        needed = 0 if self.path.exists() else int(self._pixels * BYTES_PER_PIXEL) + SPARE_BYTES
        if free < needed:
            raise FileError(
                f"The labels of this plane may take {_mebibytes(needed)} in '{folder}', and "
                f"{_mebibytes(free)} are free there. Free some space, or name another folder in "
                "the environment variable NAPARI_CLSCLIP_RESULTS."
            )


class LargeLabels:
    """Class ids of a plane on disk. One thread writes, any may read.

    Parameters
    ----------
    path : Path
        Made by :meth:`LargeFile.begin`.
    plan : BlockPlan
    index : PlaneIndex
        The plane in its image.

    Attributes
    ----------
    path, plan
        The parameters.
    levels : list of arrays of uint8
        From full resolution to the coarsest one, each of as many axes as the image. The last one
        is in memory and changes with what is written; the others are on disk.
    """

    def __init__(self, path: Path, plan: BlockPlan, index: PlaneIndex) -> None:
        self.path: Final = path
        self.plan: Final = plan
        self._index = index
        group: Any = zarr.open_group(path, mode="r+")
        shapes = level_shapes(index, plan.core)
        self._stored = [group[str(number)] for number in range(len(shapes))]
        self._flags = group[_DONE]
        if [array.shape for array in self._stored] != shapes:
            raise ValueError("it is of another image")
        self._done = {int(number) for number in np.flatnonzero(self._flags[:])}
        # napari reads the coarsest level of a plane once and keeps what it got: it must get
        # an array that changes.
        self._overview = np.zeros(shapes[-1], np.uint8)
        plane = self._parts((slice(None), slice(None)))
        self._overview[plane] = self._stored[-1][plane]
        self.levels: Final[list[Any]] = [*self._stored[:-1], self._overview]

    @property
    def done(self) -> frozenset[int]:
        """Numbers of the blocks that are finished."""
        return frozenset(self._done)

    def write(self, block: Block, ids: NDArray[np.uint8]) -> None:
        """Put down a block, and then that it is done.

        Parameters
        ----------
        block : Block
            Of the plane as on screen, cut into cores of ``plan.core``.
        ids : ndarray of uint8, shape of the core

        Raises
        ------
        FileError
            If the disk is full, or the file cannot be written for another reason.
        """
        rows, columns = block.core
        turned = ids.T if self._index.transposed else ids
        try:
            for number, array in enumerate([*self._stored, self._overview]):
                level = min(number, len(self._stored) - 1)
                step = 2**level
                part = self._parts((_thinned(rows, step), _thinned(columns, step)))
                array[part] = turned[::step, ::step]
            self._flags[block.number] = 1
        except OSError as error:
            raise _unwritable(self.path, error) from error
        self._done.add(block.number)

    def _parts(self, region: tuple[slice, slice]) -> tuple[int | slice, ...]:
        """Rows and columns of the plane as an index into a level."""
        parts = list(self._index.index)
        for axis, part in zip(self._index.displayed, region, strict=True):
            parts[axis] = part
        return tuple(parts)


def level_shapes(index: PlaneIndex, core: int) -> list[tuple[int, ...]]:
    """Shape of each level: the axes on screen are halved until they fit ``OVERVIEW_SIDE``.

    There are two levels at least, and none for which a block of ``core`` would be less than a
    pixel.
    """
    shapes = [index.shape]
    while 2 ** len(shapes) <= core:
        longest = max(shapes[-1][axis] for axis in index.displayed)
        if len(shapes) > 1 and longest <= OVERVIEW_SIDE:
            break
        step = 2 ** len(shapes)
        shapes.append(
            tuple(
                -(-length // step) if axis in index.displayed else length
                for axis, length in enumerate(index.shape)
            )
        )
    return shapes


def _thinned(part: slice, step: int) -> slice:
    """Where every step-th pixel of a part goes; it begins at a multiple of ``step``."""
    return slice(part.start // step, -(-part.stop // step))


def _ome(
    shapes: list[tuple[int, ...]], index: PlaneIndex, placement: Placement, name: str
) -> dict[str, Any]:
    """Metadata of OME-Zarr 0.5, so that other programs find the levels."""
    names = {index.displayed[0]: "y", index.displayed[1]: "x"}
    axes = [
        {"name": names[axis], "type": "space"} if axis in names else {"name": f"axis{axis}"}
        for axis in range(len(index.shape))
    ]
    datasets = []
    for number, shape in enumerate(shapes):
        scale = [
            float(pixel * length / own)
            for pixel, length, own in zip(placement.scale, shapes[0], shape, strict=True)
        ]
        transformations = [{"type": "scale", "scale": scale}]
        datasets.append({"path": str(number), "coordinateTransformations": transformations})
    return {
        "version": "0.5",
        "multiscales": [{"name": name, "axes": axes, "datasets": datasets}],
        "image-label": {},
    }


def _unwritable(path: Path, error: OSError) -> FileError:
    return FileError(
        f"'{path}' cannot be written ({error}). What is finished in it is kept: free some space "
        "on that disk, or see that the folder may be written, and press Segment again."
    )


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"
