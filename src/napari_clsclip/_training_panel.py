"""One training: what it is doing, its curves, and what came of it."""

from __future__ import annotations

from typing import Final

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from clsclip.wire_training import Training, VersionList
from napari_clsclip._curve import TrainingCurve
from napari_clsclip._message import ERROR_COLOR
from napari_clsclip._training_words import (
    can_go_on,
    changes_line,
    doing,
    eta_words,
    headline,
    outcome,
)

_CANCEL: Final = "Cancel"
_ENDING: Final = "Ending …"
_CANCEL_TOOLTIP: Final = "End the training now, with what is best so far."
_RESUME_TOOLTIP: Final = "Go on from the last checkpoint of this training."
_PROGRESS_STEPS: Final = 1000


class TrainingPanel(QWidget):
    """Shows a training; hidden as long as there is none.

    Attributes
    ----------
    cancel_asked, resume_asked : Signal(str)
        A button was pressed; the name of the training.
    """

    cancel_asked = Signal(str)
    resume_asked = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._name = ""
        self.title = QLabel()
        font = self.title.font()
        font.setBold(True)
        self.title.setFont(font)
        self.progress = QProgressBar(maximum=_PROGRESS_STEPS)
        self.doing = QLabel()
        self.curve = TrainingCurve()
        self.outcome = QLabel()
        self.cancel_button = QPushButton(_CANCEL)
        self.cancel_button.setToolTip(_CANCEL_TOOLTIP)
        self.resume_button = QPushButton("Continue")
        self.resume_button.setToolTip(_RESUME_TOOLTIP)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (
            self.title, self.progress, self.doing, self.curve, self.outcome, self.cancel_button,
            self.resume_button,
        ):  # fmt: skip
            layout.addWidget(widget)
        for label in (self.title, self.doing, self.outcome):
            label.setWordWrap(True)
            label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.cancel_button.clicked.connect(lambda: self.cancel_asked.emit(self._name))
        self.resume_button.clicked.connect(lambda: self.resume_asked.emit(self._name))
        self.hide()

    def show_training(
        self, training: Training | None, versions: VersionList, *, ordering: bool, ending: bool
    ) -> None:
        """Show how a training stands.

        Parameters
        ----------
        training : Training or None
            With its curve.
        versions : VersionList
        ordering : bool
            Whether an order is on its way, so that no other can be given.
        ending : bool
            Whether it was told to end, which takes a moment.
        """
        self.setVisible(training is not None)
        if training is None:
            return
        self._name = training.name
        running = training.state == "running"
        self.title.setText(headline(training))
        self.title.setToolTip(f"{training.name}, goes on from {training.model}")
        left = eta_words(training.eta_seconds)
        self.progress.setValue(round(_PROGRESS_STEPS * training.part))
        self.progress.setFormat(f"{training.part:.0%}{', ' if left else ''}{left}")
        self.doing.setText(doing(training))
        self.curve.show_points(training.curve)
        self.outcome.setText(outcome(training, versions))
        every = changes_line(training.changes, old_words=len(training.changes))
        self.outcome.setToolTip("\n".join(text for text in (every, training.reason) if text))
        style = f"color: {ERROR_COLOR};" if training.state == "failed" else ""
        if style != self.outcome.styleSheet():
            self.outcome.setStyleSheet(style)
        for widget in (self.progress, self.doing, self.cancel_button):
            widget.setVisible(running)
        self.outcome.setVisible(not running)
        self.curve.setVisible(bool(training.curve) or running)
        self.resume_button.setVisible(can_go_on(training))
        self.cancel_button.setEnabled(not ordering and not ending)
        self.cancel_button.setText(_ENDING if ending else _CANCEL)
        self.resume_button.setEnabled(not ordering)
