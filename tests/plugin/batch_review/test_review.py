"""Reviewing the files of a batch, over a server that says what a backend would (see its file)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tifffile
from imageio.v3 import imread
from napari import Viewer
from napari.components import ViewerModel
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt

from canvas_mouse import drag
from clsclip.errors import BusyError
from napari_clsclip._batch_files import NAME
from napari_clsclip._unsaved_layers import unsaved_corrections
from napari_clsclip._widget import ClsClipWidget
from reviewing import NAME_OF_BATCH, Open, click, is_open, open_row, paint, wait
from stub_batches import BatchStub
from ticking import Ticks


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
