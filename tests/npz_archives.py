"""Archives as they travel between plugin and backend, and others that look like them."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clsclip.wire import SegmentRequest

META = SegmentRequest(words=("cell",)).model_dump_json().encode()


def npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def archive(compression: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def request_with(image: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    return archive(compression, image=image, meta=npy(np.frombuffer(META, np.uint8)))


def npy_with_header(header: str, data: bytes = b"") -> bytes:
    text = header.encode("latin1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def meta_of(body: bytes) -> dict[str, Any]:
    with np.load(io.BytesIO(body)) as members:
        found: dict[str, Any] = json.loads(members["meta"].tobytes())
    return found
