"""A model is downloaded from the window by a real backend; the hub is a local server.

See tests/stub_hub.py for what that server does. The model is a small CLIPSeg with random weights.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from napari import Viewer
from napari.utils.notifications import notification_manager
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel

from napari_clsclip import _backend_watch, _widget
from napari_clsclip._connection import BackendConnection
from napari_clsclip._model_download import ModelDownloadRow
from shown_texts import cut_off
from stub_hub import MODEL, WEIGHTS, HubStub, hub_environment, small_files

MILLISECONDS = 60_000


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubStub]:
    folder = tmp_path / "published"
    script = Path(__file__).parents[1] / "make_tiny_clipseg.py"
    # not in this process, which draws windows: see tests/conftest.py
    command = [sys.executable, str(script), str(folder), "published"]
    subprocess.run(command, check=True, timeout=300)
    model = {file.name: file.read_bytes() for file in folder.iterdir()}
    server = HubStub({**small_files(), **model})
    yield server
    server.stop()


@pytest.fixture
def fetching(
    hub: HubStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, qapp: object
) -> Iterator[BackendConnection]:
    """The shared connection is one to a backend of its own, whose hub is the server."""
    for name, value in hub_environment(hub, tmp_path).items():
        monkeypatch.setenv(name, value)
    connection = BackendConnection()
    monkeypatch.setattr(_widget, "shared_connection", lambda: connection)
    monkeypatch.setattr(_backend_watch, "RUNNING_MILLISECONDS", 50)
    yield connection
    connection.supervisor.start = lambda: None  # a window that is closed after this may ask
    connection.stop()
    notification_manager.records.clear()


def wait(qtbot: QtBot, condition: Callable[[], object]) -> None:
    qtbot.waitUntil(lambda: bool(condition()), timeout=MILLISECONDS)


def in_one_line(row: ModelDownloadRow) -> bool:
    """Whether what stands beside the button can be read, in as many lines as the button has."""
    shown = row.progress if row.progress.isVisible() else row.text
    middle = shown.geometry().center().y()
    wide = not isinstance(shown, QLabel) or shown.width() >= shown.sizeHint().width()
    return wide and row.button.geometry().top() < middle < row.button.geometry().bottom()


@pytest.mark.slow
def test_a_model_is_downloaded_from_the_window(
    make_napari_viewer: Callable[..., Viewer],
    fetching: BackendConnection,
    hub: HubStub,
    tmp_path: Path,
    qtbot: QtBot,
) -> None:
    viewer = make_napari_viewer(show=True)
    _, widget = viewer.window.add_plugin_dock_widget("napari-clsclip", "ClsCLIP")
    tab, model = widget.segment_tab, widget.segment_tab.model
    row, button = tab.options.download, tab.options.download.button
    tab.options.expand(animate=False)
    wait(qtbot, lambda: model.findText("clipseg") > 0)
    assert model.findText("clipseg") == model.count() - 1
    assert row.isHidden()

    hub.status = 500
    model.setCurrentText("clipseg")
    wait(qtbot, row.isVisible)
    assert row.text.text() == "605 MB, Apache-2.0"
    assert button.text() == "Download"
    wait(qtbot, lambda: in_one_line(row))
    assert not cut_off(tab)
    assert widget.batch_tab.form.download.watch.model == ""  # another choice
    model.setCurrentText("mini")
    assert row.isHidden()
    model.setCurrentText("clipseg")
    wait(qtbot, row.isVisible)

    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    wait(qtbot, lambda: button.text() == "Retry" and tab.message.text())
    assert row.text.text() == "The download failed."
    assert "cannot be fetched" in tab.message.text()
    assert "HF_ENDPOINT" in tab.message.text()
    assert row.text.toolTip() == tab.message.text()
    wait(qtbot, lambda: in_one_line(row))
    assert not cut_off(tab)
    assert len(notification_manager.records) == 1
    notification_manager.records.clear()

    hub.status = 0
    hub.gate.clear()
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    wait(qtbot, lambda: row.progress.isVisible() and row.progress.value() > 100)
    assert row.progress.text().endswith(" MB")
    assert button.text() == "Cancel"
    assert tab.message.text() == ""
    wait(qtbot, lambda: in_one_line(row))
    assert not cut_off(tab)
    assert tab.segment_button.isEnabled()

    os.kill(fetching.supervisor.ready_client(lambda: False).health().pid, signal.SIGKILL)
    wait(qtbot, lambda: not button.isEnabled())  # nothing is asked of a backend that is gone
    wait(qtbot, tab.message.text)
    assert tab.message.text() == (
        "The download ended with the backend. Press Download: it goes on where it was."
    )
    assert button.text() == "Download"
    assert button.isEnabled()
    assert row.text.isVisible()
    assert not row.progress.isVisible()
    wait(qtbot, lambda: not cut_off(tab))  # once it is laid out
    assert len(notification_manager.records) == 1
    notification_manager.records.clear()

    at_death = len(hub.seen)
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    assert tab.message.text() == ""
    wait(qtbot, lambda: row.progress.isVisible() and row.progress.value() > 100)

    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    wait(qtbot, lambda: button.text() == "Download")
    assert row.text.text().endswith(" MB fetched")
    wait(qtbot, lambda: in_one_line(row))

    hub.gate.set()
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    wait(qtbot, row.isHidden)
    wait(qtbot, lambda: not model.missing)
    assert model.currentText() == "clipseg"
    place = model.findText("clipseg")
    assert "CLIPSeg" in model.itemData(place, Qt.ItemDataRole.ToolTipRole)
    assert model.itemData(place, Qt.ItemDataRole.ForegroundRole) is None
    (weights,) = (tmp_path / "hub").glob(f"models--*/snapshots/{MODEL.revisions[0]}/{WEIGHTS}")
    assert weights.read_bytes() == hub.files[WEIGHTS]
    asked = [part for _, path, part in hub.seen[at_death:] if path == f"/content/{WEIGHTS}"]
    assert all(part and part != "bytes=0-" for part in asked), asked  # not from the start
    assert asked
    assert not notification_manager.records

    viewer.add_image(np.random.default_rng(0).integers(0, 255, (40, 50), dtype=np.uint8))
    tab.words.setText("nucleus")
    tab.segment_button.click()
    wait(qtbot, lambda: not tab.busy)
    assert viewer.layers["nucleus"].metadata["clsclip"]["model"] == "clipseg"
