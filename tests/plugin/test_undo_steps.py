"""Each step of the plugin on an existing layer is one step of undo, and the books agree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QObject

from clsclip.config import InstanceSettings
from clsclip.segmentation import Segmentation
from clsclip.wire import SegmentRequest
from napari_clsclip import _packed_states
from napari_clsclip._layers import displayed_plane
from napari_clsclip._object_updates import ObjectUpdates
from napari_clsclip._packed_states import PackedArray
from napari_clsclip._predicted_objects import PredictedObjects, find_objects
from napari_clsclip._predicted_plane import PredictedPlane
from napari_clsclip._results import ResultLayers
from napari_clsclip._undo_history import Entry

SHAPE = (60, 80)
SETTINGS = InstanceSettings(instances=True, min_area=4, min_certainty=0.0)
REQUEST = SegmentRequest(words=("nucleus",), model="tiny")
MILLISECONDS = 20_000


def predicted(seed: int, shape: tuple[int, int] = SHAPE) -> Segmentation:
    """Discs at random places, smaller at higher thresholds."""
    rng = np.random.default_rng(seed)
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    plane = np.zeros(shape)
    for _ in range(8):
        y, x, slope = rng.uniform((6, 6, 0.05), (shape[0] - 6, shape[1] - 6, 0.2))
        np.maximum(plane, 1 - np.hypot(rows - y, columns - x) * slope, out=plane)
    values = np.round(np.clip(plane, 0, 1) * 255).astype(np.uint8)[None]
    return Segmentation(values, ("nucleus",), "tiny", "v", (1.0,), 0.1)


class Bench:
    """A viewer without a window, its results, and their updates as the Segment tab has them."""

    def __init__(self, qtbot: QtBot) -> None:
        self.viewer = ViewerModel()
        self.results = ResultLayers(self.viewer)
        self.parent = QObject()
        self.updates = ObjectUpdates(self.viewer, self.results, self.parent)
        self.results.steps.restored.append(lambda layer: self.updates.schedule())
        self.qtbot = qtbot

    def add(self, image: Image, seed: int, *, objects: bool = False, at: float = 0.5) -> Labels:
        plane = displayed_plane(image, self.viewer.dims)
        found = predicted(seed, plane.index.size)
        single = None
        if objects:
            single = PredictedObjects.first(found, find_objects(found, at, SETTINGS))
        layer = self.results.add(image, plane, found, at, single, REQUEST)
        self.updates.watch(layer)
        return layer

    def drag(self, layer: Labels, *thresholds: float) -> None:
        """Move the slider, and release it; hidden planes and objects follow."""
        for threshold in thresholds:
            self.results.set_threshold(layer, threshold)
            self.updates.schedule()
        self.results.steps.end_adjustment()
        self.settle()

    def settle(self) -> None:
        while self.results.update_hidden_plane():
            pass
        self.qtbot.waitUntil(lambda: not self.updates.busy, timeout=MILLISECONDS)

    def undo(self, layer: Labels) -> None:
        layer.undo()
        self.settle()

    def redo(self, layer: Labels) -> None:
        layer.redo()
        self.settle()


@pytest.fixture
def bench(qtbot: QtBot) -> Iterator[Bench]:
    made = Bench(qtbot)
    yield made
    made.settle()


@pytest.fixture(params=[2**29, 0], ids=["not packed", "packed"])
def packing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether there is room for what the history remembers, or all of it is compressed at once."""

    def at_once(arrays: list[PackedArray]) -> None:
        for array in arrays:
            array.pack()

    monkeypatch.setattr(_packed_states.raw_arrays, "max_bytes", request.param)
    monkeypatch.setattr(_packed_states, "pack_in_thread", at_once)


def blank(*shape: int) -> NDArray[np.uint8]:
    return np.zeros(shape or SHAPE, np.uint8)


def state(bench: Bench, layer: Labels) -> tuple[Any, ...]:
    """What an undo is to bring back: pixels, threshold, table, metadata."""
    return (
        layer.data.tolist(),
        bench.results.threshold(layer),
        layer.features.to_dict("list"),
        dict(layer.metadata["clsclip"]),
    )


def same(first: tuple[Any, ...], second: tuple[Any, ...]) -> bool:
    return repr(first) == repr(second)


def rows(layer: Labels) -> list[int]:
    return layer.features["index"].tolist()


def ids(layer: Labels) -> list[int]:
    return sorted(set(np.unique(layer.data).tolist()) - {0})


@pytest.mark.usefixtures("packing")
@pytest.mark.parametrize("objects", [False, True], ids=["classes", "objects"])
def test_a_drag_of_the_threshold_is_one_step(bench: Bench, objects: bool) -> None:
    layer = bench.add(bench.viewer.add_image(blank()), 0, objects=objects)
    before = state(bench, layer)
    bench.drag(layer, 0.55, 0.65, 0.8)
    after = state(bench, layer)
    assert not same(before, after)
    for _ in range(2):
        bench.undo(layer)
        assert same(state(bench, layer), before)
        bench.redo(layer)
        assert same(state(bench, layer), after)
    bench.undo(layer)
    bench.undo(layer)  # there is nothing more
    assert same(state(bench, layer), before)
    bench.drag(layer, 0.8)  # the slider is true, so this is the same again
    assert same(state(bench, layer), after)


