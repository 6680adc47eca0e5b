"""How batches stand in the backend, asked for again and again, and orders to them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from qtpy.QtCore import QObject, Signal

from clsclip.errors import ClsClipError, NotFoundError
from clsclip.wire_batch import Batch, BatchRequest, ImageCopy
from napari_clsclip import _backend_watch
from napari_clsclip._backend_watch import BackendWatch
from napari_clsclip._client import Client
from napari_clsclip._connection import BackendConnection

_UNFINISHED: Final = ("running", "paused")


class BatchWatch(BackendWatch):
    """Knows how batches stand, and begins, pauses, resumes and cancels.

    Parameters
    ----------
    connection : BackendConnection
    parent : QObject

    Attributes
    ----------
    begun : Signal
        The batch that was ordered runs.
    batches : sequence of Batch or None
        The newest first; None as long as the backend has not answered.
    """

    begun = Signal()

    def __init__(self, connection: BackendConnection, parent: QObject) -> None:
        self.batches: Sequence[Batch] | None = None
        self._chosen = ""
        self._asked: dict[str, str] = {}
        self._listed = 0.0
        super().__init__(connection, parent)

    @property
    def running(self) -> bool:
        """Whether some batch is not over."""
        return self._unfinished() is not None

    @property
    def shown(self) -> Batch | None:
        """The batch that was chosen, else the one that runs, else the newest."""
        batches = self.batches or ()
        chosen = (batch for batch in batches if batch.name == self._chosen)
        return next(chosen, self._unfinished() or (batches[0] if batches else None))

    @property
    def pending(self) -> str:
        """What the shown batch was told here and has not done yet; empty if nothing."""
        return "" if self.shown is None else self._asked.get(self.shown.name, "")

    def choose(self, name: str) -> None:
        """Show a batch from now on."""
        if name != self._chosen:
            self._chosen = name
            self.changed.emit()

    def begin(self, request: BatchRequest) -> None:
        """Order a batch; returns at once, as all the orders do."""
        self._order("Beginning …", lambda client: client.batches.begin(request), self._note_begun)

    def pause(self, name: str) -> None:
        """Let a batch wait after its present file."""
        self._order(
            "Pausing …",
            lambda client: client.batches.pause(name),
            lambda _: self._note(name, "Pausing …"),
        )

    def resume(self, name: str, copies: Sequence[ImageCopy] = ()) -> None:
        """Let a batch go on, also with what failed, of which some was read anew."""
        self._asked.pop(name, None)
        self._order("Continuing …", lambda client: client.batches.resume(name, copies))

    def cancel(self, name: str) -> None:
        """End a batch after its present file."""
        self._order(
            "Ending …",
            lambda client: client.batches.cancel(name),
            lambda _: self._note(name, "Ending …"),
        )

    def _question(self) -> Callable[[Client], Sequence[Batch]]:
        """All batches, but only the one that runs between two looks at all."""
        running = self._unfinished()
        known = self.batches
        recent = time.monotonic() - self._listed < _backend_watch.IDLE_MILLISECONDS / 1000
        if running is None or known is None or not recent or self.ordering:
            self._listed = time.monotonic()
            return all_batches
        return partial(_again, known, running.name)

    def _take(self, answer: Sequence[Batch]) -> None:
        self.batches = answer
        states = {batch.name: batch.state for batch in answer}
        for name, words in tuple(self._asked.items()):
            over = (
                states.get(name) != "running"
                if words == "Pausing …"
                else (states.get(name) not in _UNFINISHED)
            )
            if over:
                del self._asked[name]

    def _note_begun(self, batch: Batch) -> None:
        self._chosen = batch.name
        self.begun.emit()

    def _note(self, name: str, words: str) -> None:
        self._asked[name] = words
        self._take(self.batches or ())

    def _unfinished(self) -> Batch | None:
        return next((batch for batch in self.batches or () if batch.state in _UNFINISHED), None)


def all_batches(client: Client) -> Sequence[Batch]:
    """Ask for all batches, the newest first.

    Raises
    ------
    ClsClipError
    """
    try:
        return client.batches.list()
    except NotFoundError as error:
        raise ClsClipError(
            "The backend is older than this plugin and cannot label folders. Install the same "
            "version of napari-clsclip on its machine."
        ) from error


def _again(known: Sequence[Batch], name: str, client: Client) -> Sequence[Batch]:
    """The same batches, of which one was asked for anew."""
    try:
        new = client.batches.get(name)
    except NotFoundError:  # somebody has removed its folder
        return all_batches(client)
    return tuple(new if batch.name == name else batch for batch in known)
