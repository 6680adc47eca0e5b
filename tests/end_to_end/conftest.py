"""One backend process for all tests that need one, and a docked widget that uses it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from napari import Viewer
from napari.utils.notifications import notification_manager

from clsclip.store.store import STORE_VARIABLE
from napari_clsclip._connection import BackendConnection, shared_connection
from napari_clsclip._widget import ClsClipWidget


@pytest.fixture(scope="session")
def store_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the backend keeps what is accepted."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="session")
def connection(qapp: Any, store_folder: Path) -> Iterator[BackendConnection]:
    """The connection that every widget of this process shares."""
    os.environ[STORE_VARIABLE] = str(store_folder)
    yield shared_connection()
    shared_connection().stop()
    del os.environ[STORE_VARIABLE]


@pytest.fixture
def dock(
    make_napari_viewer: Callable[..., Viewer], connection: BackendConnection, tiny_model: Path
) -> Callable[..., tuple[Viewer, ClsClipWidget]]:
    """Make a viewer with the docked widget; the tiny model is chosen, at its own scale."""

    def make(**options: Any) -> tuple[Viewer, ClsClipWidget]:
        viewer = make_napari_viewer(**options)
        _, widget = viewer.window.add_plugin_dock_widget("napari-clsclip", "ClsCLIP")
        widget.segment_tab.model.setCurrentText(str(tiny_model))
        widget.segment_tab.zoom.setValue(1.0)
        widget.segment_tab.words.setText("nucleus")
        return viewer, widget

    return make


@pytest.fixture(autouse=True)
def _forget_notifications() -> Iterator[None]:
    notification_manager.records.clear()
    yield
    notification_manager.records.clear()
