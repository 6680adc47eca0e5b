"""The form that begins a training: words, longest time, note, and the button."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QDoubleSpinBox,
    QFormLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from clsclip.wire_training import LONGEST_MINUTES, TrainingRequest
from napari_clsclip._word_checks import WordChecks

_FIELDS: Final = TrainingRequest.model_fields
_LEARN_TOOLTIP: Final = (
    "Make a new version of the model that knows the checked words better, from the planes that "
    "were accepted. Meanwhile you can go on. It becomes the active version only if held-out "
    "planes say that it is better."
)
_MODEL_TOOLTIP: Final = "The model that is chosen in the Segment tab (under More)."
_SHORTEST_MINUTES: Final = 0.1
_LONGEST_NOTE: Final[int] = TrainingRequest.model_json_schema()["properties"]["note"]["maxLength"]


class TrainingForm(QWidget):
    """What a training is to learn.

    Attributes
    ----------
    learn_asked : Signal
        The button was pressed.
    changed : Signal
        Other words are checked.
    """

    learn_asked = Signal()
    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.words = WordChecks()
        self.minutes = QDoubleSpinBox(
            minimum=_SHORTEST_MINUTES, maximum=LONGEST_MINUTES, singleStep=0.5, decimals=1
        )
        self.minutes.setValue(_FIELDS["minutes"].default)
        self.minutes.setSuffix(" min")
        self.minutes.setToolTip(_FIELDS["minutes"].description or "")
        self.note = QLineEdit()
        self.note.setPlaceholderText("optional")
        self.note.setMaxLength(_LONGEST_NOTE)
        self.note.setToolTip(_FIELDS["note"].description or "")
        self.model = QLabel()
        self.model.setToolTip(_MODEL_TOOLTIP)
        self.model.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.model.setWordWrap(True)
        self.learn_button = QPushButton("Learn")
        self.reason = QLabel()
        self.reason.setWordWrap(True)
        self.inputs = QWidget()
        form = QFormLayout(self.inputs)
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Words", self.words)
        form.addRow("At most", self.minutes)
        form.addRow("Note", self.note)
        form.addRow("From", self.model)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self.inputs, self.learn_button, self.reason):
            layout.addWidget(widget)
        self.words.changed.connect(self.changed)
        self.learn_button.clicked.connect(self.learn_asked)
        self.disable("")

    def offer(self, words: Mapping[str, int], defaults: Collection[str]) -> None:
        """List the words that were accepted; see :meth:`WordChecks.offer`."""
        self.words.offer(words, defaults)

    def show_model(self, name: str) -> None:
        """Say which version a training goes on from."""
        self.model.setText(name)

    def request(self) -> TrainingRequest:
        """What is asked for; at least one word must be checked."""
        return TrainingRequest(
            words=self.words.checked(),
            model=self.model.text(),
            minutes=round(self.minutes.value(), 1),
            note=self.note.text().strip(),
        )

    def disable(self, reason: str) -> None:
        """Let nothing be begun, and say why; an empty reason lets it be begun."""
        self.learn_button.setEnabled(not reason)
        self.learn_button.setToolTip(reason or _LEARN_TOOLTIP)
        self.learn_button.setAccessibleDescription(reason)
        self.reason.setText(reason)
        self.reason.setVisible(bool(reason))
