"""Arrays and one text as the bytes of an ``.npz`` archive, safe to read from strangers.

The format is that of ``numpy.savez``. The reader never unpickles, never unpacks more than an
archive declares, and refuses one that declares more than it is allowed. Nothing here imports
torch.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clsclip.errors import InvalidRequestError, RequestTooLargeError

_COMPRESSIONS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def encode_npz(meta: str, **arrays: NDArray[Any]) -> bytes:
    """Bytes of an uncompressed archive.

    Parameters
    ----------
    meta : str
        Text of the member ``meta``.
    **arrays : ndarray of any dtype but objects
        The other members.

    Raises
    ------
    ValueError
        If an array holds Python objects.
    """
    members = {**arrays, "meta": np.frombuffer(meta.encode(), dtype=np.uint8)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in members.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return buffer.getvalue()


def decode_npz(
    body: bytes, names: tuple[str, ...], max_bytes: int, *, optional: tuple[str, ...] = ()
) -> tuple[dict[str, NDArray[Any]], str]:
    """Read an archive, after checking every size that it declares.

    Parameters
    ----------
    body : bytes
        The archive; its members may be stored or deflated.
    names : tuple of str
        The members that it must hold beside ``meta``.
    max_bytes : int
        Most bytes that all members may take once unpacked.
    optional : tuple of str
        Members that it may hold. Others are refused.

    Returns
    -------
    arrays : dict of str to ndarray, read-only
    meta : str

    Raises
    ------
    InvalidRequestError
        If the bytes are no such archive: truncated, foreign, with pickles or lying sizes.
    RequestTooLargeError
        If it declares more than ``max_bytes``.
    """
    expected = {f"{name}.npy" for name in (*names, "meta")}
    arrays: dict[str, NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            members = {info.filename: info for info in archive.infolist()}
            possible = {f"{name}.npy" for name in optional}
            if set(members) - possible != expected:
                found = ", ".join(repr(name[:40]) for name in sorted(members)[:8])
                raise InvalidRequestError(
                    f"The archive holds {found or 'nothing'}; expected {sorted(expected)}."
                )
            unpacked = sum(info.file_size for info in members.values())
            if unpacked > max_bytes:
                raise RequestTooLargeError(
                    f"The arrays take {unpacked:,} bytes unpacked; at most {max_bytes:,} are "
                    "accepted. Send a smaller region of the image."
                )
            for filename, info in members.items():
                arrays[filename.removesuffix(".npy")] = _read_npy(_read_member(archive, info))
        meta = arrays.pop("meta")
        if meta.dtype != np.uint8 or meta.ndim != 1:
            raise ValueError(f"'meta' is {meta.dtype} of shape {meta.shape} instead of bytes")
        return arrays, meta.tobytes().decode()
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError,
            OverflowError, NotImplementedError, RuntimeError) as error:  # fmt: skip
        raise InvalidRequestError(
            f"The message is not a readable .npz archive ({str(error)[:200]}). "
            "It may be truncated; send what numpy.savez writes, without pickled objects."
        ) from error


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Content of a member, unpacking no more than the size that it declares."""
    if info.compress_type not in _COMPRESSIONS:
        raise ValueError(f"'{info.filename}' is neither stored nor deflated")
    with archive.open(info) as member:
        # read() without a size would unpack everything before it compares with that size.
        return member.read(info.file_size)


def _read_npy(content: bytes) -> NDArray[Any]:
    """One ``.npy`` member, without copying its data and never larger than its bytes."""
    stream = io.BytesIO(content)
    shape, fortran_order, dtype = _read_npy_header(stream)
    if dtype.hasobject:
        raise ValueError("pickled objects are not accepted")
    start = stream.tell()
    if any(length < 0 for length in shape):
        raise ValueError(f"negative length in shape {shape}")
    count = math.prod(shape)
    if count * dtype.itemsize != len(content) - start:
        raise ValueError(f"{len(content) - start} bytes of data for shape {shape} of {dtype}")
    if count == 0:
        return np.empty(shape, dtype)
    flat: NDArray[Any] = np.frombuffer(content, dtype=dtype, count=count, offset=start)
    return flat.reshape(shape, order="F" if fortran_order else "C")


def _read_npy_header(stream: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"unsupported .npy version {version}")
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    try:
        return read(stream)
    except Exception as error:
        # The header is a Python literal; a foreign one makes ast, tokenize and numpy raise
        # a dozen different types.
        raise ValueError(f"unreadable .npy header ({type(error).__name__}: {error})") from error
