"""The dock widget in real napari windows, without a backend; see end_to_end for the rest."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import dask.array
import numpy as np
import pytest
from napari import Viewer
from napari.utils.notifications import notification_manager
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt

from clsclip.config import DEFAULT_MODEL, DEFAULT_THRESHOLD, SegmentSettings
from clsclip.errors import CancelledError
from clsclip.segmentation import Segmentation
from clsclip.wire import ModelInfo
from napari_clsclip import _connection, _widget
from napari_clsclip._connection import BackendConnection, shared_connection
from napari_clsclip._layers import displayed_plane
from napari_clsclip._supervisor import BackendState, BackendStatus, RemoteAddress
from napari_clsclip._widget import BackendStatusLine, ClsClipWidget

MODELS = (
    ModelInfo(name="mini", description="The bundled model.", available=True),
    ModelInfo(name="big", description="Better.", available=False, reason="Not downloaded."),
)


@pytest.fixture
def nowhere() -> str:
    """URL at which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def offline(
    nowhere: str, monkeypatch: pytest.MonkeyPatch, qapp: Any
) -> Iterator[BackendConnection]:
    """The shared connection is one to a backend that is not there."""
    connection = BackendConnection(RemoteAddress(nowhere, "token"))
    monkeypatch.setattr(_widget, "shared_connection", lambda: connection)
    yield connection
    connection.stop()


@pytest.fixture
def dock(make_napari_viewer: Callable[..., Viewer], offline: Any) -> Callable[..., Any]:
    """Make a viewer with images and the docked widget."""

    def make(*images: np.ndarray) -> tuple[Viewer, ClsClipWidget]:
        viewer = make_napari_viewer()
        for number, image in enumerate(images):
            viewer.add_image(image, name=f"image {number}")
        _, widget = viewer.window.add_plugin_dock_widget("napari-clsclip", "ClsCLIP")
        return viewer, widget

    return make


@pytest.fixture(autouse=True)
def _forget_notifications() -> Iterator[None]:
    notification_manager.records.clear()
    yield
    notification_manager.records.clear()


def notified() -> list[str]:
    return [record.message for record in notification_manager.records]


def image(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, shape or (20, 30), dtype=np.uint8)


def predicted(shape: tuple[int, int]) -> Segmentation:
    values = np.linspace(0, 255, shape[0] * shape[1]).astype(np.uint8).reshape(1, *shape)
    return Segmentation(values, ("nucleus",), "mini", "v1", (1.0,), 0.1)


def test_form_begins_with_the_defaults(dock: Callable) -> None:
    _, widget = dock(image())
    tab = widget.segment_tab
    assert tab.model.currentText() == DEFAULT_MODEL
    assert tab.threshold.value() == pytest.approx(DEFAULT_THRESHOLD)
    assert tab.zoom.text() == "automatic"
    assert tab.words.placeholderText() == "nucleus, cell"
    assert tab.segment_button.isEnabled()
    assert not tab.cancel_button.isEnabled()
    assert [widget.tabs.tabText(i) for i in range(widget.tabs.count())] == [
        "Segment", "Learn", "Batch",
    ]  # fmt: skip


def test_help_texts_are_those_of_the_settings(dock: Callable) -> None:
    tab = dock(image())[1].segment_tab
    assert tab.model.toolTip() == SegmentSettings.model_fields["model"].description
    assert tab.zoom.toolTip() == SegmentSettings.model_fields["zoom"].description


def test_without_an_image_the_message_names_the_way_out(dock: Callable) -> None:
    _, widget = dock()
    widget.segment_tab.words.setText("nucleus")
    widget.segment_tab.segment_button.click()
    assert "Open Sample" in widget.segment_tab.message.text()
    assert notified() == [widget.segment_tab.message.text()]
    assert not widget.segment_tab.busy


@pytest.mark.parametrize("words", ["", " , ,"])
def test_without_a_word_the_message_names_the_way_out(dock: Callable, words: str) -> None:
    viewer, widget = dock(image())
    widget.segment_tab.words.setText(words)
    widget.segment_tab.segment_button.click()
    assert "Type what to segment" in widget.segment_tab.message.text()
    assert not widget.segment_tab.busy
    assert len(viewer.layers) == 1


