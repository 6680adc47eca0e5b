"""The shared connection, to a server that answers as a test tells it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from napari.utils.notifications import notification_manager

from napari_clsclip import _backend_watch, _widget
from napari_clsclip._connection import BackendConnection
from napari_clsclip._supervisor import RemoteAddress


def often_asked(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[BackendConnection]:
    """Let widgets share a connection to a server, which is asked often; for a fixture."""
    connection = BackendConnection(RemoteAddress(url, "token"))
    monkeypatch.setattr(_widget, "shared_connection", lambda: connection)
    monkeypatch.setattr(_backend_watch, "RUNNING_MILLISECONDS", 50)
    monkeypatch.setattr(_backend_watch, "IDLE_MILLISECONDS", 100)
    yield connection
    # for good: a window that is closed after this may still ask, which would start it once more
    connection.supervisor.start = lambda: None
    connection.stop()
    notification_manager.records.clear()
