"""A line that tells the user what happened."""

from __future__ import annotations

from typing import Final

from napari.utils.notifications import show_error
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel

ERROR_COLOR: Final = "#ff6b5e"


class Message(QLabel):
    """Text that wraps and can be selected; errors in red, and as a notification of napari."""

    def __init__(self) -> None:
        super().__init__()
        self.setWordWrap(True)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)

    def show_text(self, text: str) -> None:
        """Say something."""
        if self.styleSheet():  # setting one is costly, also if nothing changes
            self.setStyleSheet("")
        self.setText(text)

    def show_error(self, text: str) -> None:
        """Say what went wrong."""
        self.setStyleSheet(f"color: {ERROR_COLOR};")
        self.setText(text)
        show_error(text)
