"""The button that links objects through planes, in a real window, without a backend."""

from __future__ import annotations

import threading
from collections.abc import Callable

import dask.array
import numpy as np
import pytest
from napari import Viewer
from napari.layers import Labels
from napari.utils.notifications import notification_manager
from numpy.testing import assert_allclose, assert_array_equal
from pytestqt.qtbot import QtBot
from qtpy.QtWidgets import QVBoxLayout, QWidget

from clsclip.linking import link_stack
from napari_clsclip._link_job import hidden_axes
from napari_clsclip._link_row import LinkRow


@pytest.fixture
def row(make_napari_viewer: Callable[..., Viewer]) -> tuple[Viewer, LinkRow]:
    viewer = make_napari_viewer()
    row, tab = LinkRow(viewer), QWidget()
    QVBoxLayout(tab).addWidget(row)
    viewer.window.add_dock_widget(tab)
    notification_manager.records.clear()
    return viewer, row


def drifting(*shape: int) -> np.ndarray:
    """Two objects that move by a pixel per plane and change their ids."""
    labels = np.zeros(shape, np.uint8)
    for number, position in enumerate(np.ndindex(shape[:-2])):
        step = position[-1]
        labels[position][2:8, step : step + 6] = 2 + number % 3
        labels[position][10:16, 10 : 16 + step] = 1
    return labels


def test_button_makes_a_linked_layer_and_keeps_the_old_one(row: tuple, qtbot: QtBot) -> None:
    viewer, link = row
    labels = drifting(5, 20, 30)
    layer = viewer.add_labels(
        labels, name="cells", scale=(4, 0.5, 0.5), translate=(1, 2, 3), units="um",
        axis_labels=("z", "y", "x"),
    )  # fmt: skip
    before = labels.copy()
    link.button.click()
    qtbot.waitUntil(lambda: not link.busy, timeout=10_000)
    linked = viewer.layers["cells linked"]
    assert_array_equal(layer.data, before)
    assert_array_equal(np.unique(linked.data), [0, 1, 2])
    assert (linked.data[:, 4, 5] == 2).all()  # the first plane's ids, made consecutive
    assert (linked.data[:, 12, 12] == 1).all()
    assert_allclose(linked.data_to_world((3, 4, 5)), layer.data_to_world((3, 4, 5)))
    assert linked.axis_labels == ("z", "y", "x")
    assert linked.units == layer.units
    assert notification_manager.records == []
    linked.paint((0, 1, 1), 9)  # it can be edited like any other
    assert (linked.data == 9).any()


def test_shown_only_for_label_layers_with_planes(row: tuple) -> None:
    viewer, link = row
    assert link.isHidden()
    viewer.add_labels(np.zeros((8, 8), int))
    assert link.isHidden()
    stack = viewer.add_labels(np.zeros((3, 8, 8), int))
    assert not link.isHidden()
    viewer.add_image(np.zeros((3, 8, 8)))
    assert link.isHidden()
    viewer.layers.selection.active = stack
    assert not link.isHidden()
    classes = Labels(np.zeros((3, 8, 8), int), metadata={"clsclip": {"classes": {1: "cell"}}})
    viewer.add_layer(classes)
    assert link.isHidden()


def test_overlap_is_that_of_the_form(row: tuple, qtbot: QtBot) -> None:
    viewer, link = row
    labels = drifting(4, 20, 30)
    viewer.add_labels(labels)
    link.min_overlap.setValue(0.9)
    link.button.click()
    qtbot.waitUntil(lambda: not link.busy, timeout=10_000)
    assert_array_equal(viewer.layers[-1].data, link_stack(labels, (0,), 0.9))
    assert viewer.layers[-1].data.max() > 2


def test_time_series_and_rolled_axes(row: tuple, qtbot: QtBot) -> None:
    viewer, link = row
    labels = drifting(2, 3, 20, 30)
    layer = viewer.add_labels(labels)
    viewer.dims.order = (1, 0, 2, 3)
    assert hidden_axes(layer, viewer.dims) == (0, 1)
    viewer.dims.order = (0, 3, 1, 2)
    assert hidden_axes(layer, viewer.dims) == (0, 3)
    viewer.dims.order = (0, 1, 2, 3)
    viewer.dims.ndisplay = 3
    link.button.click()
    qtbot.waitUntil(lambda: not link.busy, timeout=10_000)
    assert_array_equal(viewer.layers[-1].data, link_stack(labels, (0, 1)))


def test_cancel_stops_reading_and_changes_nothing(row: tuple, qtbot: QtBot) -> None:
    viewer, link = row
    labels, go_on, read = drifting(6, 20, 30), threading.Event(), []

    def load(block_info: dict) -> np.ndarray:
        z = block_info[None]["chunk-location"][0]
        if threading.current_thread() is not threading.main_thread():
            read.append(z)
            if z == 2:
                go_on.wait(10)
        return labels[z : z + 1]

    lazy = dask.array.map_blocks(
        load, chunks=((1,) * 6, (20,), (30,)), dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8)
    )
    layer = viewer.add_labels(lazy, name="lazy")
    read.clear()
    with dask.config.set(scheduler="synchronous"):
        link.button.click()
        qtbot.waitUntil(lambda: 2 in read, timeout=10_000)
        qtbot.waitUntil(lambda: "(3 of 6)" in link.button.text(), timeout=10_000)
        link.button.click()
        assert not link.busy
        assert link.button.text() == "Link through planes"
        go_on.set()
        qtbot.wait(200)
    assert read == [0, 1, 2]
    assert list(viewer.layers) == [layer]


def test_labels_that_cannot_be_read_are_told(row: tuple, qtbot: QtBot) -> None:
    viewer, link = row

    def load(block_info: dict) -> np.ndarray:
        if block_info[None]["chunk-location"][0] == 1:
            raise OSError("the file has gone")
        return np.zeros((1, 8, 8), np.uint8)

    lazy = dask.array.map_blocks(
        load, chunks=((1, 1), (8,), (8,)), dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8)
    )
    viewer.dims.set_current_step(0, 0)
    layer = viewer.add_labels(np.zeros((2, 8, 8), np.uint8))
    layer._data = lazy
    link.button.click()
    qtbot.waitUntil(lambda: not link.busy, timeout=10_000)
    (record,) = notification_manager.records
    assert "could not be linked (OSError: the file has gone)" in record.message
    assert len(viewer.layers) == 1
