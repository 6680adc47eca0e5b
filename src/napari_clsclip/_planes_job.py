"""Many planes on their way: while the backend works on one, the next is read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from queue import Empty, Queue, SimpleQueue
from typing import Any

from numpy.typing import NDArray

from clsclip.config import InstanceSettings
from clsclip.errors import InvalidImageError
from clsclip.segmentation import Segmentation
from clsclip.wire import Progress, SegmentRequest
from napari_clsclip._layers import Plane
from napari_clsclip._patient_backend import patiently
from napari_clsclip._predicted_objects import PredictedObjects
from napari_clsclip._result_patches import Prediction
from napari_clsclip._segment_job import SegmentJob, read_plane
from napari_clsclip._supervisor import BackendSupervisor


@dataclass(frozen=True)
class PlaneOutcome:
    """How a plane ended.

    Attributes
    ----------
    plane : Plane
    outcome : PredictedPlane, PredictedObjects, InvalidImageError or None
        What it gave, why it cannot be segmented, or None if it was not to be touched.
    """

    plane: Plane
    outcome: Prediction | InvalidImageError | None


class PlanesJob:
    """Segments planes one after the other in daemon threads; the Qt thread polls it.

    At most one plane is read ahead. A plane that cannot be segmented (NaN, a missing file) does
    not keep the others from it, and one over which the backend died is asked for again; every
    other error ends the job.

    Parameters
    ----------
    supervisor : BackendSupervisor
    planes : iterable of Plane
        In the order in which they are segmented; a thread takes them one by one.
    request : SegmentRequest
        The same for all of them.
    may_touch : callable
        Asked in a thread before a plane is read; false leaves it out.
    prepare : callable
        Makes ready in a thread what is going to be shown.
    objects : tuple of float and InstanceSettings, optional
        See :class:`~napari_clsclip._segment_job.SegmentJob`.

    Attributes
    ----------
    error : Exception or None
        What ended the job before all planes were done.
    """

    def __init__(
        self,
        supervisor: BackendSupervisor,
        planes: Iterable[Plane],
        request: SegmentRequest,
        may_touch: Callable[[Plane], bool],
        prepare: Callable[[Segmentation, PredictedObjects | None], Prediction],
        objects: tuple[float, InstanceSettings] | None = None,
    ) -> None:
        self.error: Exception | None = None
        self._planes = planes
        self._request = request
        self._prepare = prepare
        self._supervisor = supervisor
        self._may_touch = may_touch
        self._objects = objects
        self._current: SegmentJob | None = None
        self._stopped = threading.Event()
        self._ended = threading.Event()
        self._room = threading.Semaphore(1)
        self._read: Queue[tuple[Plane, NDArray[Any] | Exception | None] | None] = Queue()
        self._outcomes: SimpleQueue[PlaneOutcome] = SimpleQueue()

    def start(self) -> None:
        """Begin; returns at once."""
        for target in (self._read_planes, self._segment_planes):
            name = f"clsclip{target.__name__}"
            threading.Thread(target=target, name=name, daemon=True).start()

    def cancel(self) -> None:
        """End the job now. No further plane is read; what is done can still be taken."""
        self._stop()
        current = self._current
        if current is not None:
            current.cancel()

    @property
    def done(self) -> bool:
        """Whether it has ended, and everything has been taken; at once after :meth:`cancel`."""
        return self._stopped.is_set() and self._outcomes.empty()

    @property
    def progress(self) -> Progress | None:
        """How far the backend is with the plane it works on."""
        current = self._current
        return None if current is None else current.progress

    def take(self) -> PlaneOutcome | None:
        """Return the next plane that has ended, each once, or None. Never waits."""
        try:
            return self._outcomes.get_nowait()
        except Empty:
            return None

    def _stop(self) -> None:
        self._stopped.set()
        self._room.release()
        self._read.put(None)

    def _read_planes(self) -> None:
        for plane in self._planes:
            self._room.acquire()
            if self._stopped.is_set():
                return
            image: NDArray[Any] | Exception | None = None
            try:
                if self._may_touch(plane):
                    image = read_plane(plane)
            except Exception as error:
                image = error
            self._read.put((plane, image))
        self._read.put(None)

    def _segment_planes(self) -> None:
        try:
            while (item := self._read.get()) is not None and not self._stopped.is_set():
                self._room.release()
                plane, image = item
                outcome = None if image is None else self._segment(plane, image)
                if self._stopped.is_set():
                    return
                self._outcomes.put(PlaneOutcome(plane, outcome))
        except Exception as error:
            if not self._stopped.is_set():
                self.error = error
        finally:
            self._ended.set()
            self._stop()

    def _segment(
        self, plane: Plane, image: NDArray[Any] | Exception
    ) -> Prediction | InvalidImageError:
        def read() -> NDArray[Any]:
            if isinstance(image, Exception):
                raise image
            return image

        def predict() -> Prediction:
            job = SegmentJob(self._supervisor, plane, self._request, self._objects, read)
            self._current = job
            if self._stopped.is_set():
                job.cancel()  # a cancel() just before did not see this job
            job.run()
            return self._prepare(job.result(), job.objects)

        try:
            return patiently(predict, self._stopped)
        except InvalidImageError as error:
            return error
