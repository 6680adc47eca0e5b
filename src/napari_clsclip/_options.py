"""The section "More" of the Segment tab: what most requests leave as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from magicgui.widgets import ComboBox
from napari.layers import Shapes
from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QCheckBox

from clsclip.config import (
    AttentionSettings,
    InstanceSettings,
    RegionSettings,
    SegmentSettings,
)
from napari_clsclip._connection import BackendConnection
from napari_clsclip._extra_layers import ExtraChoice
from napari_clsclip._model_combo import ModelCombo
from napari_clsclip._model_download import ModelDownloadRow
from napari_clsclip._section import Section
from napari_clsclip._setting_fields import ObjectFields, RegionFields, ZoomField, add_field

_BOXES_TOOLTIP = (
    "A Shapes layer: rectangles, ellipses or polygons around what you look for. The words are "
    "looked for in the boxes around those on the plane on screen, and nowhere else."
)
_PROBABILITIES_TOOLTIP = "Show the probability of each word as an image layer."
_PROPOSALS_TOOLTIP = "Show the regions in which the words were looked for as a Shapes layer."


class MoreOptions(Section):
    """Model, zoom, regions, single objects and further layers; closed at first.

    Parameters
    ----------
    shapes : callable
        Gives the Shapes layers that are offered.
    connection : BackendConnection

    Attributes
    ----------
    objects_changed : Signal
        Emitted when single objects are to be chosen otherwise.
    """

    objects_changed = Signal()

    def __init__(
        self, shapes: Callable[[Any], list[Shapes]], connection: BackendConnection
    ) -> None:
        super().__init__("More")
        self.model = ModelCombo()
        self.download = ModelDownloadRow(self.model, connection)
        self.zoom = ZoomField()
        self._regions = RegionFields()
        self.regions, self.detector = self._regions.regions, self._regions.detector
        self.boxes = ComboBox(choices=shapes, nullable=True, tooltip=_BOXES_TOOLTIP)
        self._objects = ObjectFields()
        self.min_area, self.min_certainty = self._objects.min_area, self._objects.min_certainty
        self.probabilities = QCheckBox("Probabilities")
        self.probabilities.setToolTip(_PROBABILITIES_TOOLTIP)
        self.proposals = QCheckBox("Regions")
        self.proposals.setToolTip(_PROPOSALS_TOOLTIP)
        self.attention = QCheckBox("Attention")
        self.attention.setToolTip(AttentionSettings.model_fields["attention"].description or "")
        self._lay_out()
        self.min_area.valueChanged.connect(self.objects_changed)
        self.min_certainty.valueChanged.connect(self.objects_changed)
        self.regions.currentTextChanged.connect(self._offer)
        self.boxes.changed.connect(self._offer)
        self._offer()

    def reset_choices(self) -> None:
        """Offer the Shapes layers that are open now."""
        self.boxes.reset_choices()

    def settings(self) -> RegionSettings:
        """What the form says about regions; with boxes, they decide."""
        if self.boxes.value is not None:
            return RegionSettings(regions="auto")
        return self._regions.settings()

    def objects(self) -> InstanceSettings:
        """What the form says about the choice of single objects."""
        return self._objects.settings(instances=True)

    def show_objects(self, settings: InstanceSettings) -> None:
        """Show how single objects were chosen, without a signal."""
        with QSignalBlocker(self.min_area), QSignalBlocker(self.min_certainty):
            self._objects.show_settings(settings)

    def extra(self) -> ExtraChoice:
        """Which further layers are to be shown."""
        return ExtraChoice(
            probabilities=self.probabilities.isChecked(),
            proposals=self.proposals.isChecked(),
            attention=self.attention.isChecked(),
        )

    def _offer(self) -> None:
        """Only what takes part can be changed."""
        self._regions.enable(self.boxes.value is None)

    def _lay_out(self) -> None:
        add_field(self.form, self.model, SegmentSettings.model_fields["model"])
        self.form.addRow(self.download)
        self.zoom.add_to(self.form)
        self._regions.add_to(self.form)
        self.form.addRow("Boxes", self.boxes.native)
        self._objects.add_to(self.form)
        self.form.addRow("Also show", self.probabilities)
        self.form.addRow("", self.proposals)
        self.form.addRow("", self.attention)
