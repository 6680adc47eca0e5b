"""Corrections that nobody has saved yet, as files: tiles of labels, and what the layer was.

One folder per label layer, in one folder per viewer of a running napari. A lock file in the latter
is held as long as that napari lives; the operating system lets go of it however the process ends.
Each file is written under a temporary name and renamed. Nothing here imports Qt or napari.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import uuid
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np
import platformdirs
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from pydantic import ValidationError

from clsclip.errors import FileError
from napari_clsclip._kept import Kept, Position

FOLDER_VARIABLE: Final = "NAPARI_CLSCLIP_UNSAVED"
"""Environment variable that names another folder for unsaved corrections."""

TILE_PIXELS: Final = 512
"""Rows and columns of a tile, which is what is written at least."""

_ABOUT: Final = "about.json"
_FEATURES: Final = "features.npz"
_LOCK: Final = "lock"
_TEMPORARY: Final = ".writing"


def unsaved_folder() -> Path:
    """Where unsaved corrections are kept: the user's folder for state, unless told otherwise."""
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named) if named else platformdirs.user_state_path("napari-clsclip") / "unsaved"


@dataclass(frozen=True, order=True)
class Tile:
    """A square part of a plane along the last two axes of a label array."""

    position: Position
    row: int
    column: int

    @property
    def name(self) -> str:
        """Name of its file."""
        return "-".join(map(str, (*self.position, self.row, self.column))) + ".npz"

    @property
    def part(self) -> tuple[int | slice, ...]:
        """Index of its pixels in the array."""
        square = (slice(k * TILE_PIXELS, (k + 1) * TILE_PIXELS) for k in (self.row, self.column))
        return (*self.position, *square)


