"""Arrays that undo remembers: packed once there are many, and the same when they come back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from napari_clsclip._packed_states import PackedArray, RawArrays
from waiting import eventually


def test_oldest_arrays_are_packed_once_there_are_many() -> None:
    raw, arrays = RawArrays(5000), [np.full((40, 50), k, np.uint8) for k in range(4)]
    packed = [PackedArray(array) for array in arrays]
    for each in packed:
        raw.add([each])
    eventually(lambda: packed[1].get() is not arrays[1])
    assert [p.get() is array for p, array in zip(packed, arrays, strict=True)] == [
        False, False, True, True,
    ]  # fmt: skip
    del packed[2], each
    later = PackedArray(arrays[0])
    raw.add([later])  # there is room, for what nobody remembers does not count
    assert packed[2].get() is arrays[3]


def test_packed_arrays_come_back(rng: np.random.Generator) -> None:
    arrays: list[NDArray[Any]] = [
        rng.integers(0, 9, (30, 40)).astype(np.int32), rng.random((30, 40)) > 0.5,
        rng.integers(0, 9, (40, 30)).astype(np.uint16).T,
    ]  # fmt: skip
    for array in arrays:
        packed = PackedArray(array)
        assert packed.get() is array
        packed.pack()
        restored = packed.get()
        assert restored is not array
        assert restored.dtype == array.dtype
        assert restored.flags.writeable
        assert_array_equal(restored, array)
