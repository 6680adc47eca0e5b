"""The section "More" of the Segment tab: what most requests leave as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from magicgui.widgets import ComboBox
from napari.layers import Shapes
from pydantic.fields import FieldInfo
from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtGui import QIcon, QPixmap
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QLineEdit,
    QSpinBox,
    QWidget,
)
from superqt import QCollapsible

from clsclip.config import InstanceSettings, RegionMode, RegionSettings, SegmentSettings
from napari_clsclip._model_combo import ModelCombo

_BOXES_TOOLTIP = (
    "A Shapes layer: rectangles, ellipses or polygons around what you look for. The words are "
    "looked for in the boxes around those on the plane on screen, and nowhere else."
)
_PROBABILITIES_TOOLTIP = "Show the probability of each word as an image layer."
_PROPOSALS_TOOLTIP = "Show the regions in which the words were looked for as a Shapes layer."
_CLOSED = "\N{BLACK RIGHT-POINTING SMALL TRIANGLE} More"
_OPEN = "\N{BLACK DOWN-POINTING SMALL TRIANGLE} More"
_BUTTON_STYLE = "text-align: left; border: none; outline: none; background: transparent;"
_LARGEST_AREA = 10**9
_WITH_DETECTOR = ("auto", "detector", "open-vocabulary")


class MoreOptions(QCollapsible):
    """Model, zoom, regions, single objects and further layers; closed at first.

    Parameters
    ----------
    shapes : callable
        Gives the Shapes layers that are offered.

    Attributes
    ----------
    objects_changed : Signal
        Emitted when single objects are to be chosen otherwise.
    """

    objects_changed = Signal()

    def __init__(self, shapes: Callable[[Any], list[Shapes]]) -> None:
        # superqt's own icons are black on whatever theme, so the text has the triangle.
        nothing = QPixmap(1, 1)
        nothing.fill(Qt.GlobalColor.transparent)
        super().__init__(_CLOSED, expandedIcon=QIcon(nothing), collapsedIcon=QIcon(nothing))
        self.toggleButton().setIconSize(nothing.size())
        self.toggled.connect(lambda opened: self.setText(_OPEN if opened else _CLOSED))
        self.toggleButton().setStyleSheet(_BUTTON_STYLE)
        self.model = ModelCombo()
        self.zoom = QDoubleSpinBox(minimum=0.0, maximum=16.0, singleStep=0.25)
        self.zoom.setSpecialValueText("automatic")
        self.regions = QComboBox()
        self.regions.addItems(get_args(RegionMode))
        self.detector = QLineEdit()
        self.boxes = ComboBox(choices=shapes, nullable=True, tooltip=_BOXES_TOOLTIP)
        self.min_area = QSpinBox(minimum=1, maximum=_LARGEST_AREA)
        self.min_certainty = QDoubleSpinBox(minimum=0.0, maximum=0.99, singleStep=0.05)
        self.probabilities = QCheckBox("Probabilities")
        self.probabilities.setToolTip(_PROBABILITIES_TOOLTIP)
        self.proposals = QCheckBox("Regions")
        self.proposals.setToolTip(_PROPOSALS_TOOLTIP)
        self._lay_out()
        self.show_objects(InstanceSettings())
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
        mode = self.regions.currentText()
        detector = self.detector.text().strip() if mode in _WITH_DETECTOR else ""
        return RegionSettings.model_validate({"regions": mode, "detector": detector})

    def objects(self) -> InstanceSettings:
        """What the form says about the choice of single objects."""
        return InstanceSettings(
            instances=True,
            min_area=self.min_area.value(),
            min_certainty=round(self.min_certainty.value(), 2),
        )

    def show_objects(self, settings: InstanceSettings) -> None:
        """Show how single objects were chosen, without a signal."""
        with QSignalBlocker(self.min_area), QSignalBlocker(self.min_certainty):
            self.min_area.setValue(settings.min_area)
            self.min_certainty.setValue(settings.min_certainty)

    @property
    def shows_more(self) -> bool:
        """Whether further layers are to be shown."""
        return self.probabilities.isChecked() or self.proposals.isChecked()

    def _offer(self) -> None:
        """Only what takes part can be changed."""
        drawn = self.boxes.value is not None
        self.regions.setEnabled(not drawn)
        self.detector.setEnabled(not drawn and self.regions.currentText() in _WITH_DETECTOR)

    def _lay_out(self) -> None:
        content = QWidget()
        form = QFormLayout(content)
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self.detector.setPlaceholderText("of the model, if any")
        _add(form, self.model, SegmentSettings.model_fields["model"])
        _add(form, self.zoom, SegmentSettings.model_fields["zoom"])
        _add(form, self.regions, RegionSettings.model_fields["regions"])
        _add(form, self.detector, RegionSettings.model_fields["detector"])
        form.addRow("Boxes", self.boxes.native)
        _add(form, self.min_area, InstanceSettings.model_fields["min_area"])
        _add(form, self.min_certainty, InstanceSettings.model_fields["min_certainty"])
        form.addRow("Also show", self.probabilities)
        form.addRow("", self.proposals)
        for widget in (self, self.content()):
            if layout := widget.layout():
                layout.setContentsMargins(0, 0, 0, 0)
        self.addWidget(content)
        self.collapse(animate=False)


def _add(form: QFormLayout, widget: QWidget, field: FieldInfo) -> None:
    widget.setToolTip(field.description or "")
    form.addRow(field.title or "", widget)
