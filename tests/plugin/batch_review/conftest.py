"""A batch that is over, and the Batch tab with its files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import npe2
import pytest
from napari import Viewer
from napari.components import ViewerModel
from pytestqt.qtbot import QtBot
from qtpy.QtWidgets import QWidget

from clsclip.wire_batch import BatchFile
from napari_clsclip._batch_tab import BatchTab
from napari_clsclip._connection import BackendConnection
from napari_clsclip._widget import ClsClipWidget
from reviewing import NAME_OF_BATCH, Open, wait
from stub_batches import BatchStub, batch, write_pair


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
def open_tab(connection: BackendConnection, qtbot: QtBot) -> Iterator[Open]:
    """Show the tab once the table is filled; without a viewer in a window of its own."""
    npe2.PluginManager.instance().discover()  # so that a viewer without window can open files
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
