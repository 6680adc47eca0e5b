"""The one backend connection of a napari process, as Qt sees it."""

from __future__ import annotations

import atexit
import os
from functools import lru_cache
from typing import Final

from qtpy.QtCore import QCoreApplication, QObject, Signal

from clsclip.wire import TOKEN_VARIABLE
from napari_clsclip._supervisor import BackendStatus, BackendSupervisor, RemoteAddress

URL_VARIABLE: Final = "NAPARI_CLSCLIP_URL"
"""Environment variable with the URL of a backend that runs elsewhere; unset: one is started."""


class BackendConnection(QObject):
    """Tells widgets how the backend is, and gives their requests a client.

    Parameters
    ----------
    remote : RemoteAddress, optional
        Backend to connect to. None: one is started on this machine.

    Attributes
    ----------
    status_changed : Signal(BackendStatus)
        Emitted after every change, in the Qt thread of the receiver.
    """

    status_changed = Signal(object)

    def __init__(self, remote: RemoteAddress | None = None) -> None:
        super().__init__()
        self.supervisor: Final = BackendSupervisor(self.status_changed.emit, remote)

    @property
    def status(self) -> BackendStatus:
        """The current status."""
        return self.supervisor.status

    def start(self) -> None:
        """Start the backend or connect to it; returns at once. No effect while running."""
        self.supervisor.start()

    def restart(self) -> None:
        """Start or connect again; returns at once."""
        self.supervisor.restart()

    def look_again(self) -> None:
        """Ask the backend anew which models there are; returns at once."""
        self.supervisor.look_again()

    def stop(self) -> None:
        """Disconnect, and stop the backend if it was started here."""
        self.supervisor.stop()


@lru_cache(maxsize=1)
def shared_connection() -> BackendConnection:
    """Return the connection that all widgets of this process share; it ends with napari.

    The environment variables ``NAPARI_CLSCLIP_URL`` and ``NAPARI_CLSCLIP_TOKEN`` choose a
    backend that runs elsewhere. Call it in the Qt thread, once a QApplication exists.
    """
    url = os.environ.get(URL_VARIABLE, "").strip()
    remote = RemoteAddress(url, os.environ.get(TOKEN_VARIABLE, "")) if url else None
    connection = BackendConnection(remote)
    if application := QCoreApplication.instance():
        application.aboutToQuit.connect(connection.stop)
    atexit.register(connection.stop)
    return connection