def test_in_3d_display_the_message_names_the_way_out(dock: Callable) -> None:
    viewer, widget = dock(image(4, 20, 30))
    viewer.dims.ndisplay = 3
    widget.segment_tab.words.setText("nucleus")
    widget.segment_tab.segment_button.click()
    assert "Switch to 2D display" in widget.segment_tab.message.text()


def test_enter_in_the_words_is_the_button(dock: Callable, qtbot: QtBot, nowhere: str) -> None:
    tab = dock(image())[1].segment_tab
    qtbot.keyClicks(tab.words, "nucleus")
    qtbot.keyClick(tab.words, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: nowhere in tab.message.text(), timeout=20_000)


def test_offline_backend_is_shown_and_named_in_the_message(
    dock: Callable, qtbot: QtBot, nowhere: str
) -> None:
    viewer, widget = dock(image())
    line, tab = widget.status_line, widget.segment_tab
    qtbot.waitUntil(lambda: not line.restart_button.isHidden(), timeout=20_000)
    assert "No backend answers" in line.text.text()
    assert nowhere in line.text.text()
    tab.words.setText("nucleus")
    tab.segment_button.click()
    qtbot.waitUntil(lambda: not tab.busy, timeout=20_000)
    assert nowhere in tab.message.text()
    assert tab.segment_button.isEnabled()
    assert len(viewer.layers) == 1


def test_cancel_while_the_backend_is_awaited(
    dock: Callable, offline: BackendConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    def wait_forever(cancelled: Callable[[], bool]) -> None:
        while not cancelled():
            time.sleep(0.01)
        released.set()
        raise CancelledError("Cancelled.")

    monkeypatch.setattr(offline.supervisor, "ready_client", wait_forever)
    tab = dock(image())[1].segment_tab
    tab.words.setText("nucleus")
    tab.segment_button.click()
    assert tab.busy
    assert not tab.segment_button.isEnabled()
    tab.cancel_button.click()
    assert not tab.busy
    assert tab.message.text() == "Cancelled."
    assert notified() == []
    assert released.wait(10.0)


def test_lazy_image_that_cannot_be_read_is_told(dock: Callable, qtbot: QtBot) -> None:
    def load(block_info: dict | None = None) -> np.ndarray:
        if block_info[None]["chunk-location"][0] == 1:
            raise OSError("the file has gone")
        return image(1, 20, 30)

    stack = dask.array.map_blocks(
        load, chunks=((1, 1), (20,), (30,)), dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8)
    )
    viewer, widget = dock(stack[:1])
    viewer.layers[0]._data = stack[1:]  # napari itself has read the plane that it shows
    widget.segment_tab.words.setText("nucleus")
    widget.segment_tab.segment_button.click()
    qtbot.waitUntil(lambda: not widget.segment_tab.busy, timeout=20_000)
    assert "could not be read (OSError: the file has gone)" in widget.segment_tab.message.text()


def test_images_are_offered_as_they_come_and_go(dock: Callable) -> None:
    viewer, widget = dock(image(), image())
    tab = widget.segment_tab
    first, second = viewer.layers
    assert tab.image.choices == (first, second)
    viewer.add_labels(np.zeros((20, 30), int))
    third = viewer.add_image(image(), name="third")
    assert tab.image.choices == (first, second, third)
    assert tab.image.value is third
    viewer.layers.selection.active = first
    assert tab.image.value is first
    viewer.layers.remove(first)
    assert tab.image.choices == (second, third)
    second.name = "renamed"
    assert tab.image.current_choice == "renamed"


def test_models_are_offered_and_typed_text_stays(dock: Callable) -> None:
    tab = dock(image())[1].segment_tab
    tab.model.setCurrentText("runs/mine")
    status = BackendStatus(BackendState.READY, "Ready", models=MODELS)
    for _ in range(2):
        tab.model.offer(status)
        assert [tab.model.itemText(row) for row in range(tab.model.count())] == ["mini", "big"]
    assert tab.model.currentText() == "runs/mine"
    assert tab.model.itemData(0, Qt.ItemDataRole.ToolTipRole) == "The bundled model."
    assert tab.model.itemData(1, Qt.ItemDataRole.ToolTipRole) == "Not downloaded."


