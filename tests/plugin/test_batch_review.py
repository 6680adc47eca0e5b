"""Reviewing the files of a batch, over a server that says what a backend would (see its file)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from imageio.v3 import imread
from napari import Viewer
from napari.components import ViewerModel
from napari.layers import Image, Labels
from napari.plugins import _initialize_plugins
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QWidget

from canvas_mouse import drag
from clsclip.errors import BusyError
from clsclip.wire_batch import BatchFile
from napari_clsclip._batch_files import NAME
from napari_clsclip._batch_tab import BatchTab
from napari_clsclip._connection import BackendConnection
from napari_clsclip._unsaved_layers import unsaved_corrections
from napari_clsclip._widget import ClsClipWidget
from often_asked import often_asked
from stub_batches import SHAPE, BatchStub, batch, write_pair
from ticking import Ticks

MILLISECONDS = 30_000
NAME_OF_BATCH = "nucleus-1"

Open = Callable[..., BatchTab]


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[BatchStub]:
    """A batch that is over: four labelled files, one that has failed."""
    server = BatchStub()
    files = [write_pair(tmp_path, f"cell {number}", number) for number in range(4)]
    failed = BatchFile(number=4, file="/gone.png", status="failed", error="truncated")
    server.files[NAME_OF_BATCH] = [*files, failed]
    server.batches = [batch(state="done", files=5, done=4, failed=1)]
    yield server
    server.stop()


@pytest.fixture
def connection(
    stub: BatchStub, monkeypatch: pytest.MonkeyPatch, qapp: object
) -> Iterator[BackendConnection]:
    yield from often_asked(stub.url, monkeypatch)


@pytest.fixture
def open_tab(connection: BackendConnection, qtbot: QtBot) -> Iterator[Open]:
    """Show the tab once the table is filled; without a viewer in a window of its own."""
    _initialize_plugins()  # so that a viewer without window can open files
    alive: list[QWidget] = []

    def make(viewer: Viewer | ViewerModel) -> BatchTab:
        if isinstance(viewer, Viewer):
            _, widget = viewer.window.add_plugin_dock_widget("napari-clsclip", "ClsCLIP")
        else:
            widget = ClsClipWidget(viewer)
            alive.append(widget)
            qtbot.addWidget(widget)
            widget.show()
        widget.tabs.setCurrentWidget(widget.batch_tab)
        tab: BatchTab = widget.batch_tab
        wait(qtbot, lambda: tab.files.model.file(0) is not None)
        return tab

    yield make
    alive.clear()


def wait(qtbot: QtBot, condition: Callable[[], object]) -> None:
    qtbot.waitUntil(lambda: bool(condition()), timeout=MILLISECONDS)


def click(tab: BatchTab, row: int) -> None:
    tab.files.table.clicked.emit(tab.files.model.index(row, NAME))


def is_open(tab: BatchTab, number: int) -> bool:
    file = tab.review.file
    return file is not None and file.number == number and not tab.review.busy


def open_row(tab: BatchTab, row: int, qtbot: QtBot) -> Labels:
    click(tab, row)
    wait(qtbot, lambda: is_open(tab, row))
    layer = tab.review.labels
    assert layer is not None
    return layer


def paint(layer: Labels, row: int = 5) -> None:
    """Change some pixels as the brush does."""
    layer.data_setitem((np.full(9, row), np.arange(9)), np.full(9, 2))


def test_review_in_a_window_with_mouse_and_keys(
    make_napari_viewer: Callable[..., Viewer], open_tab: Open, stub: BatchStub, qtbot: QtBot
) -> None:
    viewer = make_napari_viewer(show=True)
    own = viewer.add_image(np.zeros((30, 20)), name="own")
    tab = open_tab(viewer)
    canvas = viewer.window._qt_viewer.canvas.native
    keymap = dict(viewer.keymap)
    tab.files.table.setCurrentIndex(tab.files.model.index(1, NAME))
    qtbot.keyClick(tab.files.table, Qt.Key.Key_Return)
    wait(qtbot, lambda: is_open(tab, 1))
    layer = tab.review.labels
    assert [each.name for each in viewer.layers] == ["own", "cell 1", "nucleus, cell"]
    assert viewer.layers.selection.active is layer
    np.testing.assert_array_equal(layer.data, tifffile.imread(stub.files[NAME_OF_BATCH][1].labels))
    assert list(layer.features["class"]) == ["nucleus", "cell"]
    np.testing.assert_allclose(layer.colormap.map(1)[:3], [0x1D / 255, 0xF2 / 255, 0x6A / 255])
    assert "not accepted yet" in tab.review_row.title.text()
    assert set(viewer.keymap) - set(keymap)

    layer.mode, layer.brush_size, layer.selected_label = "paint", 5, 2
    drag(viewer, qtbot, [(25, 50), (25, 70)])
    assert layer.data[25, 60] == 2
    qtbot.keyClick(canvas, Qt.Key.Key_A)
    wait(qtbot, lambda: stub.reviews and not tab.review.busy)
    name, number, labels = stub.reviews[0]
    assert (name, number) == (NAME_OF_BATCH, 1)
    np.testing.assert_array_equal(labels, layer.data)
    wait(qtbot, lambda: tab.files.model.index(1, 2).data() == "corrected")
    assert tab.review_row.title.text() == "cell 1.png: corrected"

    qtbot.keyClick(canvas, Qt.Key.Key_U)  # the least certain one
    wait(qtbot, lambda: is_open(tab, 3))
    assert [each.name for each in viewer.layers] == ["own", "cell 3", "nucleus, cell"]
    assert (tab.review.labels.mode, tab.review.labels.brush_size) == ("paint", 5)
    wait(qtbot, lambda: tab.files.table.currentIndex().row() == 3)
    qtbot.keyClick(canvas, Qt.Key.Key_A)
    wait(qtbot, lambda: len(stub.reviews) == 2 and not tab.review.busy)
    assert stub.reviews[1][1:] == (3, None)  # nothing was changed
    qtbot.keyClick(canvas, Qt.Key.Key_N, Qt.KeyboardModifier.ShiftModifier)
    wait(qtbot, lambda: is_open(tab, 2))
    qtbot.keyClick(tab.files.table, Qt.Key.Key_N)  # also while the table has the focus
    wait(qtbot, lambda: is_open(tab, 3))
    tab.review_row.next_button.click()
    wait(qtbot, lambda: "no further file" in tab.message.text())
    assert is_open(tab, 3)
    tab.review_row.withdraw_button.click()
    wait(qtbot, lambda: not tab.review.file.accepted)
    assert not stub.files[NAME_OF_BATCH][3].accepted
    assert own in viewer.layers
    viewer.layers.remove(tab.review.labels)
    assert tab.review.file is None
    assert dict(viewer.keymap) == keymap


def test_the_next_file_is_shown_in_the_same_layers(
    make_napari_viewer: Callable[..., Viewer], open_tab: Open, stub: BatchStub, qtbot: QtBot
) -> None:
    viewer = make_napari_viewer(show=True)
    tab = open_tab(viewer)
    unsaved = unsaved_corrections(viewer)
    layer = open_row(tab, 0, qtbot)
    image = viewer.layers["cell 0"]
    image.colormap, layer.opacity, layer.mode = "magma", 0.3, "paint"
    layer.show_selected_label = True
    paint(layer)
    tab.review.accept()
    wait(qtbot, lambda: stub.reviews and not tab.review.busy)
    ticks = Ticks()
    ticks.start()
    for number in (1, 2, 3):
        assert open_row(tab, number, qtbot) is layer
        assert list(viewer.layers) == [image, layer]
        file = stub.files[NAME_OF_BATCH][number]
        np.testing.assert_array_equal(image.data, imread(file.file))
        np.testing.assert_array_equal(layer.data, tifffile.imread(file.labels))
        layer.undo()  # what was painted on the file before is none of this one's past
        np.testing.assert_array_equal(layer.data, tifffile.imread(file.labels))
        assert (image.name, image.source.path) == (f"cell {number}", file.file)
        assert layer.metadata["clsclip"]["image"] == f"cell {number}.png"
        assert not layer.show_selected_label
    ticks.stop()
    assert (image.colormap.name, layer.opacity, layer.mode) == ("magma", 0.3, "paint")
    assert ticks.work.max() < 0.25  # adding and removing layers takes napari several times that
    assert not unsaved._watched[layer].begun
    paint(layer, row=9)
    click(tab, 1)
    wait(qtbot, lambda: tab.review.asking)
    assert unsaved._watched[layer].begun


def test_planes_accepted_in_the_learn_tab_are_each_of_their_own_file(
    make_napari_viewer: Callable[..., Viewer], open_tab: Open, stub: BatchStub, qtbot: QtBot
) -> None:
    viewer = make_napari_viewer(show=True)
    tab = open_tab(viewer)
    widget = tab.window().findChild(ClsClipWidget)
    widget.segment_tab.words.setText("nucleus, cell")
    row = widget.learn_tab.accept_row
    for number in (0, 1):
        layer = open_row(tab, number, qtbot)
        viewer.layers.selection.active = layer
        row.accept()
        wait(qtbot, lambda number=number: len(stub.kept) == number + 1 and not row.busy)
        np.testing.assert_array_equal(stub.kept[number].labels, layer.data)
    assert "version 1" in row.message.text()


def test_an_exchange_that_fails_leaves_nothing_mixed_up(
    open_tab: Open, stub: BatchStub, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer = ViewerModel()
    tab = open_tab(viewer)
    layer = open_row(tab, 0, qtbot)

    def fail(_: object) -> None:
        raise ValueError("a listener of somebody else")

    viewer.layers["cell 0"].events.data.connect(fail)
    with qtbot.captureExceptions() as raised:
        click(tab, 1)
        wait(qtbot, lambda: raised)
    assert not viewer.layers
    assert (tab.review.file, tab.review.labels) == (None, None)
    assert open_row(tab, 1, qtbot) is not layer
    np.testing.assert_array_equal(
        tab.review.labels.data, tifffile.imread(stub.files[NAME_OF_BATCH][1].labels)
    )


@pytest.mark.parametrize("reason", ["drawn boxes", "work under way", "labels of another dtype"])
def test_there_are_new_layers_where_the_old_ones_have_a_past(
    open_tab: Open, stub: BatchStub, qtbot: QtBot, reason: str
) -> None:
    viewer = ViewerModel()
    viewer.add_points([(1, 1)])
    tab = open_tab(viewer)
    file = stub.files[NAME_OF_BATCH][1]
    layer = open_row(tab, 0, qtbot)
    if reason == "drawn boxes":
        viewer.add_shapes([[(1, 1), (9, 9)]])
    elif reason == "work under way":
        tab.review.image_in_use = lambda: True
    else:
        tifffile.imwrite(file.labels, tifffile.imread(file.labels).astype(np.uint32))
    other = open_row(tab, 1, qtbot)
    assert other is not layer
    assert layer not in viewer.layers
    np.testing.assert_array_equal(other.data, tifffile.imread(file.labels))


def test_changes_are_never_given_up_without_a_question(
    open_tab: Open, stub: BatchStub, qtbot: QtBot
) -> None:
    viewer = ViewerModel()
    tab = open_tab(viewer)
    row = tab.review_row
    layer = open_row(tab, 0, qtbot)
    paint(layer)
    changed = layer.data.copy()
    click(tab, 2)
    wait(qtbot, lambda: tab.review.asking)
    assert row.question.text() == "You have changed cell 0.png and not accepted it."
    row.stay_button.click()
    assert tab.review.labels is layer
    assert not tab.review.asking

    stub.refusal = BusyError("The disk is full.")
    click(tab, 2)
    wait(qtbot, lambda: tab.review.asking)
    row.accept_first_button.click()
    wait(qtbot, lambda: "The disk is full. Nothing is lost" in tab.message.text())
    np.testing.assert_array_equal(tab.review.labels.data, changed)
    stub.refusal = None
    click(tab, 2)
    wait(qtbot, lambda: tab.review.asking)
    row.accept_first_button.click()
    wait(qtbot, lambda: is_open(tab, 2))
    np.testing.assert_array_equal(stub.reviews[-1][2], changed)

    layer = tab.review.labels
    paint(layer)
    layer.undo()  # pixels that are as they were are no question
    layer = open_row(tab, 0, qtbot)
    np.testing.assert_array_equal(layer.data, changed)
    paint(layer, row=7)
    click(tab, 2)
    wait(qtbot, lambda: tab.review.asking)
    row.discard_button.click()
    wait(qtbot, lambda: is_open(tab, 2))
    assert len(stub.reviews) == 1
    np.testing.assert_array_equal(open_row(tab, 0, qtbot).data, changed)


def test_what_is_painted_while_it_is_accepted_is_asked_about(
    open_tab: Open, stub: BatchStub, qtbot: QtBot
) -> None:
    tab = open_tab(ViewerModel())
    layer = open_row(tab, 0, qtbot)
    paint(layer)
    stub.gate.clear()
    tab.review.accept()
    wait(qtbot, lambda: stub.count("PUT") == 1)
    sent = layer.data.copy()
    paint(layer, row=7)
    painted = layer.data.copy()
    click(tab, 2)  # waits until it is accepted
    stub.gate.set()
    wait(qtbot, lambda: tab.review.asking)
    np.testing.assert_array_equal(stub.reviews[0][2], sent)
    tab.review_row.accept_first_button.click()
    wait(qtbot, lambda: is_open(tab, 2))
    np.testing.assert_array_equal(stub.reviews[1][2], painted)


def test_corrected_planes_are_offered_as_examples(
    open_tab: Open, stub: BatchStub, tmp_path: Path, qtbot: QtBot
) -> None:
    stack, labels = tmp_path / "stack.tif", tmp_path / "labels" / "stack.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (3, *SHAPE), dtype=np.uint8)
    tifffile.imwrite(stack, pixels, photometric="minisblack")
    tifffile.imwrite(labels, np.zeros(pixels.shape, np.uint16), photometric="minisblack")
    stub.files[NAME_OF_BATCH][1] = stub.files[NAME_OF_BATCH][1].model_copy(
        update={"file": str(stack), "labels": str(labels)}
    )
    tab = open_tab(ViewerModel())
    layer = open_row(tab, 1, qtbot)
    tab.review_row.teach.setChecked(True)
    tab.review.accept()  # nothing was corrected: there is nothing to learn
    wait(qtbot, lambda: tab.review.file.accepted and not tab.review.busy)
    layer.data_setitem((np.full(5, 2), np.full(5, 4), np.arange(5)), np.full(5, 1))
    stub.change(NAME_OF_BATCH)
    tab.review.accept()
    wait(qtbot, lambda: stub.kept and not tab.review.teaching.busy)
    (kept,) = stub.kept
    np.testing.assert_array_equal(kept.image, pixels[2])
    np.testing.assert_array_equal(kept.labels, layer.data[2])
    assert kept.words == ("nucleus", "cell")
    assert kept.vouched is not None
    assert kept.vouched.all()
    assert kept.details.position == (2,)
    np.testing.assert_array_equal(stub.reviews[1][2], layer.data)

    stub.full = True
    layer.data_setitem((np.zeros(5, int), np.full(5, 4), np.arange(5)), np.full(5, 2))
    tab.review.accept()
    wait(qtbot, lambda: "were not kept as an example" in tab.message.text())
    assert len(stub.reviews) == 3
    stub.full = False
    layer.data_setitem((np.ones(5, int), np.full(5, 4), np.arange(5)), np.full(5, 2))
    tab.review.accept()
    wait(qtbot, lambda: len(stub.kept) == 3)  # what was refused is offered again
    assert {each.details.position for each in stub.kept} == {(0,), (1,), (2,)}


def test_labels_of_some_channels_are_no_examples_of_all_of_them(
    open_tab: Open, stub: BatchStub, qtbot: QtBot
) -> None:
    request = stub.batches[0].request.model_copy(update={"channels": "1"})
    stub.change(NAME_OF_BATCH, request=request)
    tab = open_tab(ViewerModel())
    layer = open_row(tab, 0, qtbot)
    tab.review_row.teach.setChecked(True)
    layer.data_setitem((np.full(9, 5), np.arange(9)), np.full(9, 1))
    tab.review.accept()
    wait(qtbot, lambda: "they are of the channels 1" in tab.message.text())
    wait(qtbot, lambda: tab.review.file.accepted)
    np.testing.assert_array_equal(stub.reviews[0][2], layer.data)
    assert stub.kept == []


def test_single_objects_have_their_table_and_may_be_many(
    open_tab: Open, stub: BatchStub, tmp_path: Path, qtbot: QtBot
) -> None:
    request = stub.batches[0].request.model_copy(update={"instances": True, "words": ("cell",)})
    stub.change(NAME_OF_BATCH, request=request)
    (tmp_path / "labels" / "cell 0.features.csv").write_text(
        "label,area,mean_probability,class\n1,200,0.9,cell\n2,400,0.8,cell\n"
    )
    tab = open_tab(ViewerModel())
    layer = open_row(tab, 0, qtbot)
    assert list(layer.features["index"]) == [1, 2]
    assert list(layer.features["class"]) == ["cell", "cell"]
    assert list(layer.features["area"]) == [200.0, 400.0]
    assert layer.data.dtype == np.int32
    tab.review_row.teach.setChecked(True)
    layer.data_setitem((np.full(9, 5), np.arange(9)), np.full(9, 70_000))
    tab.review.accept()
    wait(qtbot, lambda: stub.kept)
    np.testing.assert_array_equal(stub.reviews[0][2], layer.data)
    np.testing.assert_array_equal(stub.kept[0].labels, layer.data > 0)


def test_what_cannot_be_opened_is_told_and_what_was_open_stays(
    open_tab: Open, stub: BatchStub, tmp_path: Path, qtbot: QtBot
) -> None:
    tab = open_tab(ViewerModel())
    layer = open_row(tab, 0, qtbot)
    click(tab, 4)
    assert tab.message.text() == "'/gone.png' failed: truncated"
    files = stub.files[NAME_OF_BATCH]
    Path(files[1].file).unlink()
    Path(files[2].labels).write_bytes(b"no TIFF")
    odd = tmp_path / "cell.odd"
    odd.write_text("no image")
    files[3] = files[3].model_copy(update={"file": str(odd)})
    tab.files.model.replace(NAME_OF_BATCH, files[3])
    for row, said in ((1, "cannot be seen from this machine"), (2, "cannot be read"),
                      (3, "cannot be opened")):  # fmt: skip
        click(tab, row)
        wait(qtbot, lambda said=said: said in tab.message.text())
        assert tab.review.labels is layer
        assert layer in tab.review._viewer.layers
    assert [type(each) for each in tab.review._viewer.layers] == [Image, Labels]


def test_labels_that_are_too_large_to_be_corrected_can_be_accepted(
    open_tab: Open, stub: BatchStub, tmp_path: Path, qtbot: QtBot
) -> None:
    folder, files = tmp_path / "labels" / "cell 1.zarr", stub.files[NAME_OF_BATCH]
    array = zarr.create_array(str(folder), shape=SHAPE, chunks=(32, 32), dtype="uint32")
    array[10:20, 10:20] = 1
    files[1] = files[1].model_copy(update={"labels": str(folder)})
    tab = open_tab(ViewerModel())
    layer = open_row(tab, 1, qtbot)
    assert "too large to be corrected" in tab.message.text()
    assert not layer.editable
    assert int(np.asarray(layer.data[15, 15])) == 1
    assert tab.review_row.teach.isHidden()
    tab.review.accept()
    wait(qtbot, lambda: stub.reviews and not tab.review.busy)
    assert stub.reviews == [(NAME_OF_BATCH, 1, None)]
    open_row(tab, 0, qtbot)
    assert layer not in tab.review._viewer.layers


def test_unaccepted_changes_survive_the_end_of_napari(
    open_tab: Open, stub: BatchStub, qtbot: QtBot
) -> None:
    viewer = ViewerModel()
    tab = open_tab(viewer)
    unsaved = unsaved_corrections(viewer)
    layer = open_row(tab, 0, qtbot)
    paint(layer)
    assert unsaved.journal.flush(30)
    entry = unsaved._watched[layer].entry
    folder = entry.folder
    assert folder is not None
    kept = folder.read_about()
    assert kept is not None
    restored, _, lost = folder.read(kept)
    np.testing.assert_array_equal(restored, layer.data)
    assert (lost, kept.image.name) == (0, "cell 0")
    tab.review.accept()
    wait(qtbot, lambda: stub.reviews and not tab.review.busy)
    wait(qtbot, lambda: not folder.path.exists())  # the backend has it now
