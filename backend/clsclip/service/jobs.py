"""One worker thread behind a bounded queue: the only place where a model computes.

A job is reserved when its request arrives, submitted when its image is complete, and ends with
a result, an error or a cancellation, which its future delivers to whoever waits.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from clsclip.config import RegionMode
from clsclip.errors import (
    BusyError,
    CancelledError,
    ClsClipError,
    InvalidRequestError,
    NotFoundError,
)
from clsclip.segmentation import AttentionMaps, Segmentation
from clsclip.wire import DrawnBox, PlanePart, Progress, SegmentRequest

MAX_LOADED_MODELS: Final = 2
"""Models kept in memory; the least recently used one makes room."""

_log = logging.getLogger(__name__)


def unexpected_error(error: Exception) -> ClsClipError:
    """Tell a client of an exception that nobody foresaw. The log has its traceback."""
    return ClsClipError(
        f"The backend met an unexpected {type(error).__name__}: {error}. "
        "This is a fault of napari-clsclip; its log has the details."
    )


class Segmenter(Protocol):
    """A loaded model; see :class:`clsclip.predict.parts.PartPredictor`."""

    def segment(
        self,
        image: NDArray[Any],
        words: Sequence[str],
        *,
        contrast_limits: tuple[float, float] | None = None,
        zoom: float | None = None,
        templates: bool = True,
        regions: RegionMode = "none",
        detector: str = "",
        drawn: Sequence[DrawnBox] = (),
        progress: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Segmentation:
        """Segment one image plane."""
        ...

    def segment_part(
        self,
        image: NDArray[Any],
        words: Sequence[str],
        part: PlanePart,
        *,
        contrast_limits: tuple[float, float],
        templates: bool = True,
        progress: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Segmentation:
        """Segment part of a plane; see :class:`clsclip.predict.parts.PartPredictor`."""
        ...

    @property
    def replaces_cls(self) -> bool:
        """Whether there is an attention to show."""
        ...

    def attention(
        self,
        image: NDArray[Any],
        words: Sequence[str],
        *,
        contrast_limits: tuple[float, float] | None = None,
        zoom: float | None = None,
        templates: bool = True,
        progress: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> AttentionMaps:
        """Where the [CLS] looks in one image plane."""
        ...

    def embedding(
        self, image: NDArray[Any], contrast_limits: tuple[float, float] | None = None
    ) -> NDArray[np.float32]:
        """What one image plane looks like, as a vector of unit length."""
        ...


Work = Callable[[Segmenter, "Job"], Any]
"""What a job does with its model. It asks ``job.ended`` between steps, and may report."""


class LoadPredictor(Protocol):
    """Loads a model by name; :class:`clsclip.predict.parts.PartPredictor` is one."""

    def __call__(self, model: str, *, device: str) -> Segmenter:
        """Load a model onto a device."""
        ...


def segment_for(
    predictor: Segmenter, job: Job, image: NDArray[Any], request: SegmentRequest
) -> Segmentation:
    """Segment as a request asks; reports to its job, and ends with it.

    Attention that is asked for is left out where the model has none.
    """
    if request.part is not None and request.contrast_limits is not None:
        return predictor.segment_part(
            image,
            request.words,
            request.part,
            contrast_limits=request.contrast_limits,
            templates=request.templates,
            progress=job.report,
            cancelled=job.ended,
        )
    found = predictor.segment(
        image,
        request.words,
        contrast_limits=request.contrast_limits,
        zoom=request.zoom,
        templates=request.templates,
        regions=request.regions,
        detector=request.detector,
        drawn=request.drawn,
        progress=job.report,
        cancelled=job.ended,
    )
    if not (request.attention and predictor.replaces_cls):
        return found
    before = job.progress().done

    def report(done: int, total: int) -> None:
        job.report(before + done, before + total)

    attention = predictor.attention(
        image,
        request.words,
        contrast_limits=request.contrast_limits,
        zoom=request.zoom,
        templates=request.templates,
        progress=report,
        cancelled=job.ended,
    )
    return replace(found, attention=attention)


class Job:
    """One request, from its arrival to its end.

    Attributes
    ----------
    request_id : str
    result : Future
        Of what the job's work returns. Set when the job ends. Its ``cancel`` does nothing; use
        :meth:`JobQueue.cancel`.
    state : 'queued' or 'running'
    """

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.result: Future[Any] = Future()
        self.result.set_running_or_notify_cancel()
        self.state: Literal["queued", "running"] = "queued"
        self._steps = (0, 0)

    def report(self, done: int, total: int) -> None:
        """Note how many of the steps known so far are finished."""
        self._steps = (done, total)

    def progress(self) -> Progress:
        """How far the job is."""
        done, total = self._steps
        return Progress(state=self.state, done=done, total=total)

    def ended(self) -> bool:
        """Whether there is a result, an error or a cancellation."""
        return self.result.done()


class JobQueue:
    """Runs jobs one after the other, in the order in which they were submitted.

    Parameters
    ----------
    load_predictor : LoadPredictor
        Called in the worker thread when a request names a model that is not loaded.
    device : str
        Device for ``load_predictor``.
    size : int
        Jobs that may wait.
    preload : str, optional
        Model that the worker loads before the first job.
    """

    def __init__(
        self, load_predictor: LoadPredictor, *, device: str, size: int, preload: str = ""
    ) -> None:
        self._load_predictor = load_predictor
        self._device = device
        self._size = size
        self._preload = preload
        self._changed = threading.Condition()
        self._jobs: dict[str, Job] = {}
        self._ready: deque[tuple[Job, str, Work]] = deque()
        self._computing = False
        self._closed = False
        self._loaded: OrderedDict[str, Segmenter] = OrderedDict()
        self._worker = threading.Thread(target=self._work, name="segmentation", daemon=True)
        self._worker.start()

    def reserve(self, request_id: str) -> Job:
        """Take a place in the queue for a request whose image is still to come.

        Raises
        ------
        BusyError
            If the queue is full or closed.
        InvalidRequestError
            If a job of this id has not ended yet.
        """
        with self._changed:
            if self._closed:
                raise BusyError("The backend is shutting down.")
            if request_id in self._jobs:
                raise InvalidRequestError(
                    f"Request '{request_id}' is still being worked on. "
                    "Give every request an id of its own."
                )
            waiting = self._waiting()
            if waiting >= self._size:
                raise BusyError(
                    f"{waiting} requests already wait for the device. Try again in a moment, "
                    "or start the backend with a larger --queue-size."
                )
            job = self._jobs[request_id] = Job(request_id)
            return job

    def submit(self, job: Job, image: NDArray[Any], request: SegmentRequest) -> None:
        """Hand a reserved job to the worker. Does nothing if it was cancelled meanwhile."""

        def segment(predictor: Segmenter, job: Job) -> Segmentation:
            return segment_for(predictor, job, image, request)

        self.submit_work(job, request.model, segment)

    def submit_work(self, job: Job, model: str, work: Work) -> None:
        """Hand a reserved job to the worker, with what it does with a model."""
        with self._changed:
            if not job.ended():
                self._ready.append((job, model, work))
                self._changed.notify_all()

    def progress(self, request_id: str) -> Progress:
        """How far a job is.

        Raises
        ------
        NotFoundError
            If no job of this id waits or runs.
        """
        with self._changed:
            return self._find(request_id).progress()

    def cancel(self, request_id: str) -> None:
        """End a job at once; its future raises :class:`~clsclip.errors.CancelledError`.

        The worker leaves a running job at its next step.

        Raises
        ------
        NotFoundError
            If no job of this id waits or runs.
        """
        with self._changed:
            job = self._find(request_id)
            self._end(job, CancelledError("The segmentation was cancelled."))

    def release(self, job: Job) -> None:
        """Cancel a job in which nobody is interested any more, unless it has ended."""
        with self._changed:
            self._end(job, CancelledError("The client went away."))

    def counts(self) -> tuple[int, int]:
        """Jobs that wait, and jobs that compute (0 or 1).

        A job that was cancelled computes until its next step, and holds the device until then.
        """
        with self._changed:
            return self._waiting(), int(self._computing)

    def loaded_models(self) -> tuple[str, ...]:
        """Names of the models in memory, the least recently used first."""
        with self._changed:
            return tuple(self._loaded)

    def close(self) -> None:
        """End all jobs and accept no more."""
        with self._changed:
            self._closed = True
            for job in tuple(self._jobs.values()):
                self._end(job, BusyError("The backend is shutting down."))
            self._changed.notify_all()

    def join(self, timeout: float) -> bool:
        """Wait until the worker has left its last step, after :meth:`close`.

        Parameters
        ----------
        timeout : float
            Seconds to wait.

        Returns
        -------
        bool
            Whether it has.
        """
        self._worker.join(timeout)
        return not self._worker.is_alive()

    def _find(self, request_id: str) -> Job:
        if request_id not in self._jobs:
            raise NotFoundError(f"No request '{request_id}' waits or runs; it may have ended.")
        return self._jobs[request_id]

    def _waiting(self) -> int:
        return sum(job.state == "queued" for job in self._jobs.values())

    def _end(self, job: Job, outcome: Any) -> None:
        """Deliver the outcome, if it is the first one. The lock is held."""
        if job.ended():
            return
        del self._jobs[job.request_id]
        self._ready = deque(entry for entry in self._ready if entry[0] is not job)
        if isinstance(outcome, ClsClipError):
            job.result.set_exception(outcome)
        else:
            job.result.set_result(outcome)

    def _work(self) -> None:
        if self._preload:
            try:
                self._predictor(self._preload)
            except Exception:
                _log.exception("The model '%s' could not be loaded ahead", self._preload)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ready or self._closed)
                if self._closed:
                    return
                entry = self._ready.popleft()
                entry[0].state = "running"
                self._computing = True
            outcome = self._outcome(*entry)
            with self._changed:
                self._computing = False
                self._end(entry[0], outcome)
            del entry, outcome  # an image may be large, and the next job may be a day away

    def _outcome(self, job: Job, model: str, work: Work) -> Any:
        try:
            return work(self._predictor(model), job)
        except ClsClipError as error:
            return error
        except Exception as error:
            _log.exception("Request %s failed", job.request_id)
            return unexpected_error(error)

    def _predictor(self, name: str) -> Segmenter:
        with self._changed:
            if name in self._loaded:
                self._loaded.move_to_end(name)
                return self._loaded[name]
            while len(self._loaded) >= MAX_LOADED_MODELS:
                self._loaded.popitem(last=False)
        predictor = self._load_predictor(name, device=self._device)
        with self._changed:
            self._loaded[name] = predictor
        return predictor