@pytest.mark.usefixtures("packing")
@pytest.mark.parametrize("objects", [False, True], ids=["classes", "objects"])
def test_strokes_and_steps_are_undone_in_the_order_in_which_they_were_done(
    bench: Bench, objects: bool
) -> None:
    layer = bench.add(bench.viewer.add_image(blank()), 0, objects=objects)
    layer.brush_size = 7
    states = [state(bench, layer)]
    own = 50 if objects else 1

    def stroke(row: int, column: int, value: int) -> None:
        layer.paint((row, column), value)
        bench.settle()

    row, column = np.unravel_index(predicted(0).probabilities[0].argmax(), SHAPE)
    strokes = (20, 20, own), (int(row), int(column), 0), (30, 60, own + 1)
    steps = [lambda s=s: stroke(*s) for s in strokes]
    for number, threshold in enumerate((0.7, 0.3, 0.6)):
        steps.insert(2 * number + 1, lambda t=threshold: bench.drag(layer, t - 0.05, t))
    for step in steps:
        step()
        states.append(state(bench, layer))
        if objects:
            assert rows(layer) == ids(layer)
    for expected in reversed(states[:-1]):
        bench.undo(layer)
        assert_array_equal(layer.data, expected[0])
        assert same(state(bench, layer), expected)
    for expected in states[1:]:
        bench.redo(layer)
        assert same(state(bench, layer), expected)
    # The painted pixels are still known as such: they stay at any threshold.
    painted = layer.data == own + 1
    bench.drag(layer, 0.99)
    assert_array_equal(layer.data == own + 1, painted)
    assert painted.any()


@pytest.mark.usefixtures("packing")
@pytest.mark.parametrize("objects", [False, True], ids=["classes", "objects"])
def test_segmenting_again_is_one_step(bench: Bench, objects: bool) -> None:
    image = bench.viewer.add_image(blank())
    layer = bench.add(image, 0, objects=objects)
    before = state(bench, layer)
    assert bench.add(image, 1, objects=objects, at=0.4) is layer
    after = state(bench, layer)
    assert after[1] == 0.4
    assert not same(before, after)
    bench.undo(layer)
    assert same(state(bench, layer), before)
    bench.redo(layer)
    assert same(state(bench, layer), after)
    bench.undo(layer)
    bench.drag(layer, 0.7)  # it is the first prediction whose threshold moves
    expected = predicted(0).labels(0.7) > 0
    assert_array_equal(layer.data > 0, expected)


def test_a_region_is_one_step(bench: Bench) -> None:
    image = bench.viewer.add_image(blank())
    layer = bench.add(image, 0)
    before = layer.data.copy()
    plane = displayed_plane(image, bench.viewer.dims)
    part = np.s_[10:40, 20:70]
    region = type(plane)(**{**vars(plane), "index": type(plane.index)(
        part, plane.index.displayed, plane.index.shape)})  # fmt: skip
    found = predicted(1, (30, 50))
    assert bench.results.add(image, region, found, 0.5, None, REQUEST) is layer
    expected = before.copy()
    expected[part] = found.labels(0.5)
    assert_array_equal(layer.data, expected)
    bench.undo(layer)
    assert_array_equal(layer.data, before)
    bench.drag(layer, 0.7)
    assert_array_equal(layer.data, predicted(0).labels(0.7))
    bench.undo(layer)
    bench.undo(layer)
    assert_array_equal(layer.data, before)


@pytest.mark.parametrize("objects", [False, True], ids=["classes", "objects"])
def test_a_run_over_planes_is_one_step_unless_it_made_the_layer(
    bench: Bench, objects: bool
) -> None:
    stack = bench.viewer.add_image(blank(5, *SHAPE))
    bench.viewer.dims.set_current_step(0, 0)
    layer = bench.add(stack, 0, objects=objects)
    started = state(bench, layer)

    def fill(z: int, *, undoable: bool = True) -> None:
        bench.viewer.dims.set_current_step(0, z)
        plane, found = displayed_plane(stack, bench.viewer.dims), predicted(z)
        single = PredictedObjects.first(found, find_objects(found, 0.5, SETTINGS))
        filled = single if objects else PredictedPlane(found, 0.5)
        assert bench.results.fill(layer, plane, filled, REQUEST, undoable=undoable)

    fill(1, undoable=False)
    own = state(bench, layer)
    layer.undo()
    assert same(state(bench, layer), own)
    for z in (2, 3, 4):
        fill(z)
    all_of_them = state(bench, layer)
    assert len(bench.results.everything(layer)) == 5
    bench.undo(layer)
    assert same(state(bench, layer), own)
    assert len(bench.results.everything(layer)) == 2
    bench.redo(layer)
    assert same(state(bench, layer), all_of_them)
    assert not same(started, all_of_them)


