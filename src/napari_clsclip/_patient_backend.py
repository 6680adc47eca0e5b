"""Requests that outlast a backend which dies or is busy. No Qt."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

from numpy.typing import NDArray

from clsclip.errors import BackendDiedError, BusyError
from clsclip.segmentation import Segmentation
from clsclip.wire import Progress, SegmentRequest
from napari_clsclip._layers import Plane
from napari_clsclip._segment_job import SegmentJob
from napari_clsclip._supervisor import BackendSupervisor

MOST_DEATHS: Final = 3
"""How often in a row the backend may die over one request before that is given up."""

BUSY_SECONDS: Final = 5.0
"""After which time a backend with a full queue is asked again."""

_T = TypeVar("_T")


def patiently(work: Callable[[], _T], cancelled: threading.Event) -> _T:
    """Do a request again if the backend died over it or is busy.

    Parameters
    ----------
    work : callable
        Makes the request, with a backend that is ready; called once or more.
    cancelled : threading.Event
        Set when nobody wants the answer any more; ends the waiting for a busy backend.

    Raises
    ------
    BackendDiedError
        After ``MOST_DEATHS`` deaths.
    ClsClipError
        What else ``work`` raises.
    """
    deaths = 0
    while True:
        try:
            return work()
        except BackendDiedError:
            deaths += 1
            if deaths == MOST_DEATHS:
                raise
        except BusyError:
            cancelled.wait(BUSY_SECONDS)


class PatientBackend:
    """Asks one request after the other, in the thread that calls.

    Parameters
    ----------
    supervisor : BackendSupervisor
    plane : Plane
        What the requests are about.

    Attributes
    ----------
    cancelled : threading.Event
        Set by :meth:`cancel`.
    """

    def __init__(self, supervisor: BackendSupervisor, plane: Plane) -> None:
        self.cancelled: Final = threading.Event()
        self._supervisor = supervisor
        self._plane = plane
        self._current: SegmentJob | None = None

    @property
    def steps(self) -> Progress | None:
        """How far the backend is with what it works on."""
        current = self._current
        return None if current is None else current.progress

    def cancel(self) -> None:
        """End the request that is under way, and every later one at once; from any thread."""
        self.cancelled.set()
        current = self._current
        if current is not None:
            current.cancel()

    def window(self, model: str) -> int:
        """Side of what a model looks at at once, in model pixels."""

        def told() -> int:
            with self._supervisor.asking(self.cancelled.is_set) as client:
                return client.window(model).image_size

        return patiently(told, self.cancelled)

    def ask(self, request: SegmentRequest, image: NDArray[Any]) -> Segmentation:
        """Segment an image, once more if the backend died over it or is busy.

        Raises
        ------
        ClsClipError
            What the backend answers; ``BackendDiedError`` after ``MOST_DEATHS`` deaths,
            ``CancelledError`` after :meth:`cancel`.
        """

        def answer() -> Segmentation:
            job = SegmentJob(self._supervisor, self._plane, request, read=lambda: image)
            self._current = job
            if self.cancelled.is_set():
                job.cancel()  # a cancel() just before did not see this job
            job.run()
            return job.result()

        return patiently(answer, self.cancelled)
