"""A large plane into a layer that shows its labels from disk: how far it is, how it ended."""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Final

from napari.components import ViewerModel
from napari.layers import Image, Labels

from clsclip.config import LargePlaneSettings
from clsclip.errors import InvalidConfigError, InvalidImageError
from clsclip.wire import Progress, SegmentRequest
from napari_clsclip._large_job import LargeJob
from napari_clsclip._large_labels import LargeLabels
from napari_clsclip._large_settings import results_folder
from napari_clsclip._layers import Plane
from napari_clsclip._planes_run import duration
from napari_clsclip._result_looks import METADATA_KEY, new_layer
from napari_clsclip._supervisor import BackendState, BackendStatus, BackendSupervisor

FILE_KEY: Final = "file"
"""Key beside the words in the metadata of a layer whose labels lie on disk."""

REFRESH_SECONDS: Final = 1.0
"""Time between two looks of the window at what was written."""

_REFRESH_SHARE: Final = 0.05
"""Most of the Qt thread's time that those looks may take."""

_TIMED_BLOCKS: Final = 8
_NOT_EDITABLE: Final = (
    "napari cannot paint in so large a layer: for labels to correct, zoom in and segment the "
    "visible region."
)


class LargeRun:
    """A job over one large plane, and the layer that shows it. All methods are for the Qt thread.

    Parameters
    ----------
    viewer : ViewerModel
    supervisor : BackendSupervisor
    image : Image
        The layer that is segmented; it may be removed meanwhile.
    plane : Plane
        Of that layer, larger than ``settings`` allows in one piece.
    overview : Plane or None
        The same plane with far fewer pixels.
    request : SegmentRequest
    threshold : float, in (0, 1]
    objects : bool
        Whether single objects are asked for.
    settings : LargePlaneSettings

    Attributes
    ----------
    layer : Labels or None
        The layer, once there is one.

    Raises
    ------
    InvalidConfigError, InvalidImageError
        If something is asked for that cannot be had for so large a plane.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        supervisor: BackendSupervisor,
        image: Image,
        plane: Plane,
        overview: Plane | None,
        request: SegmentRequest,
        threshold: float,
        objects: bool,
        settings: LargePlaneSettings,
    ) -> None:
        _check(plane, request, objects)
        self._viewer = viewer
        self._plane = plane
        self._request = request
        self._threshold = round(threshold, 4)
        source = getattr(image.source, "path", None)
        self._job = LargeJob(
            supervisor, plane, overview, request, self._threshold,
            "" if source is None else str(source), results_folder(settings), settings.large_from,
        )  # fmt: skip
        self.layer: Labels | None = None
        self._cancelled = self._layer_removed = False
        self._shown = -1
        self._next_look = 0.0
        self._ends: deque[tuple[float, int]] = deque(maxlen=_TIMED_BLOCKS + 1)
        self._began = time.monotonic()

    def start(self) -> None:
        """Begin; returns at once."""
        self._began = time.monotonic()
        self._job.start()

    def cancel(self) -> None:
        """End the run now; what is finished stays on disk and in the layer."""
        self._cancelled = True
        self._job.cancel()

    @property
    def done(self) -> bool:
        """Whether the run has ended."""
        return self._job.done

    @property
    def error(self) -> Exception | None:
        """What ended the run before all blocks were finished; None too after :meth:`cancel`."""
        return self._job.error

    @property
    def progress(self) -> Progress | None:
        """How many blocks are finished."""
        now = self._job.progress
        return Progress(state="running", done=now.done, total=now.total) if now.total else None

    def take(self, *, all_of_them: bool = False) -> None:
        """Show what is written.

        Parameters
        ----------
        all_of_them : bool
            Whether to look now, even if the last look was a moment ago.
        """
        labels, now = self._job.labels, time.monotonic()
        if labels is None:
            return
        if self.layer is None:
            self.layer = self._show(labels)
        elif self.layer not in self._viewer.layers:
            self._layer_removed = True
            self.cancel()
            return
        count = len(labels.done)
        if count == self._shown or (now < self._next_look and not all_of_them):
            return
        self._ends.append((now, count))
        if self._shown >= 0:
            self.layer.refresh(extent=False)
        self._shown = count
        took = time.monotonic() - now
        self._next_look = now + max(REFRESH_SECONDS, took / _REFRESH_SHARE)

    def message(self, status: BackendStatus) -> str:
        """What the run does now, in words for the user."""
        if status.state is BackendState.STARTING:
            return f"Waiting for the backend to start …{self._where()}"
        now = self._job.progress
        if now.stage == "overview":
            tiles = f", part {now.done + 1:,} of {now.total:,}" if now.total else ""
            return f"Looking over the plane{tiles} …"
        steps = self._job.steps
        many = steps is not None and steps.total > 1
        step = f", step {steps.done} of {steps.total}" if steps is not None and many else ""
        number = f"block {min(now.done + 1, now.total):,} of {now.total:,}"
        return f"Segmenting {number}{step}{self._time_left()} …{self._where()}"

    def ending(self) -> str:
        """What came of the run, in words for the user."""
        now = self._job.progress
        kept = f"{now.done:,} of {now.total:,} blocks are finished and kept"
        if now.stage == "overview":
            return "Cancelled." if self._cancelled else ""
        if self._layer_removed:
            return f"The result layer was removed. {kept}; press Segment to go on.{self._where()}"
        if self._cancelled:
            return f"Cancelled. {kept}; press Segment to go on.{self._where()}"
        if self.error is not None:
            return f"{kept}; press Segment to go on.{self._where()}"
        if self._job.earlier == now.total:
            return (
                f"All {now.total:,} blocks have been segmented with these settings before."
                f"{self._where()} {_NOT_EDITABLE}"
            )
        before = f" ({self._job.earlier:,} of them before)" if self._job.earlier else ""
        seconds = duration(time.monotonic() - self._began)
        return (
            f"{now.total:,} blocks segmented{before}, in {seconds}.{self._where()} {_NOT_EDITABLE}"
        )

    def _where(self) -> str:
        path = self._job.path
        return "" if path is None else f" The labels are in '{path}'."

    def _time_left(self) -> str:
        if len(self._ends) < 2:
            return ""
        (first, few), (last, many) = self._ends[0], self._ends[-1]
        now = self._job.progress
        return f", about {duration((last - first) / (many - few) * (now.total - now.done))} left"

    def _show(self, labels: LargeLabels) -> Labels:
        """Let the layer of this file, or a new one, show the labels."""
        words = self._request.words
        for layer in self._viewer.layers:
            if isinstance(layer, Labels) and _made(layer).get(FILE_KEY) == str(labels.path):
                layer.data = labels.levels  # an earlier run's coarsest level is not written to
                break
        else:
            layer = new_layer(labels.levels, self._plane.placement, words, None)
            layer.metadata[METADATA_KEY] = {
                "words": list(words),
                "model": self._request.model,
                "model_version": self._job.model_version,
                "threshold": self._threshold,
                "zooms": [zooms[0] for zooms in labels.plan.passes],
                "image": self._plane.image,
                "classes": dict(enumerate(words, start=1)),
                FILE_KEY: str(labels.path),
            }
            self._viewer.add_layer(layer)
        self._viewer.layers.selection.active = layer
        return layer


def fixed_threshold(layer: Any) -> float | None:
    """The threshold of labels that lie on disk; None of any other layer, or of none."""
    if not isinstance(layer, Labels) or FILE_KEY not in _made(layer):
        return None
    return float(_made(layer)["threshold"])


def fixed_threshold_words(layer: Labels, threshold: float) -> str:
    """What to say when the slider is moved while such a layer is selected."""
    return (
        f"'{layer.name}' keeps its threshold of {_made(layer)['threshold']:.2f}: probabilities of "
        f"so large a plane are not kept. Segment makes new labels with {threshold:.2f}."
    )


def _made(layer: Labels) -> dict[str, Any]:
    made = layer.metadata.get(METADATA_KEY, {})
    return made if isinstance(made, dict) else {}


def _check(plane: Plane, request: SegmentRequest, objects: bool) -> None:
    """Refuse what cannot be had for a large plane."""
    height, width = plane.index.size
    size = f"{height:,} x {width:,} pixels"
    words = ", ".join(request.words)
    if objects:
        raise InvalidConfigError(
            f"Single objects of a plane of {size} are told apart by the command line: "
            f'napari-clsclip-label IMAGE --words "{words}" --instances --output FOLDER. '
            "Untick Single objects to label pixels here, or segment the visible region."
        )
    if request.regions != "none" or request.drawn:
        raise InvalidConfigError(
            f"Regions and boxes cannot be used for a plane of {size}, which is segmented block by "
            "block. Choose 'none' for both (under More), or segment the visible region."
        )
    if request.contrast_limits is None:
        raise InvalidImageError(
            f"The contrast limits of '{plane.image}' are not finite, and all blocks of the plane "
            "need the same ones. Set them in the layer controls."
        )
