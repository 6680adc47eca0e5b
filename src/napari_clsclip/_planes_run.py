"""All planes of an image into one result layer: what is left to do, how far it is, how it ended."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from napari.layers import Image, Labels

from clsclip.config import InstanceSettings
from clsclip.errors import ClsClipError, InvalidImageError
from clsclip.segmentation import Segmentation
from clsclip.wire import Progress, SegmentRequest
from napari_clsclip._layers import Plane
from napari_clsclip._plane_choice import EveryPlane, count_in_words
from napari_clsclip._planes_job import PlanesJob
from napari_clsclip._predicted_objects import PredictedObjects
from napari_clsclip._predicted_plane import PredictedPlane
from napari_clsclip._result_patches import Prediction
from napari_clsclip._results import ResultLayers
from napari_clsclip._supervisor import BackendState, BackendStatus, BackendSupervisor

TAKE_SECONDS: Final = 0.02
"""Time in the Qt thread that finished planes may take at once; a single one may take longer."""

_TIMED_PLANES: Final = 8
_NAMED_PLANES: Final = 3


class PlanesRun:
    """A job over many planes, and the layer that it fills. All methods are for the Qt thread.

    Planes that the layer has with the same settings are left out, so a run that was cancelled
    goes on where it was; one whose backend died goes on once it is back. Planes in which the user
    has painted are not touched.

    Parameters
    ----------
    results : ResultLayers
    supervisor : BackendSupervisor
    image : Image
        The layer that is segmented; it may be removed meanwhile.
    planes : EveryPlane
    request : SegmentRequest
    threshold : callable
        Gives the threshold, in (0, 1], for a new layer.
    objects : tuple of float and InstanceSettings, optional
        Threshold and settings with which single objects are to be found; the layer holds them
        instead of classes.

    Attributes
    ----------
    layer : Labels or None
        The layer that is filled, once there is one.
    total : int
        Planes of the image.
    nothing_to_do : bool
        Whether the layer has every plane already.
    """

    def __init__(
        self,
        results: ResultLayers,
        supervisor: BackendSupervisor,
        image: Image,
        planes: EveryPlane,
        request: SegmentRequest,
        threshold: Callable[[], float],
        objects: tuple[float, InstanceSettings] | None = None,
    ) -> None:
        self._results = results
        self._supervisor = supervisor
        self._image = image
        self._request = request
        self._threshold = threshold
        self._objects = objects
        self.layer: Labels | None = results.begun(
            image, planes[0], request, objects=objects is not None
        )
        self.total: Final = len(planes)
        self._count = count_in_words(planes[0])
        self._planes = planes
        done: frozenset[tuple[int, ...]] = frozenset()
        if self.layer is not None:
            done = results.done(self.layer, planes[0], request)
        self._earlier = [position for position in planes.positions if position in done]
        missing = [position for position in planes.positions if position not in done]
        self.nothing_to_do: Final = not missing
        self._again: list[tuple[int, ...]] = []
        self._segmented = self._painted = 0
        self._failed: list[tuple[Plane, InvalidImageError]] = []
        self._error: Exception | None = None
        self._cancelled = self._layer_removed = self._made_layer = False
        self._ends: deque[float] = deque(maxlen=_TIMED_PLANES + 1)
        self._began = time.monotonic()
        self._layer_threshold = threshold()
        self._job = self._new_job(missing)

    @property
    def ended(self) -> int:
        """Planes that are done with, whatever came of them."""
        return len(self._earlier) + self._segmented + self._painted + len(self._failed)

    @property
    def error(self) -> Exception | None:
        """What ended the run before all planes were done; None too after :meth:`cancel`."""
        return self._error or self._job.error

    def start(self) -> None:
        """Begin; returns at once."""
        self._began = time.monotonic()
        self._job.start()

    def cancel(self) -> None:
        """End the run now; what is done stays."""
        self._cancelled = True
        self._job.cancel()

    @property
    def done(self) -> bool:
        """Whether the run has ended."""
        ended = self.nothing_to_do or self._cancelled or self._error is not None
        return ended or (self._job.done and not self._again)

    def take(self, *, all_of_them: bool = False) -> None:
        """Put planes that are finished into the layer.

        Parameters
        ----------
        all_of_them : bool
            Whether to go on after ``TAKE_SECONDS``; do so once the run is :attr:`done`.
        """
        if self._error is not None:
            return
        self._layer_threshold = self._threshold()
        if self.layer is not None and self._results.is_open(self.layer):
            self._layer_threshold = self._results.threshold(self.layer)
        until = time.monotonic() + TAKE_SECONDS
        while (ended := self._job.take()) is not None:
            if ended.outcome is None:
                self._painted += 1
            elif isinstance(ended.outcome, InvalidImageError):
                self._failed.append((ended.plane, ended.outcome))
            else:
                self._place(ended.plane, ended.outcome)
            self._ends.append(time.monotonic())
            if not all_of_them and time.monotonic() > until:
                return
        if self._again and self._job.done and not self._cancelled and self.error is None:
            self._job = self._new_job(self._again)
            self._again = []
            self._job.start()

    @property
    def progress(self) -> Progress:
        """How many planes are done with."""
        return Progress(state="running", done=self.ended, total=self.total)

    def message(self, status: BackendStatus) -> str:
        """What the run does now, in words for the user."""
        number = min(self.ended + 1, self.total)
        where = f"plane {number:,} of {self._count}"
        if status.state is BackendState.STARTING:
            return f"Waiting for the backend to start, then {where} …"
        progress = self._job.progress
        many = progress is not None and progress.total > 1
        steps = f", step {progress.done} of {progress.total}" if progress and many else ""
        left = f", about {duration(self._seconds_left())} left" if len(self._ends) > 1 else ""
        return f"Segmenting {where}{steps}{left} …"

    def ending(self) -> str:
        """What came of the run, in words for the user."""
        done = len(self._earlier) + self._segmented
        sentences = []
        if self.nothing_to_do:
            sentences.append(
                f"All {self.total:,} planes have a result with these settings already. Remove the "
                "result layer if you want to segment them anew."
            )
        elif self._layer_removed:
            sentences.append("The result layer was removed, so no more planes are segmented.")
        elif self._cancelled:
            sentences.append(
                f"Cancelled. {done:,} of {self.total:,} planes are done and kept; press Segment "
                "to go on."
            )
        elif self.error is not None:
            if done:
                sentences.append(f"{done:,} of {self.total:,} planes are done and kept.")
        else:
            seconds = duration(time.monotonic() - self._began)
            before = f" ({len(self._earlier):,} of them before)" if self._earlier else ""
            sentences.append(f"{done:,} of {self.total:,} planes segmented{before}, in {seconds}.")
        if self._painted:
            sentences.append(f"{self._painted:,} with something painted in them left as they were.")
        sentences += [
            f"{_name(plane)} left out: {error.message}"
            for plane, error in self._failed[:_NAMED_PLANES]
        ]
        if len(self._failed) > _NAMED_PLANES:
            names = ", ".join(_name(plane) for plane, _ in self._failed[_NAMED_PLANES:])
            sentences.append(f"Also left out: {names}.")
        return " ".join(sentences)

    @property
    def has_failures(self) -> bool:
        """Whether some planes could not be segmented."""
        return bool(self._failed)

    def _place(self, plane: Plane, predicted: Prediction) -> None:
        layer, segmentation = self.layer, predicted.segmentation
        if layer is not None and not self._results.is_open(layer):
            self._layer_removed = True
            self.cancel()
            return
        if layer is not None and self._results.model_version(layer) != segmentation.model_version:
            # The weights behind the name have changed: a new layer, and none of it done before.
            self._again, self._earlier = self._earlier, []
            layer = None
        if layer is not None:
            filled = self._results.fill(
                layer, plane, predicted, self._request, undoable=not self._made_layer
            )
            self._segmented += filled
            self._painted += not filled
            return
        try:
            self.layer = self._results.add(
                self._image, plane, segmentation, self._threshold(),
                predicted if isinstance(predicted, PredictedObjects) else None, self._request,
            )  # fmt: skip
        except ClsClipError as error:
            self._error = error
            self._job.cancel()
        else:
            self._made_layer = True
            self._segmented += 1

    def _new_job(self, positions: Sequence[tuple[int, ...]]) -> PlanesJob:
        planes = (self._planes.at(position) for position in positions)
        return PlanesJob(
            self._supervisor, planes, self._request, self._may_touch, self._prepare, self._objects
        )

    def _prepare(self, segmentation: Segmentation, objects: PredictedObjects | None) -> Prediction:
        if objects is not None:
            return objects
        predicted = PredictedPlane(segmentation, self._layer_threshold)
        predicted.prepare()
        return predicted

    def _may_touch(self, plane: Plane) -> bool:
        layer = self.layer
        return layer is None or self._results.is_free(layer, plane)

    def _seconds_left(self) -> float:
        per_plane = (self._ends[-1] - self._ends[0]) / (len(self._ends) - 1)
        return per_plane * (self.total - self.ended)


def _name(plane: Plane) -> str:
    """Where a plane is, as the sliders count: ``plane z 3`` or ``plane (4, 3)``."""
    labels = [plane.placement.axis_labels[axis] for axis in plane.index.hidden]
    position = plane.index.position
    if all(label and not label.lstrip("-").isdigit() for label in labels):
        return "Plane " + ", ".join(
            f"{label} {value}" for label, value in zip(labels, position, strict=True)
        )
    return f"Plane {position[0] if len(position) == 1 else position}"


def duration(seconds: float) -> str:
    """A time in words: ``45 s``, ``3 min`` or ``2.5 h``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = seconds / 60
    return f"{round(minutes)} min" if minutes < 90 else f"{minutes / 60:.1f} h"
