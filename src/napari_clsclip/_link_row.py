"""The button that links the objects of the active label layer through its planes."""

from __future__ import annotations

from typing import Final

from napari.components import ViewerModel
from napari.layers import Labels
from napari.utils.notifications import show_error
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QDoubleSpinBox, QHBoxLayout, QPushButton, QWidget

from clsclip.config import DEFAULT_MIN_OVERLAP, LinkSettings
from clsclip.errors import CancelledError, ClsClipError
from napari_clsclip._link_job import LinkJob, hidden_axes, linked_layer
from napari_clsclip._result_looks import METADATA_KEY

POLL_MILLISECONDS: Final = 100

_BUTTON: Final = "Link through planes"
_TOOLTIP: Final = (
    "Give the single objects of the selected label layer the same id in every plane in which they "
    "overlap, in a new layer. With several sliders, the last axis is linked first: objects in "
    "space, then through time."
)


class LinkRow(QWidget):
    """Button and smallest overlap; shown while a label layer with planes is the active one.

    Results whose values are classes instead of single objects do not count.

    Parameters
    ----------
    viewer : ViewerModel
    """

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        self._job: LinkJob | None = None
        self._layer: Labels | None = None
        self._timer = QTimer(self, interval=POLL_MILLISECONDS)
        self._timer.timeout.connect(self._poll)
        self.button = QPushButton(_BUTTON)
        self.button.setToolTip(_TOOLTIP)
        self.min_overlap = QDoubleSpinBox(minimum=0.01, maximum=1.0, singleStep=0.05)
        self.min_overlap.setValue(DEFAULT_MIN_OVERLAP)
        self.min_overlap.setPrefix("≥ ")
        field = LinkSettings.model_fields["min_overlap"]
        self.min_overlap.setToolTip(f"{field.title}: {field.description}")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.button, stretch=1)
        layout.addWidget(self.min_overlap)
        self.button.clicked.connect(self.link)
        viewer.layers.selection.events.active.connect(self._follow_active_layer)
        self._follow_active_layer()

    @property
    def busy(self) -> bool:
        """Whether objects are being linked."""
        return self._job is not None

    def link(self) -> None:
        """Link the active layer, or cancel what is running; returns at once."""
        if self._job is not None:
            self._job.cancel()
            self._poll()
            return
        layer = self._viewer.layers.selection.active
        if not isinstance(layer, Labels):
            return
        axes = hidden_axes(layer, self._viewer.dims)
        self._job = job = LinkJob(layer, axes, self.min_overlap.value())
        self._layer = layer
        self.destroyed.connect(job.cancel)
        job.start()
        self._timer.start()
        self._poll()

    def _poll(self) -> None:
        job, layer = self._job, self._layer
        if job is None or layer is None:
            return
        if not job.done:
            self.button.setText(f"Cancel linking ({job.done_planes:,} of {job.planes:,})")
            return
        self._job = self._layer = None
        self._timer.stop()
        self.destroyed.disconnect(job.cancel)
        self.button.setText(_BUTTON)
        try:
            linked = linked_layer(layer, job.result())
        except CancelledError:
            pass  # the user knows
        except ClsClipError as error:
            show_error(error.message)
        else:
            self._viewer.add_layer(linked)
        self._follow_active_layer()

    def _follow_active_layer(self) -> None:
        layer = self._viewer.layers.selection.active
        self.setVisible(self.busy or (isinstance(layer, Labels) and _may_hold_objects(layer)))


def _may_hold_objects(layer: Labels) -> bool:
    """Whether a layer has planes, and is not a result that holds classes."""
    return layer.ndim > 2 and "classes" not in layer.metadata.get(METADATA_KEY, {})
