"""The form that begins a batch: what to label, how, and where to."""

from __future__ import annotations

from typing import Final, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QFormLayout,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from clsclip.config import (
    DEFAULT_THRESHOLD,
    ChannelSettings,
    LabelFormat,
    SegmentSettings,
    ThresholdSettings,
)
from clsclip.errors import InvalidConfigError
from clsclip.typed_words import parse_words
from clsclip.wire_batch import BatchRequest
from napari_clsclip._connection import BackendConnection
from napari_clsclip._model_combo import ModelCombo
from napari_clsclip._model_download import ModelDownloadRow
from napari_clsclip._paths_edit import FolderEdit, PathsEdit
from napari_clsclip._section import Section
from napari_clsclip._setting_fields import (
    ObjectFields,
    RegionFields,
    ZoomField,
    add_field,
    objects_box,
)
from napari_clsclip._words_edit import WordsEdit

_FIELDS: Final = BatchRequest.model_fields
_FORMATS_PER_ROW: Final = 3
_ALWAYS: Final = "tiff"
_PREVIEW_TOOLTIP: Final = (
    "Count the files, and label one of them to tell how long all of them take. Nothing is written."
)
_START_TOOLTIP: Final = (
    "Label all of them, in the backend: you can go on meanwhile, or close napari."
)


class BatchForm(QWidget):
    """What a batch is to label.

    Parameters
    ----------
    connection : BackendConnection

    Attributes
    ----------
    preview_asked, start_asked : Signal
        A button was pressed.
    model : ModelCombo
    """

    preview_asked = Signal()
    start_asked = Signal()

    def __init__(self, connection: BackendConnection) -> None:
        super().__init__()
        self.inputs = PathsEdit()
        self.pattern = QLineEdit(_FIELDS["pattern"].default)
        self.recursive = _box(_FIELDS["recursive"])
        self.words = WordsEdit()
        self.objects = objects_box()
        self.output = FolderEdit("Folder for the labels")
        self.formats = {name: QCheckBox(name) for name in get_args(LabelFormat)}
        self.overwrite = _box(_FIELDS["overwrite"])
        self.more = Section("More")
        self.model = ModelCombo()
        self.download = ModelDownloadRow(self.model, connection)
        self.zoom = ZoomField()
        self.channels = QLineEdit()
        self.channels.setPlaceholderText("all")
        self.regions = RegionFields()
        self.threshold = QDoubleSpinBox(minimum=0.01, maximum=1.0, singleStep=0.05, decimals=2)
        self.threshold.setValue(DEFAULT_THRESHOLD)
        self.object_fields = ObjectFields()
        self.preview_button = QPushButton("Preview")
        self.start_button = QPushButton("Start")
        self.preview_text = QLabel()
        self.reason = QLabel()
        self._lay_out()
        self.preview_button.clicked.connect(self.preview_asked)
        self.start_button.clicked.connect(self.start_asked)
        self.objects.toggled.connect(self._offer)
        for changed in (
            self.inputs.text.textChanged, self.pattern.textChanged, self.recursive.toggled,
            self.channels.textChanged,
        ):  # fmt: skip
            changed.connect(lambda *_: self.show_preview(""))  # it was about other files
        self._offer()
        self.disable("")

    def request(self) -> BatchRequest:
        """What is asked for.

        Raises
        ------
        InvalidConfigError, InvalidWordError
            If something is missing.
        """
        inputs, output = self.inputs.paths(), self.output.text.text().strip()
        if not inputs:
            raise InvalidConfigError("There is nothing to label. Choose a folder or image files.")
        words = parse_words(self.words.text())
        if not output:
            raise InvalidConfigError("There is no place for the labels. Choose an output folder.")
        regions = self.regions.settings()
        objects = self.object_fields.settings(instances=self.objects.isChecked())
        return BatchRequest(
            inputs=inputs,
            pattern=self.pattern.text().strip() or _FIELDS["pattern"].default,
            recursive=self.recursive.isChecked(),
            words=words,
            output=output,
            formats=tuple(name for name, box in self.formats.items() if box.isChecked()),
            overwrite=self.overwrite.isChecked(),
            model=self.model.name,
            channels=self._channels(),
            zoom=self.zoom.value() or None,
            threshold=round(self.threshold.value(), 2),
            **regions.model_dump(),
            **objects.model_dump(),
        )

    def _channels(self) -> str:
        try:
            return ChannelSettings(channels=self.channels.text()).channels
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise InvalidConfigError(
                f"'{self.channels.text()}' names no channels: {reason}."
            ) from error

    def disable(self, reason: str, *, busy: bool = False, other: str = "") -> None:
        """Let nothing be asked, and say why; an empty reason lets it be asked.

        Parameters
        ----------
        reason : str
        busy : bool
            Whether a preview is under way.
        other : str
            Why no batch can begin, although one can be previewed.
        """
        for button, tooltip, why in (
            (self.preview_button, _PREVIEW_TOOLTIP, reason),
            (self.start_button, _START_TOOLTIP, reason or other),
        ):
            button.setEnabled(not why)
            button.setToolTip(why or tooltip)
            button.setAccessibleDescription(why)
        if busy:
            self.preview_button.setEnabled(False)
        self.reason.setText(reason or other)
        self.reason.setVisible(bool(reason or other))

    def show_preview(self, text: str) -> None:
        """Say what the batch would do; nothing hides the line."""
        self.preview_text.setText(text)
        self.preview_text.setVisible(bool(text))

    def _offer(self) -> None:
        """Only what takes part can be changed."""
        for widget in (self.object_fields.min_area, self.object_fields.min_certainty):
            widget.setEnabled(self.objects.isChecked())

    def _lay_out(self) -> None:
        formats = QWidget()
        grid = QGridLayout(formats)
        grid.setContentsMargins(0, 0, 0, 0)
        for place, (name, box) in enumerate(self.formats.items()):
            box.setChecked(name in _FIELDS["formats"].default)
            box.setEnabled(name != _ALWAYS)
            box.setToolTip(_FIELDS["formats"].description or "")
            grid.addWidget(box, place // _FORMATS_PER_ROW, place % _FORMATS_PER_ROW)
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        add_field(form, self.inputs, _FIELDS["inputs"])
        add_field(form, self.pattern, _FIELDS["pattern"])
        form.addRow("", self.recursive)
        add_field(form, self.words, _FIELDS["words"])
        form.addRow("", self.objects)
        add_field(form, self.output, _FIELDS["output"])
        add_field(form, formats, _FIELDS["formats"])
        form.addRow("", self.overwrite)
        add_field(self.more.form, self.model, SegmentSettings.model_fields["model"])
        self.more.form.addRow(self.download)
        add_field(self.more.form, self.channels, _FIELDS["channels"])
        self.zoom.add_to(self.more.form)
        self.regions.add_to(self.more.form)
        add_field(self.more.form, self.threshold, ThresholdSettings.model_fields["threshold"])
        self.object_fields.add_to(self.more.form)
        buttons = QHBoxLayout()
        buttons.addWidget(self.preview_button)
        buttons.addWidget(self.start_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(form)
        layout.addWidget(self.more)
        layout.addLayout(buttons)
        for label in (self.preview_text, self.reason):
            label.setWordWrap(True)
            layout.addWidget(label)
        self.show_preview("")


def _box(field: FieldInfo) -> QCheckBox:
    box = QCheckBox(field.title or "")
    box.setToolTip(field.description or "")
    return box
