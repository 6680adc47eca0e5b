"""How learning stands in the backend, asked for again and again, and orders to it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from qtpy.QtCore import QObject, Signal

from clsclip.wire_training import TrainingRequest
from napari_clsclip._backend_watch import BackendWatch
from napari_clsclip._client import Client
from napari_clsclip._connection import BackendConnection
from napari_clsclip._learning import Learning, learning_of


class TrainingWatch(BackendWatch):
    """Knows how learning stands, and begins, continues, cancels and activates.

    Parameters
    ----------
    connection : BackendConnection
    parent : QObject

    Attributes
    ----------
    begun : Signal
        The training that was ordered runs.
    activated : Signal(str)
        The version that is the active one now, as ordered.
    learning : Learning or None
        None as long as the backend has not answered.
    ending : bool
        Whether the training that runs was told here to end.
    """

    begun = Signal()
    activated = Signal(str)

    def __init__(self, connection: BackendConnection, parent: QObject) -> None:
        self.learning: Learning | None = None
        self.ending = False
        super().__init__(connection, parent)

    @property
    def running(self) -> bool:
        """Whether a training runs."""
        return self.learning is not None and self.learning.running

    def begin(self, request: TrainingRequest) -> None:
        """Order a training; returns at once, as all the orders do."""
        self._order(
            "Beginning …",
            lambda client: client.begin_training(request),
            lambda _: self.begun.emit(),
        )

    def resume(self, name: str) -> None:
        """Let an interrupted training go on."""
        self._order("Continuing …", lambda client: client.resume_training(name))

    def cancel(self, name: str) -> None:
        """End a training with what is best so far."""
        self._order("Ending …", lambda client: client.cancel_training(name), self._note_ending)

    def activate(self, name: str) -> None:
        """Make a version the active one."""
        self._order(
            "Changing the version …",
            lambda client: client.activate(name),
            lambda _: self.activated.emit(name),
        )

    def _question(self) -> Callable[[Client], Learning]:
        return partial(learning_of, known=self.learning)

    def _take(self, answer: Learning) -> None:
        self.learning = answer
        self.ending = self.ending and answer.running

    def _note_ending(self, _: object) -> None:
        self.ending = self.running