def test_earlier_words_are_offered_after_each_comma(dock: Callable) -> None:
    words = dock(image())[1].segment_tab.words
    words.remember(("nucleus", "cell wall"))
    words.remember(("cell",))
    completer = words.completer()
    words.setText("membrane,ce")
    completer.setCompletionPrefix(completer.splitPath(words.text())[0])
    offered = []
    while completer.setCurrentRow(len(offered)):
        offered.append(completer.pathFromIndex(completer.currentIndex()))
    assert offered == ["membrane, cell", "membrane, cell wall"]


def test_slider_changes_the_result_and_shows_the_threshold_of_the_active_one(
    dock: Callable, qtbot: QtBot
) -> None:
    viewer, widget = dock(image())
    tab = widget.segment_tab
    results = tab.results
    plane = displayed_plane(viewer.layers[0], viewer.dims)
    first = results.add(viewer.layers[0], plane, predicted((20, 30)), 0.5)
    first.paint((10, 10), 3)
    second = results.add(viewer.layers[0], plane, predicted((20, 30)), 0.5)
    tab.threshold.setValue(0.9)
    assert second.data.sum() == predicted((20, 30)).labels(0.9).sum()
    assert (first.data == 1).sum() > (second.data == 1).sum()
    viewer.layers.selection.active = first
    assert tab.threshold.value() == pytest.approx(0.5)
    viewer.layers.selection.active = second
    assert tab.threshold.value() == pytest.approx(0.9)


def test_slider_without_a_result_does_nothing(dock: Callable) -> None:
    viewer, widget = dock(image())
    labels = viewer.add_labels(np.ones((20, 30), int))
    widget.segment_tab.threshold.setValue(0.9)
    assert (labels.data == 1).all()


def test_slider_brings_all_planes_of_a_stack_up_to_date(dock: Callable, qtbot: QtBot) -> None:
    viewer, widget = dock(image(4, 20, 30))
    tab, stack = widget.segment_tab, viewer.layers[0]
    for z in (0, 1, 3):
        viewer.dims.set_current_step(0, z)
        layer = tab.results.add(
            stack, displayed_plane(stack, viewer.dims), predicted((20, 30)), 0.5
        )
    tab.threshold.setValue(0.8)
    expected = predicted((20, 30)).labels(0.8)
    assert (layer.data[3] == expected).all()
    qtbot.waitUntil(lambda: tab.selected.settled, timeout=5_000)
    for z in (0, 1, 3):
        assert (layer.data[z] == expected).all()
    assert not layer.data[2].any()


@pytest.mark.parametrize("state", list(BackendState))
def test_status_line_shows_every_state(
    offline: BackendConnection, qtbot: QtBot, state: BackendState
) -> None:
    line = BackendStatusLine(offline)
    qtbot.addWidget(line)
    line.show_status(BackendStatus(state, "What it does", details="<log>\nsecond"))
    assert line.text.text() == "What it does"
    assert "&lt;log&gt;\nsecond" in line.text.toolTip()
    assert line.restart_button.isHidden() == (state is not BackendState.OFFLINE)
    assert _widget._DOT_COLORS[state] in line.dot.styleSheet()


def test_environment_chooses_a_remote_backend(
    monkeypatch: pytest.MonkeyPatch, nowhere: str, qtbot: QtBot
) -> None:
    monkeypatch.setenv("NAPARI_CLSCLIP_URL", nowhere)
    monkeypatch.setenv("NAPARI_CLSCLIP_TOKEN", "secret")
    monkeypatch.setattr(_connection.atexit, "register", lambda _: None)
    connection = shared_connection.__wrapped__()
    assert not connection.supervisor.local
    connection.start()
    try:
        qtbot.waitUntil(lambda: connection.status.state is BackendState.OFFLINE, timeout=20_000)
        assert nowhere in connection.status.message
    finally:
        connection.stop()


def test_dock_can_be_closed_and_the_viewer_used_on(dock: Callable, qtbot: QtBot) -> None:
    viewer, widget = dock(image())
    viewer.window.remove_dock_widget(widget)
    del widget
    qtbot.wait(50)
    viewer.add_image(image())
    viewer.layers.selection.active = viewer.layers[0]
    assert len(viewer.layers) == 2
