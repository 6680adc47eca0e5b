"""Which corrections are kept, until when, and how they come back: without a backend."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from pytestqt.qtbot import QtBot

from clsclip.config import InstanceSettings
from clsclip.segmentation import Segmentation
from napari_clsclip._acceptance import accept
from napari_clsclip._layers import displayed_plane
from napari_clsclip._predicted_objects import PredictedObjects, find_objects
from napari_clsclip._results import ResultLayers
from napari_clsclip._unsaved_bar import UnsavedBar
from napari_clsclip._unsaved_files import KeptFolder, dead_sessions
from napari_clsclip._unsaved_journal import Journal
from napari_clsclip._unsaved_layers import UnsavedCorrections

SHAPE = (90, 120)
SETTINGS = InstanceSettings(instances=True, min_area=4, min_certainty=0.0)
MILLISECONDS = 20_000


def predicted(shape: tuple[int, int] = SHAPE) -> Segmentation:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    values = (127 + 128 * np.sin(rows / 9) * np.cos(columns / 9)).astype(np.uint8)[None]
    return Segmentation(values, ("nucleus",), "tiny", "v", (1.0,), 0.1)


class Napari:
    """One viewer with its results, whose corrections are kept; :meth:`end` is a normal end."""

    def __init__(self, root: Path, quiet: float = 60.0) -> None:
        self.told: list[str] = []
        self.viewer = ViewerModel()
        self.results = ResultLayers(self.viewer)
        self.journal = Journal(root, self.told.append, quiet=quiet, longest=60.0, retry=0.05)
        self.unsaved = UnsavedCorrections(self.viewer, self.journal)
        self.unsaved.follow(self.results)

    def add(self, image: Image, *, objects: bool = False, threshold: float = 0.5) -> Labels:
        plane = displayed_plane(image, self.viewer.dims)
        found = predicted(plane.index.size)
        single = None
        if objects:
            single = PredictedObjects.first(found, find_objects(found, threshold, SETTINGS))
        return self.results.add(image, plane, found, threshold, single)

    def accept(self, layer: Labels) -> None:
        image = self.results.image(layer)
        assert image is not None
        plane = displayed_plane(image, self.viewer.dims)
        self.unsaved.accepted(layer, accept(layer, plane, self.viewer.dims, ("nucleus",), ()))

    def end(self) -> None:
        self.journal.close()


@pytest.fixture
def napari(unsaved_folder: Path) -> Iterator[Callable[..., Napari]]:
    started: list[Napari] = []

    def start(**options: Any) -> Napari:
        started.append(Napari(unsaved_folder, **options))
        return started[-1]

    yield start
    for each in started:
        each.end()


@pytest.fixture
def bar(qtbot: QtBot) -> Callable[[Napari], UnsavedBar]:
    """The bar of a viewer, once it has looked for what was left."""

    def make(of: Napari) -> UnsavedBar:
        widget = UnsavedBar(of.viewer, of.results, of.unsaved)
        qtbot.addWidget(widget)
        qtbot.waitUntil(lambda: not widget.busy, timeout=MILLISECONDS)
        return widget

    return make


def kept(root: Path) -> list[NDArray[Any]]:
    """Labels of all layers that are kept."""
    found = []
    for path in sorted(root.glob("*/*/about.json"), key=lambda path: path.stat().st_mtime_ns):
        folder = KeptFolder(path.parent)
        about = folder.read_about()
        assert about is not None
        found.append(folder.read(about)[0])
    return found


def image(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 255, shape or SHAPE, dtype=np.uint8)


def restore(widget: UnsavedBar, qtbot: QtBot) -> None:
    widget.restore_button.click()
    qtbot.waitUntil(lambda: not widget.busy, timeout=MILLISECONDS)


def test_what_nobody_has_painted_is_not_kept(
    napari: Callable[..., Napari], unsaved_folder: Path
) -> None:
    one = napari()
    layer = one.add(one.viewer.add_image(image()))
    one.results.set_threshold(layer, 0.7)
    own = one.viewer.add_labels(np.zeros(SHAPE, int))
    own.paint((20, 20), 3)
    assert one.journal.flush(10)
    assert not unsaved_folder.exists()


def test_strokes_undo_and_threshold_are_kept(
    napari: Callable[..., Napari], unsaved_folder: Path
) -> None:
    one = napari()
    layer = one.add(one.viewer.add_image(image()))
    layer.paint((20, 20), 5)
    assert one.journal.flush(10)
    assert_array_equal(kept(unsaved_folder)[0], layer.data)
    layer.paint((60, 60), 6)
    assert one.journal.flush(10)
    assert_array_equal(kept(unsaved_folder)[0], layer.data)
    layer.undo()
    assert not (layer.data == 6).any()
    assert one.journal.flush(10)
    assert_array_equal(kept(unsaved_folder)[0], layer.data)
    one.results.set_threshold(layer, 0.8)
    assert one.journal.flush(10)
    assert_array_equal(kept(unsaved_folder)[0], layer.data)
    assert len(kept(unsaved_folder)) == 1


def test_painting_is_kept_by_itself_after_a_moment(
    napari: Callable[..., Napari], unsaved_folder: Path, qtbot: QtBot
) -> None:
    one = napari(quiet=0.05)
    layer = one.add(one.viewer.add_image(image()))
    layer.paint((20, 20), 5)
    qtbot.waitUntil(lambda: bool(kept(unsaved_folder)), timeout=MILLISECONDS)
    assert_array_equal(kept(unsaved_folder)[0], layer.data)


def test_all_predicted_planes_of_a_stack_are_kept_with_the_painted_one(
    napari: Callable[..., Napari], unsaved_folder: Path
) -> None:
    one = napari()
    stack = one.viewer.add_image(image(4, *SHAPE))
    for z in (0, 2):
        one.viewer.dims.set_current_step(0, z)
        layer = one.add(stack)
    one.viewer.dims.set_current_step(0, 3)
    layer.paint((3, 20, 20), 1)
    assert one.journal.flush(10)
    assert_array_equal(kept(unsaved_folder)[0], layer.data)
    files = {p: p.stat().st_mtime_ns for p in unsaved_folder.glob("*/*/*.npz")}
    layer.paint((3, 40, 40), 1)
    assert one.journal.flush(10)
    changed = [path.name for path, t in files.items() if path.stat().st_mtime_ns != t]
    assert changed == ["3-0-0.npz"]


def test_saved_layers_are_not_unsaved_until_somebody_paints_on(
    make_napari_viewer: Callable[..., Any], unsaved_folder: Path, tmp_path: Path,
    napari: Callable[..., Napari],
) -> None:  # fmt: skip
    make_napari_viewer()  # brings napari's writers
    one = napari()
    layer = one.add(one.viewer.add_image(image()))
    for save in (layer.save, one.viewer.layers.save):
        layer.paint((20, 20), layer.data.max() + 1)
        assert one.journal.flush(10)
        assert len(kept(unsaved_folder)) == 1
        assert save(str(tmp_path / ("labels.tif" if save == layer.save else "layers")))
        assert one.journal.flush(10)
        assert kept(unsaved_folder) == []


def test_accepted_planes_are_not_unsaved(
    napari: Callable[..., Napari], unsaved_folder: Path
) -> None:
    one = napari()
    stack = one.viewer.add_image(image(3, *SHAPE))
    for z in (0, 1):
        one.viewer.dims.set_current_step(0, z)
        layer = one.add(stack)
        layer.paint((z, 20, 20), 1 + z)
    one.accept(layer)
    assert one.journal.flush(10)
    assert len(kept(unsaved_folder)) == 1  # the other plane is not accepted
    one.viewer.dims.set_current_step(0, 0)
    plane = displayed_plane(stack, one.viewer.dims)
    early = accept(layer, plane, one.viewer.dims, ("nucleus",), ())
    layer.paint((0, 60, 60), 3)
    one.unsaved.accepted(layer, early)  # it was painted on, on the way
    assert one.journal.flush(10)
    assert len(kept(unsaved_folder)) == 1
    one.accept(layer)
    assert one.journal.flush(10)
    assert kept(unsaved_folder) == []


def test_removed_layer_stays_kept_and_says_so(
    napari: Callable[..., Napari], unsaved_folder: Path, bar: Callable[[Napari], UnsavedBar]
) -> None:
    one = napari()
    layer = one.add(one.viewer.add_image(image(), name="slide"))
    layer.paint((20, 20), 5)
    one.viewer.layers.remove(layer)
    one.viewer.layers.append(layer)
    assert one.journal.flush(10)
    one.viewer.layers.clear()
    one.end()
    assert_array_equal(kept(unsaved_folder)[0], layer.data)
    widget = bar(napari())
    offer = widget.text.text()
    assert "of 'nucleus' on 'slide' were not saved when napari ended." in offer
    assert "Their layer had been removed." in offer


def test_array_of_another_type_is_an_entry_of_its_own(
    napari: Callable[..., Napari], unsaved_folder: Path
) -> None:
    one = napari()
    layer = one.add(one.viewer.add_image(image()))
    layer.paint((20, 20), 5)
    assert one.journal.flush(10)
    before = layer.data.copy()
    layer.data = layer.data.astype(np.int32)
    layer.paint((60, 60), 100_000)
    assert one.journal.flush(10)
    first, second = kept(unsaved_folder)
    assert_array_equal(first, before)
    assert_array_equal(second, layer.data)
    assert second.dtype == np.int32


def test_restored_result_is_known_and_its_pixels_are_the_users(
    napari: Callable[..., Napari], bar: Callable[[Napari], UnsavedBar], qtbot: QtBot
) -> None:
    one = napari()
    stack = one.viewer.add_image(image(3, *SHAPE), name="stack", scale=(1, 0.5, 0.5))
    layer = one.add(stack)
    layer.paint((0, 20, 20), 1)
    layer.name = "mine"
    one.end()
    two = napari()
    other = two.viewer.add_image(image(3, *SHAPE) + 1, name="stack")
    again = two.viewer.add_image(image(3, *SHAPE), name="stack again", scale=(1, 2, 2))
    two.viewer.dims.set_current_step(0, 0)
    widget = bar(two)
    restore(widget, qtbot)
    restored = two.viewer.layers["mine"]
    assert_array_equal(restored.data, layer.data)
    assert two.results.image(restored) is again
    assert two.results.image(restored) is not other
    assert_allclose(restored.scale, (1, 2, 2))
    assert restored.metadata == layer.metadata
    assert restored.opacity == layer.opacity
    assert_array_equal(restored.colormap.map(np.arange(3)), layer.colormap.map(np.arange(3)))
    before = restored.data.copy()
    two.results.set_threshold(restored, 0.9)
    assert_array_equal(restored.data, before)
    assert two.add(again) is not restored  # its plane is not overwritten
    two.viewer.dims.set_current_step(0, 1)
    two.viewer.layers.selection.active = restored
    newer = two.add(again)
    assert restored.data[0].tolist() == before[0].tolist()
    assert newer.data[1].any()


def test_restored_without_its_image_it_is_a_result_again_once_that_is_open(
    napari: Callable[..., Napari], bar: Callable[[Napari], UnsavedBar], qtbot: QtBot
) -> None:
    one = napari()
    layer = one.add(one.viewer.add_image(image(), name="slide", translate=(3, 4)))
    layer.paint((20, 20), 1)
    one.end()
    two = napari()
    two.viewer.add_image(image(80, 80), name="slide")
    widget = bar(two)
    restore(widget, qtbot)
    assert "Its image 'slide' is not open" in widget.message.text()
    restored = two.viewer.layers["nucleus"]
    assert two.results.identity(restored) is None
    assert_allclose(restored.translate, (3, 4))
    restored.paint((60, 60), 1)
    two.end()
    three = napari()
    slide = three.viewer.add_image(image(), name="slide")
    restore(bar(three), qtbot)
    again = three.viewer.layers["nucleus"]
    assert_array_equal(again.data, restored.data)
    assert three.results.image(again) is slide
    assert three.results.words(again) == ("nucleus",)


def test_restored_objects_keep_their_table_and_new_ones_get_other_ids(
    napari: Callable[..., Napari], bar: Callable[[Napari], UnsavedBar], qtbot: QtBot
) -> None:
    one = napari()
    layer = one.add(one.viewer.add_image(image(2, *SHAPE), name="stack"), objects=True)
    rows = len(layer.features)
    layer.paint((0, 20, 20), 900)
    one.end()
    two = napari()
    stack = two.viewer.add_image(image(2, *SHAPE), name="stack")
    two.viewer.dims.set_current_step(0, 0)
    restore(bar(two), qtbot)
    restored = two.viewer.layers["nucleus"]
    assert_array_equal(restored.data, layer.data)
    assert restored.features.columns.tolist() == layer.features.columns.tolist()
    assert restored.features["index"].tolist() == layer.features["index"].tolist()
    assert set(restored.features["class"]) == {"nucleus"}
    two.viewer.dims.set_current_step(0, 1)
    assert two.add(stack, objects=True) is restored
    assert restored.data[1][restored.data[1] > 0].min() > 900
    assert len(restored.features) == 2 * rows
    assert_array_equal(restored.data[0], layer.data[0])


def test_discard_asks_once_and_removes(
    napari: Callable[..., Napari], bar: Callable[[Napari], UnsavedBar], unsaved_folder: Path
) -> None:
    one = napari()
    for value in (1, 2):
        layer = one.add(one.viewer.add_image(image() + value))
        layer.paint((20, 20), value)
    one.end()
    two = napari()
    widget = bar(two)
    assert len(widget.offers) == 2
    assert widget.text.text().endswith("1 more after these.")
    widget.discard_button.click()
    assert widget.text.text().startswith("Discard these corrections for good?")
    assert widget.restore_button.text() == "Keep"
    widget.restore_button.click()
    assert len(widget.offers) == 2
    assert two.viewer.layers == []
    for left in (1, 0):
        widget.discard_button.click()
        widget.discard_button.click()
        assert two.journal.flush(10)
        assert len(kept(unsaved_folder)) == len(widget.offers) == left
    assert widget.isHidden()
    two.end()
    assert list(unsaved_folder.iterdir()) == []


def test_what_was_not_decided_is_offered_again(
    napari: Callable[..., Napari], bar: Callable[[Napari], UnsavedBar], qtbot: QtBot
) -> None:
    one = napari()
    layer = one.add(one.viewer.add_image(image()))
    layer.paint((20, 20), 5)
    one.end()
    two, other = napari(), napari()
    assert len(bar(two).offers) == 1
    assert len(bar(two).offers) == 1  # also by a widget that is opened again
    assert bar(other).offers == ()  # it is offered by the first
    two.end()
    three = napari()
    widget = bar(three)
    restore(widget, qtbot)
    three.end()
    assert len(bar(napari()).offers) == 1  # restored, and still not saved


def test_unreadable_entry_is_told_and_left(
    napari: Callable[..., Napari], bar: Callable[[Napari], UnsavedBar], unsaved_folder: Path
) -> None:
    one = napari()
    layer = one.add(one.viewer.add_image(image()))
    layer.paint((20, 20), 5)
    one.end()
    (about,) = unsaved_folder.glob("*/*/about.json")
    about.write_text(about.read_text()[:-20])
    widget = bar(napari())
    assert widget.offers == ()
    assert "left where they are" in widget.message.text()
    assert about.exists()


def test_qt_thread_is_held_up_for_milliseconds_only(
    napari: Callable[..., Napari], unsaved_folder: Path
) -> None:
    """Per stroke on a plane of 4096 x 4096 pixels, while the journal writes."""
    one = napari(quiet=0.0)
    layer = one.add(one.viewer.add_image(np.zeros((4096, 4096), np.uint8)))
    layer.brush_size = 40
    seconds = []
    for step in range(30):
        value = [[np.arange(200)] * 2, None, np.uint16(1)]
        layer.data[100 + step * 9, : 200 + step] = 7
        began = time.perf_counter()
        layer.events.paint(value=[((value[0][0] + step, value[0][1]), value[1], value[2])])
        seconds.append(time.perf_counter() - began)
        time.sleep(0.01)
    assert np.median(seconds) < 0.01
    assert max(seconds) < 0.05
    assert one.journal.flush(60)
    assert_array_equal(kept(unsaved_folder)[0], layer.data)
    assert list(dead_sessions(unsaved_folder)) == []
