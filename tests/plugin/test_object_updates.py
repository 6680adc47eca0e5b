"""Layers of objects follow the threshold in worker threads, and the person always wins."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels
from numpy.testing import assert_array_equal
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QObject

from clsclip.config import InstanceSettings
from clsclip.segmentation import Segmentation
from napari_clsclip import _object_planes
from napari_clsclip._layers import displayed_plane
from napari_clsclip._object_updates import ObjectUpdates
from napari_clsclip._predicted_objects import PredictedObjects, find_objects
from napari_clsclip._results import ResultLayers

SETTINGS = InstanceSettings(instances=True, min_area=4, min_certainty=0.0)
SHAPE = (40, 60)
MILLISECONDS = 20_000


def bumps(seed: int, words: tuple[str, ...] = ("nucleus",)) -> Segmentation:
    """Discs at random places, smaller at higher thresholds."""
    rng = np.random.default_rng(seed)
    rows, columns = np.ogrid[: SHAPE[0], : SHAPE[1]]
    planes = np.zeros((len(words), *SHAPE))
    for k in range(6):
        y, x, slope = rng.uniform((4, 4, 0.1), (36, 56, 0.2))
        plane = planes[k % len(words)]
        np.maximum(plane, 1 - np.hypot(rows - y, columns - x) * slope, out=plane)
    values = np.round(np.clip(planes, 0, 1) * 255).astype(np.uint8)
    return Segmentation(values, words, "tiny", "v", (1.0,) * len(words), 0.1)


class Bench:
    """A viewer without a window, its results and their updates."""

    def __init__(self, qtbot: QtBot) -> None:
        self.viewer = ViewerModel()
        self.results = ResultLayers(self.viewer)
        self.parent = QObject()
        self.updates = ObjectUpdates(self.viewer, self.results, self.parent)
        self.qtbot = qtbot
        self.failed: list[str] = []
        self.updates.failed.connect(self.failed.append)

    def add(self, image: Image, predicted: Segmentation, threshold: float = 0.5) -> Labels:
        objects = PredictedObjects.first(predicted, find_objects(predicted, threshold, SETTINGS))
        plane = displayed_plane(image, self.viewer.dims)
        layer = self.results.add(image, plane, predicted, threshold, objects)
        self.updates.watch(layer)
        return layer

    def set_threshold(self, layer: Labels, threshold: float) -> None:
        self.results.set_threshold(layer, threshold)
        self.updates.schedule()

    def wait(self) -> None:
        self.qtbot.waitUntil(lambda: not self.updates.busy, timeout=MILLISECONDS)


@pytest.fixture
def bench(qtbot: QtBot) -> Iterator[Bench]:
    made = Bench(qtbot)
    yield made
    made.wait()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Callable[[], threading.Event]:
    """Let the finding of objects wait for an event from now on."""
    released = threading.Event()

    def find(*args: Any) -> Any:
        assert released.wait(20)
        return find_objects(*args)

    def hold() -> threading.Event:
        monkeypatch.setattr(_object_planes, "find_objects", find)
        return released

    return hold


def ids(layer: Labels) -> list[int]:
    return sorted(set(np.unique(layer.data).tolist()) - {0})


def test_layer_of_objects_says_what_it_is(bench: Bench) -> None:
    predicted = bumps(0, ("nucleus", "cell"))
    layer = bench.add(bench.viewer.add_image(np.zeros(SHAPE)), predicted)
    found = find_objects(predicted, 0.5, SETTINGS)
    assert_array_equal(layer.data, found.labels)
    assert layer.data.dtype == np.int32
    assert layer.features["index"].tolist() == ids(layer)
    assert set(layer.features["class"]) == {"nucleus", "cell"}
    assert layer.metadata["clsclip"]["objects"] == SETTINGS.model_dump()
    assert "classes" not in layer.metadata["clsclip"]
    row, column = np.argwhere(layer.data == 2)[0]
    status = str(layer.get_status((row, column))["value"])
    assert "class: nucleus" in status
    assert "score: 0." in status
    colors = layer.colormap.map(np.arange(len(ids(layer)) + 1))
    assert len({tuple(color) for color in colors}) == len(colors)


def test_objects_and_classes_of_one_question_are_two_layers(bench: Bench) -> None:
    image = bench.viewer.add_image(np.zeros(SHAPE))
    objects = bench.add(image, bumps(0))
    plane = displayed_plane(image, bench.viewer.dims)
    classes = bench.results.add(image, plane, bumps(0), 0.5)
    assert classes is not objects
    assert classes.data.dtype == np.uint16
    assert bench.add(image, bumps(1)) is objects
    assert ids(objects)[0] == 1


def test_old_objects_stay_until_the_new_ones_are_there(
    bench: Bench, held: Callable[[], threading.Event]
) -> None:
    layer = bench.add(bench.viewer.add_image(np.zeros(SHAPE)), bumps(0))
    before, released = layer.data.copy(), held()
    bench.set_threshold(layer, 0.7)
    bench.qtbot.wait(400)
    assert_array_equal(layer.data, before)
    released.set()
    bench.wait()
    assert_array_equal(layer.data > 0, find_objects(bumps(0), 0.7, SETTINGS).labels > 0)
    assert layer.features["index"].tolist() == ids(layer)
    assert layer.features["area"].tolist() == [(layer.data == i).sum() for i in ids(layer)]


def test_the_latest_threshold_wins(bench: Bench, held: Callable[[], threading.Event]) -> None:
    layer = bench.add(bench.viewer.add_image(np.zeros(SHAPE)), bumps(0))
    released, seen = held(), []
    bench.updates.updated.connect(lambda _: seen.append(int((layer.data > 0).sum())))
    bench.set_threshold(layer, 0.9)
    bench.qtbot.wait(300)  # it is being computed
    for threshold in (0.8, 0.6, 0.3):
        bench.set_threshold(layer, threshold)
    released.set()
    bench.wait()
    expected = int((find_objects(bumps(0), 0.3, SETTINGS).labels > 0).sum())
    assert seen == [expected]


def test_what_is_painted_while_objects_are_found_is_kept(
    bench: Bench, held: Callable[[], threading.Event]
) -> None:
    layer = bench.add(bench.viewer.add_image(np.zeros(SHAPE)), bumps(0))
    released = held()
    bench.set_threshold(layer, 0.3)
    bench.qtbot.wait(300)
    layer.brush_size = 5
    layer.paint((20, 30), 40)
    painted = layer.data == 40
    released.set()
    bench.wait()
    assert_array_equal(layer.data == 40, painted)
    assert layer.features["index"].tolist() == ids(layer)
    assert len(ids(layer)) > 1


def test_painting_a_new_id_while_objects_are_found_collides_with_none(
    bench: Bench, held: Callable[[], threading.Event]
) -> None:
    stack = bench.viewer.add_image(np.zeros((3, *SHAPE)))
    bench.viewer.dims.set_current_step(0, 1)
    layer = bench.add(stack, bumps(1), 0.9)
    released = held()
    bench.set_threshold(layer, 0.2)
    bench.qtbot.wait(300)
    free = layer.data.max() + 1  # what napari offers for a new label
    layer.paint((2, 5, 5), free)  # in a plane that is not even predicted
    painted = layer.data == free
    released.set()
    bench.wait()
    assert_array_equal(layer.data == free, painted)


def test_table_follows_the_brush_and_its_undo(bench: Bench) -> None:
    layer = bench.add(bench.viewer.add_image(np.zeros(SHAPE)), bumps(0))
    before = layer.features["area"].tolist()
    layer.fill(tuple(np.argwhere(layer.data == 1)[0]), 0)
    layer.paint((1, 1), 30)
    bench.wait()
    assert layer.features["index"].tolist() == ids(layer)
    assert 1 not in ids(layer)
    assert 30 in ids(layer)
    for _ in range(2):
        layer.undo()
    bench.wait()
    assert layer.features["area"].tolist() == before


def test_ids_of_all_planes_differ_at_every_threshold(bench: Bench) -> None:
    stack = bench.viewer.add_image(np.zeros((4, *SHAPE)))
    for z in (0, 1, 3):
        bench.viewer.dims.set_current_step(0, z)
        layer = bench.add(stack, bumps(z), 0.7)
    for threshold in (0.7, 0.2, 0.9, 0.5):
        bench.set_threshold(layer, threshold)
        bench.wait()
        per_plane = [set(np.unique(layer.data[z])) - {0} for z in range(4)]
        assert sum(map(len, per_plane)) == len(set.union(*per_plane))
        assert not per_plane[2]
        for z in (0, 1, 3):
            expected = find_objects(bumps(z), threshold, SETTINGS).labels > 0
            assert_array_equal(layer.data[z] > 0, expected)
            rows = layer.features[layer.features["plane"] == z]
            assert set(rows["index"]) == per_plane[z]


def test_settings_of_objects_apply_without_a_new_request(bench: Bench) -> None:
    layer = bench.add(bench.viewer.add_image(np.zeros(SHAPE)), bumps(0))
    largest = int(layer.features["area"].max())
    objects = bench.results.objects(layer)
    objects.settings = SETTINGS.model_copy(update={"min_area": largest})
    bench.updates.schedule()
    bench.wait()
    assert layer.features["area"].tolist() == [largest]
    assert layer.metadata["clsclip"]["objects"]["min_area"] == largest


def test_data_type_that_cannot_hold_the_ids_is_told(bench: Bench) -> None:
    layer = bench.add(bench.viewer.add_image(np.zeros(SHAPE)), bumps(0), 0.9)
    layer.data = layer.data.astype(np.uint8)
    layer.selected_label = 255  # what the person is about to paint with
    before = layer.data.copy()
    bench.set_threshold(layer, 0.2)
    bench.wait()
    assert len(bench.failed) == 1
    assert "holds uint8 values" in bench.failed[0]
    assert_array_equal(layer.data, before)


def test_data_that_the_user_put_into_the_layer_is_left_alone(bench: Bench) -> None:
    layer = bench.add(bench.viewer.add_image(np.zeros(SHAPE)), bumps(0))
    layer.data = np.ones((5, 5), np.int32)
    bench.set_threshold(layer, 0.9)
    bench.wait()
    assert (layer.data == 1).all()


def test_removed_layer_is_left_alone(bench: Bench, held: Callable[[], threading.Event]) -> None:
    layer = bench.add(bench.viewer.add_image(np.zeros(SHAPE)), bumps(0))
    before, released = layer.data.copy(), held()
    bench.set_threshold(layer, 0.8)
    bench.qtbot.wait(300)
    bench.viewer.layers.remove(layer)
    released.set()
    bench.wait()
    bench.qtbot.wait(50)
    assert bench.failed == []
    assert before.any()
