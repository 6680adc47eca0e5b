"""Work with the client of a backend, in a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from clsclip.errors import BackendError, CancelledError
from napari_clsclip._client import Client
from napari_clsclip._supervisor import BackendSupervisor

_T = TypeVar("_T")


class BackendJob(Generic[_T]):
    """Waits for the backend and asks it something; the Qt thread polls it.

    Parameters
    ----------
    supervisor : BackendSupervisor
    closing : threading.Event
        Set when nobody waits for the answer any more. What has been ordered happens.
    work : callable
        Called in the thread with the client of the backend.
    name : str
        Of the thread.
    """

    def __init__(
        self,
        supervisor: BackendSupervisor,
        closing: threading.Event,
        work: Callable[[Client], _T],
        name: str,
    ) -> None:
        self._supervisor = supervisor
        self._closing = closing
        self._work = work
        self._error: Exception | None = CancelledError("Not started.")
        self._answer: list[_T] = []
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether :meth:`result` has something to say."""
        return not self._thread.is_alive()

    def result(self) -> _T:
        """Return what the work returned; only once :attr:`done`.

        Raises
        ------
        ClsClipError
            If what was asked was refused, or the backend did not answer.
        """
        if self._error is not None:
            raise self._error
        return self._answer[0]

    def _run(self) -> None:
        try:
            client = self._supervisor.ready_client(self._closing.is_set)
            self._answer.append(self._work(client))
            self._error = None
        except Exception as error:
            self._error = error
            if isinstance(error, BackendError):
                self._supervisor.suspect()
