"""Widgets for settings that several forms ask for; titles and help texts are the settings' own."""

from __future__ import annotations

from typing import Final, get_args

from pydantic.fields import FieldInfo
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QLineEdit,
    QSpinBox,
    QWidget,
)

from clsclip.config import InstanceSettings, RegionMode, RegionSettings, SegmentSettings

_LARGEST_AREA: Final = 10**9
_WITH_DETECTOR: Final = ("auto", "detector", "open-vocabulary")


def add_field(form: QFormLayout, widget: QWidget, field: FieldInfo) -> None:
    """Add a row for a setting."""
    widget.setToolTip(field.description or "")
    form.addRow(field.title or "", widget)


class ZoomField(QDoubleSpinBox):
    """The zoom; 0 is automatic."""

    def __init__(self) -> None:
        super().__init__(minimum=0.0, maximum=16.0, singleStep=0.25)
        self.setSpecialValueText("automatic")

    def add_to(self, form: QFormLayout) -> None:
        """Add a row to a form."""
        add_field(form, self, SegmentSettings.model_fields["zoom"])


class RegionFields:
    """Two rows: where region proposals come from, and from which detector.

    Attributes
    ----------
    regions : QComboBox
    detector : QLineEdit
    """

    def __init__(self) -> None:
        self.regions = QComboBox()
        self.regions.addItems(get_args(RegionMode))
        self.detector = QLineEdit()
        self.detector.setPlaceholderText("of the model, if any")
        self.regions.currentTextChanged.connect(lambda _: self.enable(True))
        self.enable(True)

    def add_to(self, form: QFormLayout) -> None:
        """Add the rows to a form."""
        add_field(form, self.regions, RegionSettings.model_fields["regions"])
        add_field(form, self.detector, RegionSettings.model_fields["detector"])

    def enable(self, enabled: bool) -> None:
        """Let the user change what takes part, or nothing."""
        self.regions.setEnabled(enabled)
        self.detector.setEnabled(enabled and self.regions.currentText() in _WITH_DETECTOR)

    def settings(self) -> RegionSettings:
        """What the rows say."""
        mode = self.regions.currentText()
        detector = self.detector.text().strip() if mode in _WITH_DETECTOR else ""
        return RegionSettings.model_validate({"regions": mode, "detector": detector})


class ObjectFields:
    """Two rows: which single objects are dropped.

    Attributes
    ----------
    min_area : QSpinBox
    min_certainty : QDoubleSpinBox
    """

    def __init__(self) -> None:
        self.min_area = QSpinBox(minimum=1, maximum=_LARGEST_AREA)
        self.min_certainty = QDoubleSpinBox(minimum=0.0, maximum=0.99, singleStep=0.05)
        self.show_settings(InstanceSettings())

    def add_to(self, form: QFormLayout) -> None:
        """Add the rows to a form."""
        add_field(form, self.min_area, InstanceSettings.model_fields["min_area"])
        add_field(form, self.min_certainty, InstanceSettings.model_fields["min_certainty"])

    def show_settings(self, settings: InstanceSettings) -> None:
        """Show how single objects were chosen."""
        self.min_area.setValue(settings.min_area)
        self.min_certainty.setValue(settings.min_certainty)

    def settings(self, *, instances: bool) -> InstanceSettings:
        """What the rows say."""
        return InstanceSettings(
            instances=instances,
            min_area=self.min_area.value(),
            min_certainty=round(self.min_certainty.value(), 2),
        )


def objects_box() -> QCheckBox:
    """A box for whether single objects are told apart."""
    field = InstanceSettings.model_fields["instances"]
    box = QCheckBox(field.title or "")
    box.setToolTip(field.description or "")
    return box
