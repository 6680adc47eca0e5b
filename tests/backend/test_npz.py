"""Archives from elsewhere, damaged or hostile ones among them."""

from __future__ import annotations

import io
import struct
import sys
import tracemalloc
import zipfile
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clsclip.errors import ClsClipError, InvalidRequestError, RequestTooLargeError
from clsclip.wire import SegmentRequest, decode_segment_request, encode_segment_request
from npz_archives import META, archive, npy, npy_with_header, request_with

MB = 2**20


def test_what_numpy_savez_compressed_writes_is_read(rng: np.random.Generator) -> None:
    image = rng.random((5, 6, 3))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, image=image, meta=np.frombuffer(META, np.uint8))
    received, _ = decode_segment_request(buffer.getvalue(), MB)
    np.testing.assert_array_equal(received, image)


def test_zip_bomb_is_refused_by_what_it_declares() -> None:
    bomb = request_with(npy(np.zeros(64 * MB, np.uint8)), zipfile.ZIP_DEFLATED)
    assert len(bomb) < MB
    tracemalloc.start()
    with pytest.raises(RequestTooLargeError, match="67,"):
        decode_segment_request(bomb, 32 * MB)
    assert tracemalloc.get_traced_memory()[1] < 4 * MB
    tracemalloc.stop()


def test_zip_bomb_that_lies_is_not_unpacked() -> None:
    content = npy(np.zeros(64 * MB, np.uint8))
    body = bytearray(request_with(content, zipfile.ZIP_DEFLATED))
    size, lie = struct.pack("<L", len(content)), struct.pack("<L", 200)
    assert body.count(size) == 2  # local header and central directory
    body = body.replace(size, lie)
    tracemalloc.start()
    with pytest.raises(InvalidRequestError):
        decode_segment_request(bytes(body), 32 * MB)
    assert tracemalloc.get_traced_memory()[1] < 4 * MB
    tracemalloc.stop()


def test_other_compressions_are_refused() -> None:
    # Their decompressors cannot be told to stop.
    body = request_with(npy(np.zeros((2, 2))), zipfile.ZIP_BZIP2)
    with pytest.raises(InvalidRequestError, match="stored"):
        decode_segment_request(body, MB)


class Exploit:
    def __reduce__(self) -> Any:
        return (sys.exit, ("unpickled",))


def test_pickles_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="pickled"):
        decode_segment_request(request_with(npy(np.array([[Exploit()]], object))), MB)


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_archive(part: float) -> None:
    body = encode_segment_request(np.ones((30, 30)), SegmentRequest(words=("cell",)))
    with pytest.raises(InvalidRequestError, match="truncated"):
        decode_segment_request(body[: int(part * len(body))], MB)


@pytest.mark.parametrize(
    "shape", ["(2, 3)", "(1000000, 1000000)", "(-1, 4)", "(-2, -2)", "(10**9,)", "(2, 2.0)", "4",
              f"({2**63}, {2**63})", f"(0, {2**70})", "(4,) * 3", "(True, 4, 2)"],
)  # fmt: skip
def test_lying_header(shape: str) -> None:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}"
    with pytest.raises(InvalidRequestError):
        decode_segment_request(request_with(npy_with_header(header, b"abcd")), MB)


@given(header=st.text(max_size=60), data=st.binary(max_size=10))
@settings(max_examples=200)
def test_any_header_is_read_or_refused(header: str, data: bytes) -> None:
    image = npy_with_header(header.encode("latin1", "replace").decode("latin1"), data)
    with pytest.raises(InvalidRequestError):
        decode_segment_request(request_with(image), MB)


@given(flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), max_size=4))
@settings(max_examples=300)
def test_damaged_archive_is_read_or_refused(flips: list[tuple[int, int]]) -> None:
    body = bytearray(request_with(npy(np.arange(12.0).reshape(3, 4)), zipfile.ZIP_DEFLATED))
    for position, mask in flips:
        body[position % len(body)] ^= mask
    try:
        image, request = decode_segment_request(bytes(body), MB)
    except ClsClipError:
        undamaged = not flips
        assert not undamaged
    else:
        assert image.dtype.kind in "buif"
        assert request.words


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"image": npy(np.zeros(3))},
        {"image": npy(np.zeros(3)), "meta": npy(np.frombuffer(META, np.uint8)), "more": b""},
    ],
)
def test_wrong_members(members: dict[str, bytes]) -> None:
    with pytest.raises(InvalidRequestError, match="expected"):
        decode_segment_request(archive(**members), MB)
