"""The Segment tab: choose an image, type words, get a label layer, move its threshold."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, Final

from magicgui.widgets import ComboBox
from napari.components import ViewerModel
from napari.layers import Image, Shapes
from napari.utils import cancelable_progress
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import (
    QFormLayout,
    QHBoxLayout,
    QPushButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QLabeledDoubleSlider

from clsclip.config import DEFAULT_THRESHOLD
from clsclip.errors import (
    BackendDiedError,
    CancelledError,
    ClsClipError,
    InvalidConfigError,
    InvalidImageError,
)
from clsclip.typed_words import parse_words
from clsclip.wire import Progress, SegmentRequest
from napari_clsclip._channels_row import ChannelsRow
from napari_clsclip._connection import BackendConnection
from napari_clsclip._drawn_boxes import DrawnBoxes, drawn_boxes
from napari_clsclip._extra_layers import ExtraLayers
from napari_clsclip._job_choice import Job, job_for
from napari_clsclip._large_run import LargeRun
from napari_clsclip._layers import Plane
from napari_clsclip._link_row import LinkRow
from napari_clsclip._message import Message
from napari_clsclip._options import MoreOptions
from napari_clsclip._plane_choice import EveryPlane
from napari_clsclip._planes_run import PlanesRun
from napari_clsclip._results import ResultLayers
from napari_clsclip._scope import ScopeRow
from napari_clsclip._scrolled import scrolled
from napari_clsclip._selected_result import SelectedResult
from napari_clsclip._setting_fields import objects_box
from napari_clsclip._summary import classes_found, objects_found, regions_used, waiting_words
from napari_clsclip._supervisor import BackendStatus
from napari_clsclip._words_edit import WordsEdit

POLL_MILLISECONDS: Final = 50

_GAP: Final = 6
_WORDS_TOOLTIP: Final = "What to segment: one word or a short phrase, or several with commas."
_THRESHOLD_TOOLTIP: Final = (
    "Foreground probability from which a pixel belongs to a word. Changes the selected result "
    "without the backend: classes at once, single objects a moment later. Pixels that you have "
    "painted stay."
)
_LOCAL_DEATH: Final = (
    "The backend died; it may have run out of memory. It is being started again: press Segment "
    "once it is ready. Nothing in the viewer is lost."
)


class SegmentTab(QWidget):
    """Form, buttons and messages for segmenting an image.

    Parameters
    ----------
    viewer : ViewerModel
        Whose images are offered, and where results go.
    connection : BackendConnection

    Attributes
    ----------
    results : ResultLayers
    selected : SelectedResult
        Keeps the threshold and the settings of objects in step with a result.
    """

    def __init__(self, viewer: ViewerModel, connection: BackendConnection) -> None:
        super().__init__()
        self._viewer = viewer
        self._connection = connection
        self.results = ResultLayers(viewer)
        self._extra = ExtraLayers(viewer)
        self._left_out = ""
        self._job: Job | None = None
        self._image_of_job: Image | None = None
        self._progress: cancelable_progress | None = None
        self._poll_timer = QTimer(self, interval=POLL_MILLISECONDS, singleShot=True)
        self._poll_timer.timeout.connect(self._poll)

        self.image = ComboBox(choices=self._images)
        self.channels = ChannelsRow(viewer)
        self.scope = ScopeRow(viewer, self.channels)
        self.image.changed.connect(self._follow_image)
        self.options = MoreOptions(self._shapes, connection)
        self.model, self.zoom = self.options.model, self.options.zoom
        self.words = WordsEdit()
        self.words.setToolTip(_WORDS_TOOLTIP)
        self.objects = objects_box()
        self.threshold = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
        self.threshold.setRange(0.01, 1.0)
        self.threshold.setSingleStep(0.01)  # type: ignore[arg-type]  # superqt hints int
        self.threshold.setValue(DEFAULT_THRESHOLD)
        self.threshold.setToolTip(_THRESHOLD_TOOLTIP)
        self.segment_button = QPushButton("Segment")
        self.segment_button.setToolTip("Segment the image (Enter in the words).")
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.setEnabled(False)
        self.message = Message()
        self.link = LinkRow(viewer)
        self._form = QFormLayout()
        self._lay_out()

        self.selected = SelectedResult(viewer, self.results, self.threshold, self.options, self)
        self.selected.told.connect(self._tell)
        self.selected.failed.connect(self.message.show_error)
        self.words.returnPressed.connect(self.segment)
        self.segment_button.clicked.connect(self.segment)
        self.cancel_button.clicked.connect(self.cancel)
        self.options.download.begun.connect(lambda: self.message.show_text(""))
        self.options.download.failed.connect(self.message.show_error)
        connection.status_changed.connect(self._take_models)
        self._take_models(connection.status)
        viewer.layers.selection.events.active.connect(self._follow_active_layer)

    @property
    def busy(self) -> bool:
        """Whether a segmentation is running."""
        return self._job is not None

    def reset_choices(self) -> None:
        """Offer the layers that are open now."""
        self.image.reset_choices()
        self.options.reset_choices()
        self._follow_image(self.image.value)

    def segment(self) -> None:
        """Segment the image as the form says; returns at once."""
        if self._job is not None:
            return
        image = self.image.value
        try:
            planes, request = self._asked(image)
            job = job_for(
                self._viewer, self.results, self._connection.supervisor, image, planes,
                partial(self.scope.overview, image), request, self.threshold.value,
                self.options.objects() if self.objects.isChecked() else None,
            )  # fmt: skip
        except ClsClipError as error:
            self.message.show_error(error.message)
            return
        self.words.remember(request.words)
        if isinstance(job, PlanesRun) and job.nothing_to_do:
            self.message.show_text(job.ending())
            return
        self._job, self._image_of_job = job, image
        self.destroyed.connect(job.cancel)  # the viewer may be closed meanwhile
        self._show_busy(True)
        self.message.show_text("Segmenting …")
        job.start()
        self._poll_timer.start()
        self._progress = cancelable_progress(
            desc=f"Segmenting {', '.join(request.words)}", total=0, cancel_callback=job.cancel
        )

    def _asked(self, image: Image | None) -> tuple[EveryPlane | tuple[Plane], SegmentRequest]:
        """What the form says: which planes, and what is asked of each of them."""
        if image is None:
            raise InvalidImageError(
                "There is no image. Open one with File > Open, or try one from "
                "File > Open Sample > ClsCLIP."
            )
        words = parse_words(self.words.text())
        planes = self.scope.planes(image)
        shapes, drawn = self.options.boxes.value, DrawnBoxes()
        if shapes is not None and len(planes) > 1:
            raise InvalidConfigError(
                f"The boxes of '{shapes.name}' are for one plane, and {len(planes):,} planes are "
                "to be segmented. Choose another scope, or no boxes (under More)."
            )
        if shapes is not None:
            drawn = drawn_boxes(shapes, image, planes[0], self._viewer.dims)
        self._left_out = drawn.left_out
        regions = self.options.settings()
        request = SegmentRequest(
            model=self.model.name,
            zoom=self.zoom.value() or None,
            words=words,
            contrast_limits=planes[0].contrast_limits,
            regions=regions.regions,
            detector=regions.detector,
            drawn=drawn.boxes,
            attention=self.options.extra().attention,
        )
        return planes, request

    def cancel(self) -> None:
        """End the running segmentation, if any; the form can be used at once."""
        if self._job is not None:
            self._job.cancel()
            self._poll()

    def _poll(self) -> None:
        job = self._job
        if job is None:
            return
        if isinstance(job, PlanesRun | LargeRun):
            job.take()
        if job.done:
            self._finish(job)
            return
        self._poll_timer.start()
        status = self._connection.status
        if isinstance(job, PlanesRun | LargeRun):
            self.message.show_text(job.message(status))
        else:
            self.message.show_text(waiting_words(job.progress, status))
        # Last, because napari's progress bar runs the event loop.
        if job.progress is not None and self._progress is not None:
            _show_progress(self._progress, job.progress)

    def _finish(self, job: Job) -> None:
        image, progress = self._image_of_job, self._progress
        self._job = self._image_of_job = self._progress = None
        self._poll_timer.stop()
        self.destroyed.disconnect(job.cancel)
        if progress is not None:
            progress.close()
        self._show_busy(False)
        self.message.show_text("")
        if isinstance(job, PlanesRun | LargeRun):
            self._finish_run(job)
            return
        try:
            segmentation = job.result()
            layer = self.results.add(
                image, job.plane, segmentation, self.threshold.value(), job.objects, job.request
            )
            choice = replace(self.options.extra(), attention=job.request.attention)
            note = self._extra.show(choice, image, job.plane, segmentation, job.attention)
            self._viewer.layers.selection.active = layer
        except CancelledError as error:
            self.message.show_text(error.message)
        except ClsClipError as error:
            self.message.show_error(self._error_words(error))
        else:
            objects = self.results.objects(layer)
            if objects is None:
                found = classes_found(segmentation.words, layer.data, job.plane.index)
            else:
                found = objects_found(segmentation.words, objects.plane_table(job.plane.index))
                self.selected.follow_objects(layer)
            parts = (f"{found}, in {segmentation.seconds:.1f} s.", regions_used(segmentation), note)
            self.message.show_text(" ".join(part for part in (*parts, self._left_out) if part))

    def _finish_run(self, run: PlanesRun | LargeRun) -> None:
        run.take(all_of_them=True)
        if run.layer is not None and self.results.objects(run.layer) is not None:
            self.selected.follow_objects(run.layer)
        error, ending = run.error, run.ending()
        if self.options.extra():
            ending = f"{ending} Probabilities, regions and attention are shown of one plane only."
        if error is not None:
            self.message.show_error(f"{self._error_words(error)} {ending}".strip())
        elif isinstance(run, PlanesRun) and run.has_failures:
            self.message.show_error(ending)
        else:
            self.message.show_text(ending)

    def _tell(self, text: str) -> None:
        if not self.busy:
            self.message.show_text(text)

    def _error_words(self, error: Exception) -> str:
        if isinstance(error, BackendDiedError) and self._connection.supervisor.local:
            return _LOCAL_DEATH
        return str(error)

    def _follow_active_layer(self) -> None:
        """Offer the image that was clicked, or show the settings of the result that was."""
        active = self._viewer.layers.selection.active
        if isinstance(active, Image) and active in self.image.choices:
            self.image.value = active
        else:
            self.selected.show()

    def _follow_image(self, image: Image | None) -> None:
        self.channels.follow(image)
        for widget in (self.channels, self._form.labelForField(self.channels)):
            widget.setVisible(self.channels.possible())
        self.scope.follow(image)

    def _images(self, _: Any) -> list[Image]:
        return [
            layer
            for layer in self._viewer.layers
            if isinstance(layer, Image) and layer not in self._extra
        ]

    def _shapes(self, _: Any) -> list[Shapes]:
        return [layer for layer in self._viewer.layers if isinstance(layer, Shapes)]

    def _take_models(self, status: BackendStatus) -> None:
        self.model.offer(status)

    def _show_busy(self, busy: bool) -> None:
        self.segment_button.setEnabled(not busy)
        self.cancel_button.setEnabled(busy)

    def _lay_out(self) -> None:
        form = self._form
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Image", self.image.native)
        form.addRow("Channels", self.channels)
        form.addRow("Scope", self.scope)
        form.addRow("Words", self.words)
        form.addRow("Threshold", self.threshold)
        form.addRow("", self.objects)
        buttons = QHBoxLayout()
        buttons.addWidget(self.segment_button, stretch=2)
        buttons.addWidget(self.cancel_button, stretch=1)
        inputs = QWidget()
        layout = QVBoxLayout(inputs)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(form)
        layout.addLayout(buttons)
        layout = QVBoxLayout(self)
        layout.addWidget(scrolled((inputs, self.options, self.link), _GAP))
        layout.addWidget(self.message)


def _show_progress(bar: cancelable_progress, progress: Progress) -> None:
    if progress.total != bar.total:
        bar.total = progress.total
    if progress.done != bar.n:
        bar.update(progress.done - bar.n)