def tiles_in(box: Sequence[slice]) -> Iterator[Tile]:
    """Go through the tiles that have pixels in a box, given by start and stop along each axis."""
    *outer, rows, columns = box
    grid = (
        range(part.start // TILE_PIXELS, -(-part.stop // TILE_PIXELS)) for part in (rows, columns)
    )
    squares = list(product(*grid))
    for position in product(*(range(part.start, part.stop) for part in outer)):
        for row, column in squares:
            yield Tile(position, row, column)


class KeptFolder:
    """The files of one label layer. Not for several threads at once.

    Parameters
    ----------
    path : Path
        It is made when the first file is written.
    """

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        self._digests: dict[Tile, bytes] = {}
        self._about: Kept | None = None
        self._features: dict[str, bytes] | None = None

    def write_tile(self, tile: Tile, pixels: NDArray[Any]) -> bool:
        """Write a tile, unless it is on disk as it is.

        Parameters
        ----------
        tile : Tile
        pixels : ndarray of int, shape (at most TILE_PIXELS, at most TILE_PIXELS)

        Returns
        -------
        bool
            Whether it was written. One that is and was all background needs no file.

        Raises
        ------
        OSError
        """
        pixels = np.ascontiguousarray(pixels)
        digest = hashlib.blake2b(pixels.data, digest_size=16).digest()
        known = self._digests.get(tile)
        if digest == known:
            return False
        needed = known is not None or bool(pixels.any())
        if needed:
            self._write(tile.name, _packed({"labels": pixels}))
        self._digests[tile] = digest
        return needed

    def write_about(self, about: Kept, features: Mapping[str, NDArray[Any]]) -> None:
        """Write what is not pixels, as far as it has changed. The entry counts from now on.

        Raises
        ------
        OSError
        """
        digests = {
            name: hashlib.blake2b(column.tobytes(), digest_size=16).digest()
            for name, column in features.items()
        }
        if digests != self._features:
            self._write(_FEATURES, _packed(features))
            self._features = digests
        if about != self._about:
            self._write(_ABOUT, about.model_dump_json(indent=1).encode())
            self._about = about

    def read_about(self) -> Kept | None:
        """Read what the layer was; None if there is none, because it was never complete.

        Raises
        ------
        FileError
            If it cannot be understood.
        """
        try:
            return Kept.model_validate_json((self.path / _ABOUT).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise FileError(
                f"Unsaved corrections in {self.path} cannot be read ({error}). They were left "
                "where they are; another version of this program may read them."
            ) from error

    def read(self, about: Kept) -> tuple[NDArray[Any], dict[str, NDArray[Any]], int]:
        """Read the pixels and the table.

        Parameters
        ----------
        about : Kept
            As :meth:`read_about` gave it.

        Returns
        -------
        labels : ndarray of ``about.dtype``, shape ``about.shape``
        features : dict of str to ndarray, shape (n,)
        lost : int
            Tiles that cannot be read; they are background.

        Raises
        ------
        FileError
            If the array does not fit into memory.
        """
        try:
            labels = np.zeros(about.shape, np.dtype(about.dtype))
        except (MemoryError, TypeError) as error:
            raise FileError(f"Labels of shape {about.shape} cannot be made: {error}.") from error
        lost = 0
        self._about = about
        for path in self.path.glob("*-*.npz"):
            *position, row, column = map(int, path.stem.split("-"))
            tile = Tile(tuple(position), row, column)
            try:
                pixels = _unpacked(path)["labels"]
                labels[tile.part] = pixels
            except _UNREADABLE:
                lost += 1
            else:
                pixels = np.ascontiguousarray(pixels)
                self._digests[tile] = hashlib.blake2b(pixels.data, digest_size=16).digest()
        try:
            features = _unpacked(self.path / _FEATURES)
        except _UNREADABLE:
            features = {}
        return labels, features, lost

    def remove(self) -> None:
        """Delete all files; what the layer was first, so that no half of an entry is offered.

        Raises
        ------
        OSError
        """
        self._digests.clear()
        self._about = self._features = None
        (self.path / _ABOUT).unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            shutil.rmtree(self.path)

    def _write(self, name: str, content: bytes) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        temporary = self.path / f"{name}{_TEMPORARY}"
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path / name)


@dataclass(frozen=True, eq=False)
class Offer:
    """Corrections of one layer that an earlier napari kept, and that can be restored."""

    folder: KeptFolder
    kept: Kept


class KeptSession:
    """The folder of one viewer: its lock, and one folder per layer.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        # Threads other than the one that locks may let go of it.
        self._lock = FileLock(path / _LOCK, thread_local=False)

    @classmethod
    def new(cls, root: Path) -> KeptSession:
        """Give a session a name of its own; makes no file yet."""
        return cls(root / uuid.uuid4().hex)

    def lock(self) -> bool:
        """Try to become the one that the session belongs to.

        Returns
        -------
        bool
            False if it belongs to a napari that lives.

        Raises
        ------
        OSError
            If the folder cannot be made or written to.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            return False
        return True

    @property
    def locked(self) -> bool:
        """Whether it belongs to this object."""
        return bool(self._lock.is_locked)

    def entries(self) -> list[KeptFolder]:
        """The layers of which something was written."""
        return [KeptFolder(path) for path in sorted(self.path.iterdir()) if path.is_dir()]

    def folder(self) -> KeptFolder:
        """A folder for one more layer; makes no file yet."""
        return KeptFolder(self.path / uuid.uuid4().hex)

    def release(self) -> None:
        """Let go of the session, so that the next napari offers what it holds; if nothing, delete.

        Raises
        ------
        OSError
        """
        if not self.locked:
            return
        empty = not any(path.is_dir() for path in self.path.iterdir())
        self._lock.release()
        if empty:
            (self.path / _LOCK).unlink(missing_ok=True)
            with suppress(OSError):  # another napari has just looked into it
                self.path.rmdir()


def dead_sessions(root: Path) -> Iterator[KeptSession]:
    """Lock and go through the sessions whose napari has ended.

    Raises
    ------
    OSError
        If the folder cannot be read.
    """
    if not root.is_dir():
        return
    for path in sorted(root.iterdir()):
        if path.is_dir():
            session = KeptSession(path)
            if session.lock():
                yield session


_UNREADABLE: Final = (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile,
                      zlib.error)  # fmt: skip


def _packed(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return buffer.getvalue()


def _unpacked(path: Path) -> dict[str, NDArray[Any]]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
