"""Undo in a real window: the slider dragged with the mouse, Ctrl+Z pressed on the canvas."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from napari.layers import Labels
from numpy.testing import assert_array_equal
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QPoint, Qt

from clsclip.config import InstanceSettings
from clsclip.segmentation import Segmentation
from napari_clsclip import _widget
from napari_clsclip._connection import BackendConnection
from napari_clsclip._layers import displayed_plane
from napari_clsclip._predicted_objects import PredictedObjects, find_objects
from napari_clsclip._segment_tab import SegmentTab
from napari_clsclip._supervisor import RemoteAddress

SHAPE = (3, 120, 160)
SETTINGS = InstanceSettings(instances=True, min_area=4, min_certainty=0.0)

Opened = tuple[Any, SegmentTab, Labels]


def predicted(z: int) -> Segmentation:
    rows, columns = np.ogrid[: SHAPE[1], : SHAPE[2]]
    values = (127 + 128 * np.sin((rows + 9 * z) / 13) * np.cos(columns / 11)).astype(np.uint8)
    return Segmentation(values[None], ("nucleus",), "mini", "v1", (1.0,), 0.1)


@pytest.fixture(params=[False, True], ids=["classes", "objects"])
def opened(
    request: pytest.FixtureRequest,
    make_napari_viewer: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    qtbot: QtBot,
) -> Iterator[Opened]:
    """A window with a stack of three predicted planes; its backend is not there."""
    connection = BackendConnection(RemoteAddress("http://127.0.0.1:1", "none"))
    monkeypatch.setattr(_widget, "shared_connection", lambda: connection)
    viewer = make_napari_viewer(show=True)
    _, widget = viewer.window.add_plugin_dock_widget("napari-clsclip", "ClsCLIP")
    tab = widget.segment_tab
    stack = viewer.add_image(np.zeros(SHAPE, np.uint8))
    tab.options.show_objects(SETTINGS)
    for z in range(3):
        viewer.dims.set_current_step(0, z)
        found = predicted(z)
        objects = None
        if request.param:
            objects = PredictedObjects.first(found, find_objects(found, 0.5, SETTINGS))
        layer = tab.results.add(stack, displayed_plane(stack, viewer.dims), found, 0.5, objects)
        if objects is not None:
            tab.selected.follow_objects(layer)
    viewer.window._qt_viewer.setFocus()
    settle(tab, qtbot)
    # Segmenting the other planes into the layer were steps; the test begins after them.
    layer._reset_history()
    yield viewer, tab, layer
    connection.stop()


def settle(tab: SegmentTab, qtbot: QtBot) -> None:
    qtbot.waitUntil(lambda: tab.selected.settled, timeout=20_000)


def drag(tab: SegmentTab, qtbot: QtBot, pixels: int) -> None:
    """Take the handle of the slider with the mouse, move it, and let go."""
    slider = tab.threshold._slider
    part = (tab.threshold.value() - slider.minimum()) / (slider.maximum() - slider.minimum())
    handle = QPoint(round(part * slider.width()), slider.height() // 2)
    qtbot.mousePress(slider, Qt.MouseButton.LeftButton, pos=handle)
    for step in range(1, 6):
        qtbot.mouseMove(slider, handle + QPoint(pixels * step // 5, 0))
        qtbot.wait(200)  # objects are found while the button is down
    qtbot.mouseRelease(slider, Qt.MouseButton.LeftButton, pos=handle + QPoint(pixels, 0))
    settle(tab, qtbot)


def press(viewer: Any, qtbot: QtBot, modifiers: Any) -> None:
    qtbot.keyClick(viewer.window._qt_viewer.canvas.native, Qt.Key.Key_Z, modifiers)


CONTROL = Qt.KeyboardModifier.ControlModifier
SHIFT = Qt.KeyboardModifier.ShiftModifier


def test_two_drags_are_two_steps_and_the_slider_goes_with_them(
    opened: Opened, qtbot: QtBot
) -> None:
    viewer, tab, layer = opened
    states = [(tab.threshold.value(), layer.data.copy())]
    for pixels in (25, -40):
        drag(tab, qtbot, pixels)
        states.append((tab.threshold.value(), layer.data.copy()))
        assert states[-1][0] != states[-2][0]
        assert (states[-1][1] != states[-2][1]).any(axis=(1, 2)).all()
    for threshold, labels in states[1::-1]:
        press(viewer, qtbot, CONTROL)
        settle(tab, qtbot)
        assert tab.threshold.value() == pytest.approx(threshold)
        assert tab.results.threshold(layer) == pytest.approx(threshold)
        assert layer.metadata["clsclip"]["threshold"] == pytest.approx(threshold)
        assert_array_equal(layer.data, labels)
    for threshold, labels in states[1:]:
        press(viewer, qtbot, CONTROL | SHIFT)
        settle(tab, qtbot)
        assert tab.threshold.value() == pytest.approx(threshold)
        assert_array_equal(layer.data, labels)


@pytest.mark.parametrize("opened", [True], ids=["objects"], indirect=True)
def test_undo_works_after_the_widget_has_gone(opened: Opened, qtbot: QtBot) -> None:
    viewer, tab, layer = opened
    before = layer.data[2].copy()
    drag(tab, qtbot, 25)
    assert (layer.data[2] != before).any()
    viewer.window.remove_dock_widget("all")
    tab.window().deleteLater()
    qtbot.wait(50)
    press(viewer, qtbot, CONTROL)
    assert_array_equal(layer.data[2], before)
