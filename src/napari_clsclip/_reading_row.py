"""How far the reading of files is, and a button that ends it."""

from __future__ import annotations

from typing import Final

from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_clsclip._reading import Reading, ReadingProgress

POLL_MILLISECONDS: Final = 100

_STEPS: Final = 1000


class ReadingRow(QWidget):
    """Shown while napari reads files for a batch.

    Attributes
    ----------
    cancel_asked : Signal
        The button was pressed.
    """

    cancel_asked = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._reading: Reading | None = None
        self.text = QLabel()
        self.text.setWordWrap(True)
        self.bar = QProgressBar(maximum=_STEPS)
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.setToolTip("Read no further file. What was read is kept.")
        self.cancel_button.clicked.connect(self._cancel)
        below = QHBoxLayout()
        below.addWidget(self.bar, stretch=1)
        below.addWidget(self.cancel_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.text)
        layout.addLayout(below)
        self._timer = QTimer(self, interval=POLL_MILLISECONDS)
        self._timer.timeout.connect(self._look)
        self.hide()

    def follow(self, reading: Reading | None) -> None:
        """Show how far a reading is from now on; None: hide."""
        if reading is self._reading:
            return
        self._reading = reading
        if reading is None:
            self._timer.stop()
            self.hide()
            return
        self.cancel_button.setEnabled(True)
        self._timer.start()

    def _look(self) -> None:
        progress = None if self._reading is None else self._reading.progress
        if progress is not None:  # most batches have nothing to read
            self.text.setText(reading_words(progress))
            self.bar.setValue(round(_STEPS * _part(progress)))
            self.show()

    def _cancel(self) -> None:
        self.cancel_button.setEnabled(False)
        self.cancel_asked.emit()


def reading_words(progress: ReadingProgress) -> str:
    """``napari reads 3 of 12: cells.czi, plane 5 of 40 …``."""
    plane = f", plane {progress.plane + 1:,} of {progress.planes:,}" if progress.planes > 1 else ""
    number = f"{progress.done + 1:,} of {progress.total:,}"
    return f"napari reads {number}: {progress.name}{plane} …"


def _part(progress: ReadingProgress) -> float:
    inside = progress.plane / progress.planes if progress.planes else 0.0
    return (progress.done + inside) / progress.total