def test_hidden_planes_follow_an_undone_threshold(bench: Bench) -> None:
    stack = bench.viewer.add_image(blank(3, *SHAPE))
    for z in range(3):
        bench.viewer.dims.set_current_step(0, z)
        layer = bench.add(stack, z)
    expected = layer.data.copy()
    bench.drag(layer, 0.8)
    bench.viewer.dims.set_current_step(0, 0)
    bench.undo(layer)
    assert_array_equal(layer.data, expected)
    bench.redo(layer)
    for z in range(3):
        assert_array_equal(layer.data[z], predicted(z).labels(0.8))


def test_settings_of_objects_are_a_step(bench: Bench) -> None:
    layer = bench.add(bench.viewer.add_image(blank()), 0, objects=True)
    before = state(bench, layer)
    large = SETTINGS.model_copy(update={"min_area": 250})
    bench.results.set_object_settings(layer, large)
    bench.updates.schedule()
    bench.settle()
    assert len(rows(layer)) < len(before[2]["index"])
    bench.undo(layer)
    assert same(state(bench, layer)[:3], before[:3])
    objects = bench.results.objects(layer)
    assert objects is not None
    assert objects.settings == SETTINGS
    bench.redo(layer)
    assert objects.settings == large
    assert rows(layer) == ids(layer)


def test_ids_of_undone_objects_go_to_no_other(bench: Bench) -> None:
    layer = bench.add(bench.viewer.add_image(blank()), 0, objects=True, at=0.9)
    before = set(ids(layer))
    bench.drag(layer, 0.2)
    undone = set(ids(layer)) - before
    assert undone
    bench.undo(layer)
    assert rows(layer) == ids(layer)
    assert not undone & set(rows(layer))
    bench.drag(layer, 0.3)
    assert not undone & set(ids(layer))
    assert rows(layer) == ids(layer)


def test_painting_while_objects_are_found_is_undone_first(bench: Bench) -> None:
    layer = bench.add(bench.viewer.add_image(blank()), 0, objects=True)
    before = layer.data.copy()
    bench.results.set_threshold(layer, 0.8)
    bench.updates.schedule()
    layer.paint((20, 20), 77)  # the objects come only now
    painted = layer.data == 77
    bench.settle()
    assert bench.results.threshold(layer) == 0.8
    assert_array_equal(layer.data > 0, (predicted(0).labels(0.8) > 0) | painted)
    bench.undo(layer)
    assert bench.results.threshold(layer) == 0.5
    assert_array_equal(layer.data, np.where(painted, 77, before))
    bench.undo(layer)
    assert_array_equal(layer.data, before)
    assert rows(layer) == ids(layer)


def test_objects_wait_for_the_end_of_a_stroke(bench: Bench) -> None:
    layer = bench.add(bench.viewer.add_image(blank()), 0, objects=True)
    before = layer.data.copy()
    with layer.block_history():  # as napari does from press to release of the mouse
        layer.paint((20, 20), 77)
        bench.results.set_threshold(layer, 0.8)
        bench.updates.schedule()
        bench.qtbot.wait(500)
        stroke = layer.data.copy()
        layer.paint((40, 40), 77)
    assert_array_equal(stroke, np.where(stroke == 77, 77, before))
    bench.settle()
    both = layer.data == 77
    assert (layer.data[~both] != before[~both]).any()
    for _ in range(3):
        bench.undo(layer)
    assert_array_equal(layer.data, before)
    assert rows(layer) == ids(layer)


def test_other_data_in_the_layer_are_left_alone(bench: Bench) -> None:
    layer = bench.add(bench.viewer.add_image(blank()), 0)
    bench.drag(layer, 0.8)
    layer.data = np.ones((5, 6), np.uint16)
    layer.undo()
    assert_array_equal(layer.data, np.ones((5, 6)))


def test_history_holds_its_steps_and_tells_nobody_of_painting(bench: Bench) -> None:
    layer = bench.viewer.add_labels(np.zeros((4, 4), np.uint16))
    done, painted = [], []
    layer.events.paint.connect(painted.append)

    class Counted:
        def undo(self) -> None:
            done.append("undo")

        def redo(self) -> None:
            done.append("redo")

    entry = Entry(layer, Counted())
    assert (done, painted) == ([], [])
    assert entry.stands
    assert entry.is_last(layer)
    for act in (layer.undo, layer.undo, layer.redo, layer.redo, layer.undo):
        act()
    assert done == ["undo", "redo", "undo"]
    assert not entry.stands
    layer.paint((1, 1), 1)
    layer.redo()  # a stroke makes what was undone final
    assert done == ["undo", "redo", "undo"]
    assert len(painted) == 1
