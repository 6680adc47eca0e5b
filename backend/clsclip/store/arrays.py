"""Arrays as content-addressed files: the name of a file is the SHA-256 of its bytes.

So an array is stored once however often it is added, a file is never changed once it has its
name, and damage is noticed when it is read. The files are TIFFs that any image program opens.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tifffile import COMPRESSION, PHOTOMETRIC, TiffFile, TiffFileError, imwrite

from clsclip.errors import FileError, InvalidImageError, StoreError

_DTYPE_KINDS: Final = "uif"
_COLOUR_CHANNELS: Final = (3, 4)


class ArrayFiles:
    """A folder of content-addressed arrays: ``ab/cdef….tif`` for the hash ``abcdef…``.

    Any number of processes may write to one folder at a time.

    Parameters
    ----------
    folder : Path
        Made when the first array is added.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, sha256: str) -> Path:
        """File of an array, whether it is there or not."""
        return self.folder / sha256[:2] / f"{sha256[2:]}.tif"

    def add(self, array: NDArray[Any]) -> str:
        """Store an array; it is on disk, and not only in the system's cache, on return.

        Parameters
        ----------
        array : ndarray, shape (H, W), (H, W, 3) or (H, W, 4)
            Integers or floating point of up to 64 bits; booleans are stored as uint8 0 and 1.

        Returns
        -------
        str
            The SHA-256 of its file, in hexadecimal digits.

        Raises
        ------
        InvalidImageError
            If the shape or dtype is another.
        FileError
            If it cannot be written: no space, no right.
        """
        content = _encode(array)
        sha256 = hashlib.sha256(content).hexdigest()
        target = self.path(sha256)
        try:
            if not _holds(target, content):
                target.parent.mkdir(parents=True, exist_ok=True)
                _write_durably(target, content)
        except OSError as error:
            raise FileError(
                f"The annotation store cannot write '{target}' ({error}). Nothing was added; make "
                "room or give rights, and accept the correction again."
            ) from error
        return sha256

    def read(self, sha256: str) -> NDArray[Any]:
        """Read an array, after a check that its file is what was written.

        Returns
        -------
        ndarray
            Of the shape and dtype that was added.

        Raises
        ------
        StoreError
            If the file is missing, or its bytes are not those that were stored.
        """
        file = self.path(sha256)
        try:
            content = file.read_bytes()
        except OSError as error:
            raise StoreError(
                f"The array file '{file}' of the annotation store cannot be read ({error}). "
                "Restore it from a backup; other annotations are not affected."
            ) from error
        if hashlib.sha256(content).hexdigest() != sha256:
            raise StoreError(
                f"The array file '{file}' of the annotation store was changed or damaged: its "
                "SHA-256 is not its name. Restore it from a backup; other annotations are not "
                "affected."
            )
        return _decode(content)


def sha256_of(array: NDArray[Any]) -> str:
    """What :meth:`ArrayFiles.add` would return; nothing is stored.

    Raises
    ------
    InvalidImageError
        If it could not be stored.
    """
    return hashlib.sha256(_encode(array)).hexdigest()


def _holds(target: Path, content: bytes) -> bool:
    """Whether a file has these bytes; one that was damaged meanwhile is written anew."""
    return (
        target.is_file()
        and target.stat().st_size == len(content)
        and target.read_bytes() == content
    )


def _write_durably(target: Path, content: bytes) -> None:
    descriptor, name = tempfile.mkstemp(prefix=".new-", dir=target.parent)
    draft = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        draft.chmod(0o644)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Make the new name of a file durable; on Windows that happens with the file."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _encode(array: NDArray[Any]) -> bytes:
    plane = array.astype(np.uint8) if array.dtype.kind == "b" else array
    colour = plane.ndim == 3 and plane.shape[2] in _COLOUR_CHANNELS
    if not (plane.ndim == 2 or colour) or plane.size == 0 or plane.dtype.kind not in _DTYPE_KINDS:
        raise InvalidImageError(
            f"An array of {array.dtype} with the shape {array.shape} cannot be stored; expected "
            "integers or real numbers of the shape (height, width), (height, width, 3) or "
            "(height, width, 4)."
        )
    native = np.ascontiguousarray(plane, dtype=plane.dtype.newbyteorder("<"))
    stream = io.BytesIO()
    imwrite(
        stream, native, byteorder="<", compression=COMPRESSION.ADOBE_DEFLATE, metadata=None,
        software=False, photometric=PHOTOMETRIC.RGB if colour else PHOTOMETRIC.MINISBLACK,
    )  # fmt: skip
    return stream.getvalue()


def _decode(content: bytes) -> NDArray[Any]:
    try:
        with TiffFile(io.BytesIO(content)) as tiff:
            page: NDArray[Any] = tiff.pages.first.asarray()
            return page
    except (TiffFileError, ValueError) as error:
        raise StoreError(
            f"An array of the annotation store cannot be decoded ({error}). It was written by a "
            "newer version: update napari-clsclip."
        ) from error
