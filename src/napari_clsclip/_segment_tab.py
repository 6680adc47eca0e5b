"""The Segment tab: choose an image, type words, get a label layer, move its threshold."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from magicgui.widgets import ComboBox
from napari.components import ViewerModel
from napari.layers import Image, Labels
from napari.utils import cancelable_progress
from napari.utils.notifications import show_error
from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QBrush, QColor
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)
from superqt import QLabeledDoubleSlider

from clsclip.config import DEFAULT_MODEL, DEFAULT_THRESHOLD, SegmentSettings
from clsclip.errors import BackendDiedError, CancelledError, ClsClipError, InvalidImageError
from clsclip.segmentation import Segmentation
from clsclip.wire import Progress, SegmentRequest, parse_words
from napari_clsclip._channels_row import ChannelsRow
from napari_clsclip._connection import BackendConnection
from napari_clsclip._link_row import LinkRow
from napari_clsclip._plane_choice import EveryPlane
from napari_clsclip._planes_run import PlanesRun
from napari_clsclip._results import ResultLayers
from napari_clsclip._scope import ScopeRow
from napari_clsclip._segment_job import SegmentJob
from napari_clsclip._supervisor import BackendState, BackendStatus
from napari_clsclip._words_edit import WordsEdit

POLL_MILLISECONDS: Final = 50
ERROR_COLOR: Final = "#ff6b5e"

_WORDS_TOLD_APART: Final = 5
_WORDS_TOOLTIP: Final = "What to segment: one word or a short phrase, or several with commas."
_THRESHOLD_TOOLTIP: Final = (
    "Foreground probability from which a pixel belongs to a word. Changes the selected result "
    "at once, without the backend; pixels that you have painted stay."
)
_LOCAL_DEATH: Final = (
    "The backend died while it worked; it may have run out of memory. It is being started again: "
    "press Segment once it is ready. Nothing in the viewer is lost."
)


class SegmentTab(QWidget):
    """Form, buttons and messages for segmenting the plane on screen.

    Parameters
    ----------
    viewer : ViewerModel
        Whose images are offered, and where results go.
    connection : BackendConnection
    """

    def __init__(self, viewer: ViewerModel, connection: BackendConnection) -> None:
        super().__init__()
        self._viewer = viewer
        self._connection = connection
        self._results = ResultLayers(viewer)
        self._job: SegmentJob | PlanesRun | None = None
        self._image_of_job: Image | None = None
        self._progress: cancelable_progress | None = None
        self._poll_timer = QTimer(self, interval=POLL_MILLISECONDS, singleShot=True)
        self._poll_timer.timeout.connect(self._poll)
        self._hidden_planes_timer = QTimer(self, interval=0)
        self._hidden_planes_timer.timeout.connect(self._update_hidden_plane)

        self.image = ComboBox(choices=self._images)
        self.channels = ChannelsRow(viewer)
        self.scope = ScopeRow(viewer, self.channels)
        self.image.changed.connect(self._follow_image)
        self.model = _ModelCombo()
        self.words = WordsEdit()
        self.words.setToolTip(_WORDS_TOOLTIP)
        self.zoom = QDoubleSpinBox(minimum=0.0, maximum=16.0, singleStep=0.25)
        self.zoom.setSpecialValueText("automatic")
        self.threshold = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
        self.threshold.setRange(0.01, 1.0)
        self.threshold.setSingleStep(0.01)  # type: ignore[arg-type]  # superqt hints int
        self.threshold.setValue(DEFAULT_THRESHOLD)
        self.threshold.setToolTip(_THRESHOLD_TOOLTIP)
        self.segment_button = QPushButton("Segment")
        self.segment_button.setToolTip("Segment the image (Enter in the words).")
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.setEnabled(False)
        self.link = LinkRow(viewer)
        self.message = QLabel()
        self.message.setWordWrap(True)
        self.message.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._lay_out()

        self.words.returnPressed.connect(self.segment)
        self.segment_button.clicked.connect(self.segment)
        self.cancel_button.clicked.connect(self.cancel)
        self.threshold.valueChanged.connect(self._apply_threshold)
        connection.status_changed.connect(self._take_models)
        self._take_models(connection.status)
        viewer.layers.selection.events.active.connect(self._follow_active_layer)

    @property
    def busy(self) -> bool:
        """Whether a segmentation is running."""
        return self._job is not None

    def reset_choices(self) -> None:
        """Offer the images that are open now."""
        self.image.reset_choices()
        self._follow_image(self.image.value)

    def segment(self) -> None:
        """Segment the image as the form says; returns at once."""
        if self._job is not None:
            return
        try:
            image = self.image.value
            if image is None:
                raise InvalidImageError(
                    "There is no image. Open one with File > Open, or try one from "
                    "File > Open Sample > ClsCLIP."
                )
            words = parse_words(self.words.text())
            planes = self.scope.planes(image)
            request = SegmentRequest(
                model=self.model.currentText().strip() or DEFAULT_MODEL,
                zoom=self.zoom.value() or None,
                words=words,
                contrast_limits=planes[0].contrast_limits,
            )
        except ClsClipError as error:
            self._show_error(error.message)
            return
        self.words.remember(words)
        supervisor = self._connection.supervisor
        job: SegmentJob | PlanesRun
        if isinstance(planes, EveryPlane) and len(planes) > 1:
            job = PlanesRun(self._results, supervisor, image, planes, request, self.threshold.value)
            if job.nothing_to_do:
                self._show(job.ending())
                return
        else:
            job = SegmentJob(supervisor, planes[0], request)
        self._job, self._image_of_job = job, image
        self.destroyed.connect(job.cancel)  # the viewer may be closed meanwhile
        self._show_busy(True)
        self._show("Segmenting …")
        job.start()
        self._poll_timer.start()
        self._progress = cancelable_progress(
            desc=f"Segmenting {', '.join(words)}", total=0, cancel_callback=job.cancel
        )

    def cancel(self) -> None:
        """End the running segmentation, if any; the form can be used at once."""
        if self._job is not None:
            self._job.cancel()
            self._poll()

    def _poll(self) -> None:
        job = self._job
        if job is None:
            return
        if isinstance(job, PlanesRun):
            job.take()
        if job.done:
            self._finish(job)
            return
        self._poll_timer.start()
        status = self._connection.status
        if isinstance(job, PlanesRun):
            self._show(job.message(status))
        else:
            self._show(_waiting_words(job.progress, status))
        # Last, because napari's progress bar runs the event loop.
        if job.progress is not None and self._progress is not None:
            _show_progress(self._progress, job.progress)

    def _finish(self, job: SegmentJob | PlanesRun) -> None:
        image, progress = self._image_of_job, self._progress
        self._job = self._image_of_job = self._progress = None
        self._poll_timer.stop()
        self.destroyed.disconnect(job.cancel)
        if progress is not None:
            progress.close()
        self._show_busy(False)
        self._show("")
        if isinstance(job, PlanesRun):
            self._finish_run(job)
            return
        try:
            segmentation = job.result()
            layer = self._results.add(
                image, job.plane, segmentation, self.threshold.value(), request=job.request
            )
        except CancelledError as error:
            self._show(error.message)
        except ClsClipError as error:
            self._show_error(self._error_words(error))
        else:
            self._show(_summary(layer, job, segmentation))

    def _finish_run(self, run: PlanesRun) -> None:
        run.take(all_of_them=True)
        error, ending = run.error, run.ending()
        if error is not None:
            self._show_error(f"{self._error_words(error)} {ending}")
        elif run.has_failures:
            self._show_error(ending)
        else:
            self._show(ending)

    def _error_words(self, error: Exception) -> str:
        if isinstance(error, BackendDiedError) and self._connection.supervisor.local:
            return _LOCAL_DEATH
        return str(error)

    def _apply_threshold(self, threshold: float) -> None:
        layer = self._results.current()
        if layer is not None:
            self._results.set_threshold(layer, threshold)
            self._hidden_planes_timer.start()

    def _update_hidden_plane(self) -> None:
        if not self._results.update_hidden_plane():
            self._hidden_planes_timer.stop()

    def _follow_active_layer(self) -> None:
        """Offer the image that was clicked, and show the threshold of the result that was."""
        active = self._viewer.layers.selection.active
        if isinstance(active, Image) and active in self.image.choices:
            self.image.value = active
        elif isinstance(active, Labels) and active is self._results.current():
            self.threshold.blockSignals(True)
            self.threshold.setValue(self._results.threshold(active))
            self.threshold.blockSignals(False)

    def _follow_image(self, image: Image | None) -> None:
        self.channels.follow(image)
        for widget in (self.channels, self._form.labelForField(self.channels)):
            widget.setVisible(self.channels.possible())
        self.scope.follow(image)

    def _images(self, _: Any) -> list[Image]:
        return [layer for layer in self._viewer.layers if isinstance(layer, Image)]

    def _take_models(self, status: BackendStatus) -> None:
        self.model.offer(status)

    def _show_busy(self, busy: bool) -> None:
        self.segment_button.setEnabled(not busy)
        self.cancel_button.setEnabled(busy)

    def _show(self, text: str) -> None:
        self.message.setStyleSheet("")
        self.message.setText(text)

    def _show_error(self, text: str) -> None:
        self.message.setStyleSheet(f"color: {ERROR_COLOR};")
        self.message.setText(text)
        show_error(text)

    def _lay_out(self) -> None:
        self._form = form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Image", self.image.native)
        form.addRow("Channels", self.channels)
        form.addRow("Scope", self.scope)
        form.addRow("Words", self.words)
        for name, widget in (("model", self.model), ("zoom", self.zoom)):
            field = SegmentSettings.model_fields[name]
            widget.setToolTip(field.description or "")
            form.addRow(field.title or name, widget)
        form.addRow("Threshold", self.threshold)
        buttons = QHBoxLayout()
        buttons.addWidget(self.segment_button, stretch=2)
        buttons.addWidget(self.cancel_button, stretch=1)
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        layout.addLayout(buttons)
        layout.addWidget(self.message)
        layout.addWidget(self.link)
        layout.addStretch(1)


class _ModelCombo(QComboBox):
    """The models of the backend; another name or a run directory can be typed."""

    def __init__(self) -> None:
        super().__init__()
        self.setEditable(True)
        self.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setCurrentText(DEFAULT_MODEL)

    def offer(self, status: BackendStatus) -> None:
        """List the models of the backend; the text stays."""
        if [self.itemText(i) for i in range(self.count())] == [m.name for m in status.models]:
            return
        text = self.currentText()
        self.clear()
        for row, model in enumerate(status.models):
            self.addItem(model.name)
            tooltip = model.description if model.available else f"{model.reason}"
            self.setItemData(row, tooltip, Qt.ItemDataRole.ToolTipRole)
            if not model.available:
                grey = QBrush(QColor("grey"))
                self.setItemData(row, grey, Qt.ItemDataRole.ForegroundRole)
        self.setCurrentText(text)


def _waiting_words(progress: Progress | None, status: BackendStatus) -> str:
    if progress is None:
        starting = status.state is BackendState.STARTING
        return "Waiting for the backend to start …" if starting else "Segmenting …"
    if progress.state == "queued":
        return "Waiting for earlier requests …"
    return f"Segmenting … step {progress.done} of {progress.total or '?'}"


def _show_progress(bar: cancelable_progress, progress: Progress) -> None:
    if progress.total != bar.total:
        bar.total = progress.total
    if progress.done != bar.n:
        bar.update(progress.done - bar.n)


def _summary(layer: Labels, job: SegmentJob, segmentation: Segmentation) -> str:
    labels = job.plane.index.view(layer.data)
    words = segmentation.words
    if len(words) > _WORDS_TOLD_APART:
        found = f"{len(words)} words {np.count_nonzero(labels) / labels.size:.1%}"
    else:
        found = ", ".join(
            f"{word} {np.count_nonzero(labels == k) / labels.size:.1%}"
            for k, word in enumerate(words, start=1)
        )
    part = "plane" if job.plane.index.whole else "region"
    return f"{found} of the {part}, in {segmentation.seconds:.1f} s."
