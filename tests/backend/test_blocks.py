"""Blocks with a halo: every pixel once, and as much around it as was asked for."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import clsclip.blocks
from clsclip.blocks import blocks
from clsclip.errors import InvalidConfigError

sides = st.integers(1, 40)
shapes = st.tuples(sides, sides)


@given(shape=shapes, core=st.one_of(sides, shapes), halo=st.integers(0, 50))
def test_cores_tile_the_image_and_halos_are_as_asked(
    shape: tuple[int, int], core: int | tuple[int, int], halo: int
) -> None:
    times = np.zeros(shape, int)
    image = np.arange(times.size).reshape(shape)
    cut = blocks(shape, core, halo)
    for number, block in enumerate(cut):
        times[block.core] += 1
        np.testing.assert_array_equal(image[block.read][block.inner], image[block.core])
        assert image[block.core].shape == block.shape
        assert cut[number] == block
        assert block.number == number
        limits = (core, core) if isinstance(core, int) else core
        for axis in (0, 1):
            inner, outer = block.core[axis], block.read[axis]
            assert inner.start % limits[axis] == 0
            assert 0 < inner.stop - inner.start <= limits[axis]
            assert outer.start == max(0, inner.start - halo)
            assert outer.stop == min(shape[axis], inner.stop + halo)
    assert (times == 1).all()
    assert number + 1 == len(cut)


@given(shape=shapes, core=sides, halo=st.integers(0, 9))
def test_numbers_depend_on_cores_alone(shape: tuple[int, int], core: int, halo: int) -> None:
    assert [b.core for b in blocks(shape, core, halo)] == [b.core for b in blocks(shape, core)]


def test_blocks_are_a_sequence_without_a_list() -> None:
    cut = blocks((10**9, 10**9), 100, 10)
    assert len(cut) == 10**14
    assert cut[-1].core == (slice(10**9 - 100, 10**9),) * 2
    assert [block.number for block in cut[5:7]] == [5, 6]
    with pytest.raises(IndexError):
        cut[10**14]


@pytest.mark.parametrize(
    ("shape", "core", "halo", "message"),
    [
        ((0, 5), 4, 0, "no pixels"),
        ((5, 5), 0, 0, "core of a block is"),
        ((5, 5), (4, -1), 0, "core of a block is"),
        ((5, 5), 4, -1, "halo is -1"),
    ],
)
def test_sizes_out_of_range_are_refused(
    shape: tuple[int, int], core: int | tuple[int, int], halo: int, message: str
) -> None:
    with pytest.raises(InvalidConfigError, match=message):
        blocks(shape, core, halo)


def test_the_example_of_the_documentation() -> None:
    assert doctest.testmod(clsclip.blocks).failed == 0
