from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from clsclip.errors import FileError, InvalidImageError, StoreError
from clsclip.store.arrays import ArrayFiles, sha256_of

_DTYPES = st.one_of(
    hnp.boolean_dtypes(), hnp.integer_dtypes(endianness="?"), hnp.unsigned_integer_dtypes(),
    hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
)  # fmt: skip
_SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda hw: st.sampled_from([hw, (*hw, 3), (*hw, 4)])
)


@given(hnp.arrays(_DTYPES, _SHAPES))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_read_is_what_was_added(tmp_path: Path, array: NDArray[Any]) -> None:
    files = ArrayFiles(tmp_path)
    name = files.add(array)
    read = files.read(name)
    assert name == sha256_of(array)
    assert read.shape == array.shape
    assert read.dtype == (np.uint8 if array.dtype == bool else array.dtype.newbyteorder("="))
    np.testing.assert_array_equal(read, array)


def test_an_array_is_stored_once_and_opens_as_a_picture(tmp_path: Path) -> None:
    files = ArrayFiles(tmp_path)
    rgb = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    assert files.add(rgb) == files.add(rgb.copy(order="F"))
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    with Image.open(file) as picture:
        np.testing.assert_array_equal(np.asarray(picture), rgb)


@pytest.mark.parametrize("array", [
    np.zeros((2, 3, 2)), np.zeros(4), np.zeros((2, 2, 2, 3)), np.zeros((0, 4)),
    np.zeros((2, 2), complex), np.array([["a"]]), np.zeros((2, 2), object),
])  # fmt: skip
def test_what_is_no_image_is_refused(tmp_path: Path, array: NDArray[Any]) -> None:
    with pytest.raises(InvalidImageError, match="cannot be stored"):
        ArrayFiles(tmp_path).add(array)
    assert not list(tmp_path.iterdir())


def test_damage_is_noticed_and_healed_by_adding_again(tmp_path: Path) -> None:
    files = ArrayFiles(tmp_path)
    array = np.arange(400, dtype=np.uint16).reshape(20, 20)
    name = files.add(array)
    content = bytearray(files.path(name).read_bytes())
    content[-3] ^= 1
    files.path(name).write_bytes(content)
    with pytest.raises(StoreError, match="changed or damaged"):
        files.read(name)
    assert files.add(array) == name
    np.testing.assert_array_equal(files.read(name), array)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    files = ArrayFiles(tmp_path)
    name = files.add(np.ones((2, 2), np.uint8))
    files.path(name).unlink()
    with pytest.raises(StoreError, match=name[2:]):
        files.read(name)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "arrays").write_text("a file where the folder should be")
    with pytest.raises(FileError, match="Nothing was added"):
        ArrayFiles(tmp_path / "arrays").add(np.ones((2, 2), np.uint8))


def test_a_device_without_space_leaves_no_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A small file system cannot be mounted everywhere; the full one of the kernel can be asked.
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    full = os.open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr(os, "fsync", lambda _: os.write(full, b"x"))
    try:
        with pytest.raises(FileError, match="No space left"):
            ArrayFiles(tmp_path).add(np.ones((2, 2), np.uint8))
    finally:
        os.close(full)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def _add(folder: str) -> list[str]:
    files = ArrayFiles(Path(folder))
    return [files.add(np.full((30, 30), k, np.uint8)) for k in range(20)]


def test_two_processes_add_the_same(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2) as pool:
        first, second = pool.map(_add, [str(tmp_path)] * 2)
    assert first == second
    files = ArrayFiles(tmp_path)
    assert [int(files.read(name)[0, 0]) for name in first] == list(range(20))
    assert sum(path.is_file() for path in tmp_path.rglob("*")) == 20
