"""Objects through planes: what continues, splits, merges, vanishes and comes back."""

from __future__ import annotations

from itertools import pairwise

import dask.array
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from clsclip.errors import CancelledError, InvalidConfigError, InvalidImageError
from clsclip.linking import link, link_stack


def row(*ids: int) -> NDArray[np.uint16]:
    return np.array([ids], np.uint16)


def linked(*planes: NDArray[np.uint16], min_overlap: float = 0.3) -> list[list[int]]:
    return [plane[0].tolist() for plane in link(planes, min_overlap)]


def test_moving_objects_keep_their_ids_whatever_they_were_called() -> None:
    assert linked(row(1, 1, 1, 0, 2, 2), row(0, 9, 9, 9, 0, 4)) == [
        [1, 1, 1, 0, 2, 2],
        [0, 1, 1, 1, 0, 2],
    ]


def test_of_an_object_that_splits_the_larger_part_goes_on() -> None:
    assert linked(row(5, 5, 5, 5, 5, 5), row(1, 0, 2, 2, 2, 2))[1] == [2, 0, 1, 1, 1, 1]


def test_of_objects_that_merge_the_larger_one_goes_on() -> None:
    assert linked(row(1, 0, 2, 2, 2, 2), row(7, 7, 7, 7, 7, 7))[1] == [2] * 6


def test_an_object_that_comes_back_after_an_empty_plane_is_new() -> None:
    planes = (row(3, 3, 0), row(0, 0, 0), row(3, 3, 0))
    assert linked(*planes) == [[1, 1, 0], [0, 0, 0], [2, 2, 0]]


def test_one_that_vanishes_does_not_lend_its_id_to_another() -> None:
    assert linked(row(1, 0, 2), row(0, 0, 2), row(1, 0, 2)) == [[1, 0, 2], [0, 0, 2], [3, 0, 2]]


def test_overlap_is_measured_against_the_limit() -> None:
    planes = (row(1, 1, 1, 0), row(0, 1, 1, 1))  # intersection 2 of union 4
    assert linked(*planes, min_overlap=0.5)[1] == [0, 1, 1, 1]
    assert linked(*planes, min_overlap=0.51)[1] == [0, 2, 2, 2]


def test_a_plane_without_background() -> None:
    assert linked(row(4, 4, 8), row(8, 8, 8)) == [[1, 1, 2], [1, 1, 1]]


def test_no_planes_and_nothing_but_background() -> None:
    assert linked() == []
    assert linked(row(0, 0), row(0, 0)) == [[0, 0], [0, 0]]


def test_planes_are_taken_one_by_one() -> None:
    taken: list[int] = []

    def planes() -> object:
        for z in range(3):
            taken.append(z)
            yield row(1)

    stream = link(planes())
    next(stream)
    assert taken == [0]


@pytest.mark.parametrize("overlap", [0.0, -1.0, 1.01, float("nan")])
def test_overlap_out_of_range_is_named_at_once(overlap: float) -> None:
    with pytest.raises(InvalidConfigError, match=f"smallest overlap is {overlap}"):
        link([], overlap)


@pytest.mark.parametrize(
    ("planes", "words"),
    [
        ((row(1, 2), row(1)), r"shape \(1, 1\), the one before it \(1, 2\)"),
        ((np.ones((2, 2)),), "float64"),
        ((np.array([[-3, 1]]),), "id -3"),
    ],
)
def test_what_cannot_be_linked_is_named(planes: tuple, words: str) -> None:
    with pytest.raises(InvalidImageError, match=words):
        list(link(planes))


STACKS = arrays.arrays(
    np.uint8, st.tuples(st.integers(1, 5), st.just(4), st.just(5)), elements=st.integers(0, 4)
)


@settings(max_examples=150, deadline=None)
@given(STACKS, st.floats(0.05, 1.0))
def test_invariants(stack: NDArray[np.uint8], min_overlap: float) -> None:
    planes = list(link(stack, min_overlap))
    result = np.stack(planes)
    assert result.dtype == np.uint32
    # The same pixels are objects, and within a plane ids are renamed one-to-one.
    for before, after in zip(stack, planes, strict=True):
        assert_array_equal(before == 0, after == 0)
        pairs = set(zip(before.ravel().tolist(), after.ravel().tolist(), strict=True))
        assert len(pairs) == len(np.unique(before)) == len(np.unique(after))
    # Ids are consecutive, in the order of appearance, and an object has no gap in its planes.
    count = int(result.max())
    assert_array_equal(np.unique(result[result > 0]), np.arange(1, count + 1))
    first = [int(np.flatnonzero((result == k).any((1, 2)))[0]) for k in range(1, count + 1)]
    assert first == sorted(first)
    for k in range(1, count + 1):
        where = np.flatnonzero((result == k).any((1, 2)))
        assert_array_equal(np.diff(where), 1)
        for z in where[:-1]:
            a, b = result[z] == k, result[z + 1] == k
            assert (a & b).sum() / (a | b).sum() >= min_overlap
    # Above one half there is only one candidate: whatever overlaps that much is linked.
    for a, b in pairwise(planes):
        for i in np.unique(a[a > 0]):
            for j in np.unique(b[b > 0]):
                overlap = ((a == i) & (b == j)).sum() / ((a == i) | (b == j)).sum()
                if overlap > 0.5 and overlap >= min_overlap:
                    assert i == j


@settings(max_examples=50, deadline=None)
@given(STACKS)
def test_linking_again_changes_nothing(stack: NDArray[np.uint8]) -> None:
    once = list(link(stack))
    for before, after in zip(once, link(once), strict=True):
        assert_array_equal(before, after)


def test_time_series_of_stacks_is_linked_in_space_then_in_time() -> None:
    labels = np.zeros((2, 3, 4, 4), np.uint8)  # t, z, y, x
    labels[0, :, :2, :2] = [[[1]], [[2]], [[3]]]
    labels[1, :, :2, :2] = [[[7]], [[5]], [[6]]]
    labels[1, 0, 3, 3] = 1
    result = link_stack(labels, (0, 1))
    assert (result[:, :, :2, :2] == 1).all()
    assert result[1, 0, 3, 3] == 2
    assert result.max() == 2


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_any_axis_of_a_lazy_stack(axis: int) -> None:
    planes = np.stack([row(1, 1, 0, 2), row(5, 5, 0, 0), row(2, 2, 0, 9)])
    expected = np.stack(list(link(planes)))
    seen: list[int] = []
    stack = dask.array.from_array(np.moveaxis(planes, 0, axis))
    result = link_stack(stack, (axis,), step=lambda: seen.append(1))
    assert_array_equal(np.moveaxis(result, axis, 0), expected)
    assert len(seen) == 3


def test_step_can_end_the_work() -> None:
    def cancel() -> None:
        raise CancelledError("Cancelled.")

    with pytest.raises(CancelledError):
        link_stack(np.zeros((3, 4, 4), int), (0,), step=cancel)


@pytest.mark.parametrize(("shape", "axes"), [((4, 4), ()), ((0, 4, 4), (0,))])
def test_array_without_planes_is_refused(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    with pytest.raises(InvalidImageError, match="no planes"):
        link_stack(np.zeros(shape, int), axes)
