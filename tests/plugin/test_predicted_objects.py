"""Objects keep their ids from threshold to threshold, and nothing painted is ever touched."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from clsclip.config import InstanceSettings
from clsclip.errors import InvalidImageError
from clsclip.segmentation import Segmentation
from napari_clsclip._predicted_objects import COLUMNS, PredictedObjects, find_objects

SETTINGS = InstanceSettings(instances=True, min_area=4, min_certainty=0.0)
SHAPE = (40, 60)
CENTRES = ((10, 10), (10, 30), (28, 20), (28, 48))
"""Of four discs, the first and second of which are surest in the middle of a wide slope."""


def cones(slopes: tuple[float, ...], words: tuple[str, ...] = ("nucleus",)) -> Segmentation:
    """Discs that shrink as the threshold rises; the objects of word ``k`` are every ``k``-th."""
    rows, columns = np.ogrid[: SHAPE[0], : SHAPE[1]]
    planes = np.zeros((len(words), *SHAPE))
    for number, ((y, x), slope) in enumerate(zip(CENTRES, slopes, strict=True)):
        plane = planes[number % len(words)]
        np.maximum(plane, 1.0 - np.hypot(rows - y, columns - x) * slope, out=plane)
    values = np.round(np.clip(planes, 0, 1) * 255).astype(np.uint8)
    return Segmentation(values, words, "tiny", "v", (1.0,) * len(words), 0.1)


def at(number: int, labels: NDArray[np.int32]) -> int:
    """The id in the middle of a disc."""
    return int(labels[CENTRES[number]])


def move(
    objects: PredictedObjects, labels: NDArray[np.int32], threshold: float
) -> PredictedObjects:
    """Find objects at another threshold and write them, as a layer would."""
    found = find_objects(objects.segmentation, threshold, SETTINGS)
    highest = max(objects.highest, int(labels.max()))
    new = objects.updated(found, labels.copy(), highest + 1)
    labels[...] = new.written
    return new


@pytest.fixture
def segmentation() -> Segmentation:
    """Three discs of radius 5 at 0.5, and one that is there below 0.6 only."""
    values = cones((0.1, 0.1, 0.1, 0.1)).probabilities.copy()
    faint = np.hypot(*np.ogrid[-28 : SHAPE[0] - 28, -48 : SHAPE[1] - 48]) < 8
    values[0][faint] = np.minimum(values[0][faint], 153)
    return Segmentation(values, ("nucleus",), "tiny", "v", (1.0,), 0.1)


@pytest.fixture
def plane(segmentation: Segmentation) -> tuple[PredictedObjects, NDArray[np.int32]]:
    objects = PredictedObjects.first(segmentation, find_objects(segmentation, 0.5, SETTINGS))
    labels = np.zeros(SHAPE, np.int32)
    objects.write_first(labels)
    return objects, labels


Plane = tuple[PredictedObjects, NDArray[np.int32]]


def test_table_has_a_row_per_object(plane: Plane) -> None:
    objects, labels = plane
    assert list(objects.table) == list(COLUMNS)
    assert objects.table["index"].tolist() == [1, 2, 3, 4]
    assert objects.table["class"].tolist() == ["nucleus"] * 4
    for row, number in enumerate(objects.table["index"]):
        inside = labels == number
        assert objects.table["area"][row] == inside.sum()
        assert objects.table["top"][row] == np.flatnonzero(inside.any(1))[0]
        assert objects.table["right"][row] == np.flatnonzero(inside.any(0))[-1] + 1
        mean = objects.segmentation.probabilities[0][inside].mean() / 255
        assert objects.table["score"][row] == pytest.approx(mean, abs=1e-5)


def test_objects_keep_their_ids_also_when_they_vanish_and_come_back(plane: Plane) -> None:
    objects, labels = plane
    ids = [at(number, labels) for number in range(4)]
    for threshold, faint in ((0.7, 0), (0.9, 0), (0.4, ids[3]), (0.55, ids[3]), (0.5, ids[3])):
        objects = move(objects, labels, threshold)
        assert [at(number, labels) for number in range(4)] == [*ids[:3], faint]
        assert objects.table["index"].tolist() == sorted(set(np.unique(labels)) - {0})


def test_new_objects_get_ids_that_nobody_has(segmentation: Segmentation) -> None:
    objects = PredictedObjects.first(segmentation, find_objects(segmentation, 0.7, SETTINGS))
    labels = objects.written.copy()
    assert labels.max() == 3
    labels[0, 0] = 77  # painted
    objects = move(objects, labels, 0.5)
    assert at(3, labels) == 78
    assert (labels == 77).sum() == 1
    assert objects.highest == 78


def test_painted_pixels_stay_and_the_object_that_they_belong_to_goes_on(plane: Plane) -> None:
    objects, labels = plane
    first = at(0, labels)
    labels[10, 16:20] = first  # the person makes the object longer
    for threshold, middle in ((0.8, first), (0.3, first), (0.99, 0), (0.5, first)):
        objects = move(objects, labels, threshold)
        assert (labels[10, 16:20] == first).all()
        assert at(0, labels) == middle
    row = objects.table["index"].tolist().index(first)
    assert objects.table["area"][row] == (labels == first).sum()
    assert objects.table["right"][row] == 20


def test_split_object_stays_split(plane: Plane) -> None:
    objects, labels = plane
    whole = at(1, labels)
    painted = (labels == whole) & (np.arange(SHAPE[1]) > 29)
    labels[painted] = 9
    for threshold in (0.7, 0.4, 0.5):
        objects = move(objects, labels, threshold)
        assert_array_equal(labels == 9, painted)
        assert labels[10, 28] == whole
    assert {9, whole} <= set(objects.table["index"].tolist())


@pytest.mark.parametrize("value", [0, 9], ids=["erased", "redrawn"])
def test_object_that_was_painted_over_does_not_come_back_as_a_rim(plane: Plane, value: int) -> None:
    objects, labels = plane
    gone = at(2, labels)
    painted = labels == gone
    labels[painted] = value
    for threshold in (0.3, 0.8, 0.2, 0.5):
        objects = move(objects, labels, threshold)
        assert gone not in labels
        assert (labels[painted] == value).all()
        around = labels[20:37, 12:29]
        assert set(np.unique(around)) <= {0, value}


def test_undone_erasing_brings_the_object_back(plane: Plane) -> None:
    objects, labels = plane
    before = labels.copy()
    labels[labels == at(2, labels)] = 0
    objects = objects.repainted(labels.copy())
    labels[...] = before  # what napari's undo writes
    objects = objects.repainted(labels.copy())
    assert not objects.changes(labels).any()
    objects = move(objects, labels, 0.3)
    assert at(2, labels) == at(2, before)
    assert (labels == at(2, labels)).sum() > (before == at(2, before)).sum()


def test_object_drawn_by_hand_keeps_its_outline(segmentation: Segmentation) -> None:
    objects = PredictedObjects.first(segmentation, find_objects(segmentation, 0.7, SETTINGS))
    labels = objects.written.copy()
    drawn = np.hypot(*np.ogrid[-28 : SHAPE[0] - 28, -48 : SHAPE[1] - 48]) < 5
    labels[drawn] = 12
    objects = move(objects, labels, 0.5)  # finds an object there that is a little larger
    assert_array_equal(labels[20:, 40:] == 12, drawn[20:, 40:])
    assert set(np.unique(labels[20:, 40:])) == {0, 12}


def test_painting_changes_the_table(plane: Plane) -> None:
    objects, labels = plane
    erased = at(0, labels)
    labels[labels == erased] = 0
    labels[36:39, 2:7] = 20
    assert objects.changes(labels).any()
    after = objects.repainted(labels.copy())
    assert after.table["index"].tolist() == [*(i for i in (1, 2, 3, 4) if i != erased), 20]
    assert after.table["area"][-1] == 15
    assert after.table["class"][-1] == "nucleus"
    assert after.repainted(labels) is after
    assert objects.table["index"].tolist() == [1, 2, 3, 4]


def test_words_of_objects_and_of_painted_ones() -> None:
    result = cones((0.1,) * 4, ("nucleus", "cell"))
    objects = PredictedObjects.first(result, find_objects(result, 0.5, SETTINGS))
    labels = objects.written.copy()
    labels[0, :5] = 50
    objects = move(objects, labels, 0.6)
    named = dict(zip(objects.table["index"].tolist(), objects.table["class"].tolist(), strict=True))
    assert [named[at(number, labels)] for number in range(4)] == ["nucleus", "cell"] * 2
    assert named[50] == ""


def test_ids_of_another_plane_begin_after_those_in_use(plane: Plane) -> None:
    moved = plane[0].moved(100)
    assert moved.table["index"].tolist() == [101, 102, 103, 104]
    assert_array_equal(moved.written, np.where(plane[1] > 0, plane[1] + 100, 0))
    labels = moved.written.copy()
    again = move(moved, labels, 0.7)
    assert set(again.table["index"].tolist()) < {101, 102, 103, 104}
    assert plane[0].moved(0) is plane[0]


def test_ids_beyond_what_a_layer_holds_are_refused(plane: Plane) -> None:
    objects, labels = plane
    highest = np.iinfo(np.int32).max
    with pytest.raises(InvalidImageError, match="2,147,483,647"):
        objects.moved(highest - 1)
    labels[0, 0] = highest
    assert move(objects, labels, 0.7).highest == highest  # nothing new, so nothing is in the way
    none = find_objects(objects.segmentation, 1.0, SETTINGS)
    empty = PredictedObjects.first(objects.segmentation, none)
    with pytest.raises(InvalidImageError, match="Paint with lower ids"):
        move(empty, np.where(labels == highest, labels, np.int32(0)), 0.5)


def test_plane_without_objects() -> None:
    nothing = Segmentation(np.zeros((1, 8, 9), np.uint8), ("a",), "tiny", "v", (1.0,), 0.1)
    objects = PredictedObjects.first(nothing, find_objects(nothing, 0.5, SETTINGS))
    assert objects.highest == 0
    labels = np.zeros((8, 9), np.int32)
    labels[2:4, 3:6] = 5
    objects = move(objects, labels, 0.3)
    assert objects.table["index"].tolist() == [5]
    assert objects.table["score"].tolist() == [0.0]
