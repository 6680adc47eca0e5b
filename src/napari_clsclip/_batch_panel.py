"""One batch: which it is, how far it is, and what can be done about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from clsclip.wire_batch import Batch
from napari_clsclip._batch_words import (
    batch_choice,
    batch_details,
    batch_title,
    counts_words,
    finished_part,
    progress_words,
)
from napari_clsclip._message import ERROR_COLOR

_PROGRESS_STEPS: Final = 1000
_PAUSE_TOOLTIP: Final = "Wait after the present file, so that the device is free for other work."
_CANCEL_TOOLTIP: Final = "End after the present file. What is done stays; Resume goes on."
_RESUME_TOOLTIP: Final = "Label what is missing."
_RETRY_TOOLTIP: Final = "Label the files that failed once more."


class BatchPanel(QWidget):
    """Shows a batch and lets the user choose another one; hidden as long as there is none.

    Attributes
    ----------
    pause_asked, resume_asked, cancel_asked : Signal(str)
        A button was pressed; the name of the batch.
    chosen : Signal(str)
        Another batch is to be shown.
    """

    pause_asked = Signal(str)
    resume_asked = Signal(str)
    cancel_asked = Signal(str)
    chosen = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._name = ""
        self._names: tuple[str, ...] = ()
        self.choice = QComboBox()
        self.choice.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.choice.setToolTip("This batch and earlier ones.")
        self.choice.setAccessibleName("Batch")
        self.title = QLabel()
        font = self.title.font()
        font.setBold(True)
        self.title.setFont(font)
        self.progress = QProgressBar(maximum=_PROGRESS_STEPS)
        self.counts = QLabel()
        self.doing = QLabel()
        self.reason = QLabel()
        self.reason.setStyleSheet(f"color: {ERROR_COLOR};")
        self.pause_button = QPushButton("Pause")
        self.resume_button = QPushButton("Resume")
        self.cancel_button = QPushButton("Cancel")
        self.pause_button.setToolTip(_PAUSE_TOOLTIP)
        self.cancel_button.setToolTip(_CANCEL_TOOLTIP)
        buttons = QHBoxLayout()
        for button in (self.pause_button, self.resume_button, self.cancel_button):
            buttons.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (
            self.choice, self.title, self.progress, self.counts, self.doing, self.reason,
        ):  # fmt: skip
            layout.addWidget(widget)
        layout.addLayout(buttons)
        for label in (self.title, self.counts, self.doing, self.reason):
            label.setWordWrap(True)
            label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.choice.activated.connect(lambda row: self.chosen.emit(self._names[row]))
        self.pause_button.clicked.connect(lambda: self.pause_asked.emit(self._name))
        self.resume_button.clicked.connect(lambda: self.resume_asked.emit(self._name))
        self.cancel_button.clicked.connect(lambda: self.cancel_asked.emit(self._name))
        self.hide()

    def show_batch(
        self, batch: Batch | None, batches: Sequence[Batch], *, ordering: bool, pending: str
    ) -> None:
        """Show how a batch stands.

        Parameters
        ----------
        batch : Batch or None
        batches : sequence of Batch
            All that can be chosen.
        ordering : bool
            Whether an order is on its way, so that no other can be given.
        pending : str
            What the batch was told and has not done yet.
        """
        self.setVisible(batch is not None)
        if batch is None:
            return
        self._name = batch.name
        self._list(batches)
        self.title.setText(batch_title(batch))
        self.title.setToolTip(batch_details(batch))
        self.progress.setValue(round(_PROGRESS_STEPS * finished_part(batch)))
        self.progress.setFormat(progress_words(batch))
        self._show_label(self.counts, counts_words(batch))
        running = batch.state == "running"
        self._show_label(self.doing, pending or (batch.doing if running else ""))
        self._show_label(self.reason, "" if running else batch.reason)
        self._show_buttons(batch, ordering=ordering, pending=pending)

    def _show_buttons(self, batch: Batch, *, ordering: bool, pending: str) -> None:
        over = batch.state not in ("running", "paused")
        retry = batch.state == "done" and batch.failed > 0
        self.pause_button.setVisible(batch.state == "running")
        self.resume_button.setVisible(batch.state == "paused" or (over and batch.state != "done"))
        if retry:
            self.resume_button.setVisible(True)
        self.resume_button.setText("Retry failed" if retry else "Resume")
        self.resume_button.setToolTip(_RETRY_TOOLTIP if retry else _RESUME_TOOLTIP)
        self.cancel_button.setVisible(not over)
        self.pause_button.setEnabled(not ordering and not pending)
        self.cancel_button.setEnabled(not ordering and pending != "Ending …")
        self.resume_button.setEnabled(not ordering)

    def _list(self, batches: Sequence[Batch]) -> None:
        texts = [batch_choice(batch) for batch in batches]
        names = tuple(batch.name for batch in batches)
        if names != self._names:
            self._names = names
            self.choice.clear()
            self.choice.addItems(texts)
        for row, (text, batch) in enumerate(zip(texts, batches, strict=True)):
            if text != self.choice.itemText(row):
                self.choice.setItemText(row, text)
            self.choice.setItemData(row, batch_details(batch), Qt.ItemDataRole.ToolTipRole)
        self.choice.setCurrentIndex(names.index(self._name))

    @staticmethod
    def _show_label(label: QLabel, text: str) -> None:
        label.setText(text)
        label.setVisible(bool(text))
