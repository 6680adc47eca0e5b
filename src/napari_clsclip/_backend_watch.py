"""How something stands in the backend, asked for again and again, and orders about it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from qtpy.QtCore import QObject, QTimer, Signal

from clsclip.errors import CancelledError, ClsClipError
from napari_clsclip._backend_job import BackendJob
from napari_clsclip._client import Client
from napari_clsclip._connection import BackendConnection
from napari_clsclip._supervisor import BackendState, BackendStatus

POLL_MILLISECONDS: Final = 50
RUNNING_MILLISECONDS: Final = 1_000
"""Between two questions while something runs, or after one without an answer."""

IDLE_MILLISECONDS: Final = 10_000
"""Between two questions while nothing runs: another window may begin something."""


class BackendWatch(QObject):
    """Asks and orders in a thread, one after the other; what, is for the classes below to say.

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
    problem : str
        Why the last question was not answered; empty if it was.
    ordering : str
        What is being ordered, for the user; empty if nothing.
    """

    changed = Signal()
    refused = Signal(str)

    def __init__(self, connection: BackendConnection, parent: QObject) -> None:
        super().__init__(parent)
        self._connection = connection
        self._closing = threading.Event()
        self.destroyed.connect(self._closing.set)
        self.problem = ""
        self.ordering = ""
        self._after: Callable[[Any], object] | None = None
        self._job: BackendJob[tuple[Any, Any]] | None = None
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
        """Ask how it stands, unless something is being asked; returns at once."""
        if self._job is None and self._connection.status.state is BackendState.READY:
            self._start(None)

    @property
    def running(self) -> bool:
        """Whether something runs that is to be asked for often."""
        raise NotImplementedError

    def _question(self) -> Callable[[Client], Any]:
        """What to ask in the thread."""
        raise NotImplementedError

    def _take(self, answer: Any) -> None:
        """Note the answer of :meth:`_question`."""
        raise NotImplementedError

    def _order(
        self,
        words: str,
        order: Callable[[Client], Any],
        after: Callable[[Any], object] | None = None,
    ) -> None:
        """Order something; returns at once.

        Parameters
        ----------
        words : str
            For the user meanwhile.
        order : callable
            Called in the thread.
        after : callable, optional
            Called with what that returned, once it has happened and all is asked anew.
        """
        if self.ordering:
            return  # the buttons are disabled
        self.ordering, self._after = words, after
        self._start(order)  # a question on its way is forgotten: the order answers it too
        self.changed.emit()

    def _start(self, order: Callable[[Client], Any] | None) -> None:
        self._next_timer.stop()
        work = partial(_order_and_ask, order, self._question())
        supervisor = self._connection.supervisor
        self._job = BackendJob(supervisor, self._closing, work, "clsclip-watch")
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
            happened, answer = job.result()
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
            self._take(answer)
            if after is not None:
                after(happened)
        soon = self.running or bool(self.problem)
        self._next_timer.start(RUNNING_MILLISECONDS if soon else IDLE_MILLISECONDS)
        self.changed.emit()


def _order_and_ask(
    order: Callable[[Client], Any] | None, question: Callable[[Client], Any], client: Client
) -> tuple[Any, Any]:
    happened = None if order is None else order(client)
    return happened, question(client)
