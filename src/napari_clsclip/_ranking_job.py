"""Candidates on their way to the backend, which says what each would teach."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from clsclip.errors import CancelledError, ClsClipError, InvalidImageError
from clsclip.ranking import Candidate as Measured
from clsclip.ranking import Ranked, rank
from clsclip.wire import SegmentRequest
from napari_clsclip._candidates import Candidate
from napari_clsclip._client import Client
from napari_clsclip._segment_job import read_plane
from napari_clsclip._supervisor import BackendSupervisor


@dataclass(frozen=True)
class Ranking:
    """Candidates in the order in which they should be corrected.

    Attributes
    ----------
    ranked : tuple of Ranked
    words : tuple of str
        What was asked for.
    accepted : int
        Candidates that are left out, because they have been accepted already.
    unreadable : tuple of str
        Why further ones are left out.
    complete : bool
        Whether all candidates were looked at.
    """

    ranked: tuple[Ranked[Candidate], ...]
    words: tuple[str, ...]
    accepted: int
    unreadable: tuple[str, ...]
    complete: bool


class RankingJob:
    """Looks at candidates one after the other in a daemon thread; the Qt thread polls it.

    A candidate that cannot be read or segmented does not keep the others from it; any other
    error ends the job.

    Parameters
    ----------
    supervisor : BackendSupervisor
    find : callable
        Gives the candidates; called in the thread, for a folder may be far away.
    request : SegmentRequest
        Words, model and zoom; the contrast limits are those of each candidate.

    Attributes
    ----------
    done_count, total : int
        Candidates that were looked at, and all; 0 until they are known.
    """

    def __init__(
        self,
        supervisor: BackendSupervisor,
        find: Callable[[], Sequence[Candidate]],
        request: SegmentRequest,
    ) -> None:
        self.done_count = self.total = 0
        self._find = find
        self._supervisor = supervisor
        self._request = request
        self._id = uuid.uuid4().hex
        self._client: Client | None = None
        self._cancelled = threading.Event()
        self._outcome: Ranking | Exception = CancelledError("Not started.")
        self._thread = threading.Thread(target=self._run, name="clsclip-ranking", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def cancel(self) -> None:
        """Look at no further candidate; what was looked at is ranked. Returns at once."""
        self._cancelled.set()
        client = self._client
        if client is not None:
            threading.Thread(target=_cancel, args=(client, self._id), daemon=True).start()

    @property
    def done(self) -> bool:
        """Whether :meth:`result` has something to say."""
        return not self._thread.is_alive()

    def result(self) -> Ranking:
        """Return the order; only once :attr:`done`.

        Raises
        ------
        ClsClipError
            If it failed; ``CancelledError`` if it was cancelled before there was anything.
        """
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome

    def _run(self) -> None:
        try:
            with self._supervisor.asking(self._cancelled.is_set) as client:
                self._client = client
                self._outcome = self._ranked(client)
        except Exception as error:
            self._outcome = error

    def _ranked(self, client: Client) -> Ranking:
        candidates = self._find()
        self.total = len(candidates)
        known = self._known(client)
        measured: list[Measured[Candidate]] = []
        unreadable: list[str] = []
        accepted = 0
        for candidate in candidates:
            if self._cancelled.is_set():
                break
            try:
                plane, position = candidate.load()
                limits = {"contrast_limits": plane.contrast_limits}
                request = self._request.model_copy(update=limits)
                gain = client.gain(read_plane(plane), request, self._id)
            except CancelledError:
                break
            except InvalidImageError as error:
                unreadable.append(error.message)
            else:
                accepted += gain.accepted
                if not gain.accepted:
                    looks = np.asarray(gain.embedding, np.float32)
                    seen_at = replace(candidate, position=position)
                    measured.append(Measured(seen_at, gain.expected, looks))
            self.done_count += 1
        complete = self.done_count == self.total
        if not measured and not complete:
            raise CancelledError("Cancelled before anything was looked at.")
        ranked = tuple(rank(measured, known))
        return Ranking(ranked, self._request.words, accepted, tuple(unreadable), complete)

    def _known(self, client: Client) -> NDArray[np.float32]:
        found = client.embeddings(self._request.model, self._id).embeddings
        return np.asarray(found, np.float32).reshape(len(found), -1 if found else 0)


def _cancel(client: Client, request_id: str) -> None:
    try:
        client.cancel(request_id)
    except ClsClipError:
        return  # a backend that cannot be reached has nothing left to cancel
