"""A line that tells the user what happened."""

from __future__ import annotations

from typing import Final

from napari.utils.notifications import show_error
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel

ERROR_COLOR: Final = "#ff6b5e"


class FailureNotice:
    """Says once that something failed which ran when it was last looked at.

    Parameters
    ----------
    message : Message
        Where it is said.
    """

    def __init__(self, message: Message) -> None:
        self._message = message
        self._running = ""

    def look(self, name: str, state: str, words: str) -> None:
        """Take how it stands now.

        Parameters
        ----------
        name, state : str
        words : str
            What to say if it has failed.
        """
        if name == self._running and state == "failed":
            self._message.show_error(words)
        self._running = name if state == "running" else ""


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
