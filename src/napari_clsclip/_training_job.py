"""Questions and orders about trainings and versions, on their way to the backend."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from clsclip.errors import BackendError, CancelledError, ClsClipError, NotFoundError
from clsclip.wire_training import Training, VersionList
from napari_clsclip._client import Client
from napari_clsclip._supervisor import BackendSupervisor


@dataclass(frozen=True)
class Learning:
    """How learning stands in a backend.

    Attributes
    ----------
    trainings : tuple of Training
        The newest first, without their curves.
    shown : Training or None
        With its curve: the one that runs, else the newest.
    versions : VersionList
    """

    trainings: tuple[Training, ...]
    shown: Training | None
    versions: VersionList

    @property
    def running(self) -> bool:
        """Whether a training runs."""
        return self.shown is not None and self.shown.state == "running"


class TrainingJob:
    """Orders something, if asked to, and asks how learning stands; the Qt thread polls it.

    Parameters
    ----------
    supervisor : BackendSupervisor
    closing : threading.Event
        Set when nobody waits for the answer any more. What has been ordered happens.
    order : callable, optional
        Called in the thread with the client of the backend.
    known : Learning, optional
        What was answered before; the curve of a training that has ended is not asked for again.
    """

    def __init__(
        self,
        supervisor: BackendSupervisor,
        closing: threading.Event,
        order: Callable[[Client], object] | None = None,
        known: Learning | None = None,
    ) -> None:
        self._supervisor = supervisor
        self._closing = closing
        self._order = order
        self._known = known
        self._outcome: Learning | Exception = CancelledError("Not started.")
        self._thread = threading.Thread(target=self._run, name="clsclip-learn", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether :meth:`result` has something to say."""
        return not self._thread.is_alive()

    def result(self) -> Learning:
        """Return how learning stands after the order; only once :attr:`done`.

        Raises
        ------
        ClsClipError
            If the order was refused, or the backend did not answer.
        """
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome

    def _run(self) -> None:
        try:
            client = self._supervisor.ready_client(self._closing.is_set)
            if self._order is not None:
                self._order(client)
            self._outcome = ask(client, self._known)
        except Exception as error:
            self._outcome = error
            if isinstance(error, BackendError):
                self._supervisor.suspect()


def ask(client: Client, known: Learning | None = None) -> Learning:
    """Ask a backend how learning stands; see :class:`TrainingJob`.

    Raises
    ------
    ClsClipError
    """
    try:
        trainings = client.trainings().trainings
    except NotFoundError as error:
        raise ClsClipError(
            "The backend is older than this plugin and cannot learn. Install the same version "
            "of napari-clsclip on its machine."
        ) from error
    running = (training for training in trainings if training.state == "running")
    shown = next(running, trainings[0] if trainings else None)
    if shown is not None:
        before = None if known is None else known.shown
        if shown.state != "running" and before is not None and _same(before, shown):
            shown = before
        else:
            shown = client.training(shown.name)
    return Learning(trainings, shown, client.versions())


def _same(before: Training, now: Training) -> bool:
    """Whether nothing has happened to a training since its curve was read."""
    return before.model_copy(update={"curve": ()}) == now.model_copy(update={"curve": ()})
