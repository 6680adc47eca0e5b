"""Work in a thread that the Qt thread polls, and what is done with its outcome."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from qtpy.QtCore import QObject, QTimer

from clsclip.errors import CancelledError, ClsClipError

POLL_MILLISECONDS: Final = 30

_T = TypeVar("_T")


class ThreadJob(Generic[_T]):
    """Does something in a daemon thread; the Qt thread polls it.

    Parameters
    ----------
    work : callable
        Called in the thread.
    name : str
        Of the thread.
    """

    def __init__(self, work: Callable[[], _T], name: str) -> None:
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
            Or whatever else the work raised.
        """
        if self._error is not None:
            raise self._error
        return self._answer[0]

    def _run(self) -> None:
        try:
            self._answer.append(self._work())
            self._error = None
        except Exception as error:
            self._error = error


class Errand(QObject):
    """One job at a time, whose outcome is taken in the Qt thread.

    Parameters
    ----------
    parent : QObject
        Nothing is taken any more once it is gone.
    """

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._job: ThreadJob[Any] | None = None
        self._take: Callable[[Any], object] = _nothing
        self._refuse: Callable[[str], object] = _nothing
        self._timer = QTimer(self, interval=POLL_MILLISECONDS)
        self._timer.timeout.connect(self._poll)

    @property
    def busy(self) -> bool:
        """Whether a job is under way."""
        return self._job is not None

    def run(
        self, job: ThreadJob[_T], take: Callable[[_T], object], refuse: Callable[[str], object]
    ) -> None:
        """Start a job; one that is under way is forgotten.

        Parameters
        ----------
        job : ThreadJob
        take : callable
            Takes its result.
        refuse : callable
            Takes the message of its error.
        """
        self._job, self._take, self._refuse = job, take, refuse
        job.start()
        self._timer.start()

    def forget(self) -> None:
        """Take nothing of what is under way."""
        self._job = None
        self._timer.stop()

    def _poll(self) -> None:
        job, take, refuse = self._job, self._take, self._refuse
        if job is None or not job.done:
            return
        self.forget()
        try:
            result = job.result()
        except ClsClipError as error:
            refuse(error.message)
        except Exception as error:
            refuse(f"{type(error).__name__}: {error}.")
            raise
        else:
            take(result)


def _nothing(_: object) -> None:
    """Take what nobody wants."""
