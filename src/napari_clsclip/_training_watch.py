"""How learning stands in the backend, asked for again and again, and orders to it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from qtpy.QtCore import QObject, QTimer, Signal

from clsclip.errors import CancelledError, ClsClipError
from clsclip.wire_training import TrainingRequest
from napari_clsclip._client import Client
from napari_clsclip._connection import BackendConnection
from napari_clsclip._supervisor import BackendState, BackendStatus
from napari_clsclip._training_job import Learning, TrainingJob

POLL_MILLISECONDS: Final = 50
RUNNING_MILLISECONDS: Final = 1_000
"""Between two questions while a training runs, or after one without an answer."""

IDLE_MILLISECONDS: Final = 10_000
"""Between two questions while none runs: another window may begin one."""


class TrainingWatch(QObject):
    """Knows how learning stands, and begins, continues, cancels and activates.

    Parameters
    ----------
    connection : BackendConnection
    parent : QObject

    Attributes
    ----------
    changed : Signal
        Something below, or the status of the backend, is different now.
    refused : Signal(str)
        What was ordered did not happen; why not, for the user.
    begun : Signal
        The training that was ordered runs.
    activated : Signal(str)
        The version that is the active one now, as ordered.
    learning : Learning or None
        None as long as the backend has not answered.
    problem : str
        Why the last question was not answered; empty if it was.
    ordering : str
        What is being ordered, for the user; empty if nothing.
    ending : bool
        Whether the training that runs was told here to end.
    """

    changed = Signal()
    refused = Signal(str)
    begun = Signal()
    activated = Signal(str)

    def __init__(self, connection: BackendConnection, parent: QObject) -> None:
        super().__init__(parent)
        self._connection = connection
        self._closing = threading.Event()
        self.destroyed.connect(self._closing.set)
        self.learning: Learning | None = None
        self.problem = ""
        self.ordering = ""
        self.ending = False
        self._after: Callable[[], object] | None = None
        self._job: TrainingJob | None = None
        self._poll_timer = QTimer(self, interval=POLL_MILLISECONDS)
        self._poll_timer.timeout.connect(self._poll)
        self._next_timer = QTimer(self, singleShot=True)
        self._next_timer.timeout.connect(self.ask)
        connection.status_changed.connect(self._follow)
        self._follow(connection.status)

    @property
    def status(self) -> BackendStatus:
        """How the backend is."""
        return self._connection.status

    def ask(self) -> None:
        """Ask how learning stands, unless something is being asked; returns at once."""
        if self._job is None and self._connection.status.state is BackendState.READY:
            self._start(None)

    def begin(self, request: TrainingRequest) -> None:
        """Order a training; returns at once, as all the orders do."""
        self._order("Beginning …", lambda client: client.begin_training(request), self.begun.emit)

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
            lambda: self.activated.emit(name),
        )

    def _order(
        self,
        words: str,
        order: Callable[[Client], object],
        after: Callable[[], object] | None = None,
    ) -> None:
        if self.ordering:
            return  # the buttons are disabled
        self.ordering, self._after = words, after
        self._start(order)  # a question on its way is forgotten: the order answers it too
        self.changed.emit()

    def _start(self, order: Callable[[Client], object] | None) -> None:
        self._next_timer.stop()
        supervisor = self._connection.supervisor
        self._job = TrainingJob(supervisor, self._closing, order, self.learning)
        self._job.start()
        self._poll_timer.start()

    def _follow(self, status: BackendStatus) -> None:
        if status.state is BackendState.READY:
            self.problem = ""  # of another backend, or of before
            self.ask()
        self.changed.emit()

    def _poll(self) -> None:
        job = self._job
        if job is None or not job.done:
            return
        self._job = None
        self._poll_timer.stop()
        ordered, self.ordering = bool(self.ordering), ""
        after, self._after = self._after, None
        try:
            self.learning = job.result()
        except CancelledError:
            return  # the window is being closed
        except ClsClipError as error:
            if ordered:
                self.refused.emit(error.message)
                self.ask()
            else:
                self.problem = error.message
        else:
            self.problem = ""
            if after is not None:
                after()
        running = self.learning is not None and self.learning.running
        self.ending = self.ending and running
        soon = running or bool(self.problem)
        self._next_timer.start(RUNNING_MILLISECONDS if soon else IDLE_MILLISECONDS)
        self.changed.emit()

    def _note_ending(self) -> None:
        self.ending = True
