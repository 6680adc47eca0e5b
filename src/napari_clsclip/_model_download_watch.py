"""How the download of the chosen model stands in the backend, and orders to it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from qtpy.QtCore import QObject

from clsclip.wire_models import ModelDownload
from napari_clsclip._backend_watch import BackendWatch
from napari_clsclip._client import Client
from napari_clsclip._connection import BackendConnection


class ModelDownloadWatch(BackendWatch):
    """Knows how the download of one model stands; begins and cancels it.

    Parameters
    ----------
    connection : BackendConnection
    parent : QObject

    Attributes
    ----------
    model : str
        Which one; empty: none, and nothing is asked.
    download : ModelDownload or None
        None as long as the backend has not answered, or if the model cannot be downloaded.
    """

    def __init__(self, connection: BackendConnection, parent: QObject) -> None:
        self.model = ""
        self.download: ModelDownload | None = None
        self._answered = ""
        super().__init__(connection, parent)

    @property
    def running(self) -> bool:
        """Whether it is being downloaded, or nothing is known of it yet."""
        if self._answered != self.model:
            return True
        return self.download is not None and self.download.state == "running"

    def follow(self, model: str) -> None:
        """Ask about another model from now on; returns at once."""
        if model == self.model:
            return
        self.model, self.download = model, None
        self.ask()
        self.changed.emit()

    def begin(self) -> None:
        """Order the download; returns at once."""
        self._order("Beginning …", partial(_begin, self.model))

    def cancel(self) -> None:
        """End the download; what has come is kept."""
        self._order("Ending …", partial(_cancel, self.model))

    def ask(self) -> None:
        """Ask how it stands, unless there is no model; returns at once."""
        if self.model:
            super().ask()

    def _question(self) -> Callable[[Client], tuple[str, ModelDownload | None]]:
        return partial(_look, self.model)

    def _take(self, answer: tuple[str, ModelDownload | None]) -> None:
        self._answered, download = answer
        if self._answered != self.model:
            return  # the answer to an earlier question; the next one is asked soon
        before, self.download = self.download, download
        if download is not None and download.state == "done" and download != before:
            self._connection.look_again()  # the list of models still says that it is not there


def _look(model: str, client: Client) -> tuple[str, ModelDownload | None]:
    return model, client.downloads.get(model)


def _begin(model: str, client: Client) -> ModelDownload:
    return client.downloads.begin(model)


def _cancel(model: str, client: Client) -> ModelDownload:
    return client.downloads.cancel(model)
