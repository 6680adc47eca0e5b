"""Lines in which paths are typed, dropped or browsed for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from qtpy.QtCore import QMimeData
from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QPlainTextEdit,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

LINES: Final = 2
"""Paths that are shown without scrolling."""

_ROOM: Final = 6


class PathsEdit(QWidget):
    """Several paths, one a line, with buttons to add a folder or files.

    Attributes
    ----------
    text : QPlainTextEdit
    """

    def __init__(self) -> None:
        super().__init__()
        self.text = _PathLines()
        self.folder_button = QPushButton("Folder …")
        self.folder_button.setToolTip("Add a folder of images.")
        self.files_button = QPushButton("Files …")
        self.files_button.setToolTip("Add single image files.")
        buttons = QHBoxLayout()
        buttons.addWidget(self.folder_button)
        buttons.addWidget(self.files_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self.text)
        layout.addLayout(buttons)
        self.setFocusProxy(self.text)
        self.folder_button.clicked.connect(self._browse_folder)
        self.files_button.clicked.connect(self._browse_files)

    def paths(self) -> tuple[str, ...]:
        """The paths, each once, without empty lines."""
        lines = (line.strip() for line in self.text.toPlainText().splitlines())
        return tuple(dict.fromkeys(line for line in lines if line))

    def add(self, paths: Sequence[str]) -> None:
        """Add paths that are not there yet."""
        self.text.setPlainText("\n".join(dict.fromkeys((*self.paths(), *paths))))

    def _browse_folder(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Folder of images to label")
        if chosen:
            self.add([chosen])

    def _browse_files(self) -> None:
        chosen, _ = QFileDialog.getOpenFileNames(self, "Images to label")
        self.add(chosen)


class FolderEdit(QWidget):
    """One folder, typed or browsed for.

    Parameters
    ----------
    title : str
        Of the dialog.

    Attributes
    ----------
    text : QLineEdit
    """

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title
        self.text = QLineEdit()
        self.browse_button = QPushButton("…")
        self.browse_button.setToolTip(title)
        self.browse_button.setAccessibleName(title)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.text, stretch=1)
        layout.addWidget(self.browse_button)
        self.setFocusProxy(self.text)
        self.browse_button.clicked.connect(self._browse)

    def _browse(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, self._title, self.text.text())
        if chosen:
            self.text.setText(chosen)


class _PathLines(QPlainTextEdit):
    """Plain text that takes dropped files as their paths."""

    def __init__(self) -> None:
        super().__init__()
        self.setStyleSheet("QPlainTextEdit { border: 1px solid grey; }")  # napari draws no frame
        self.setPlaceholderText("a folder or a file per line")
        self.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.setTabChangesFocus(True)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        frame = self.frameWidth() + int(self.document().documentMargin())
        bar = self.horizontalScrollBar().sizeHint().height()  # of long paths
        self.setFixedHeight(self.fontMetrics().lineSpacing() * LINES + 2 * frame + bar + _ROOM)

    def insertFromMimeData(self, source: QMimeData) -> None:  # noqa: N802 - Qt's name
        """Insert what is dropped or pasted."""
        files = [url.toLocalFile() for url in source.urls() if url.isLocalFile()]
        if not files:
            super().insertFromMimeData(source)
            return
        before = self.toPlainText().splitlines()
        self.setPlainText("\n".join(dict.fromkeys(line for line in (*before, *files) if line)))
