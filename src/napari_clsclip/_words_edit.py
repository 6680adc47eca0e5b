"""The line in which class words are typed."""

from __future__ import annotations

from qtpy.QtCore import QModelIndex, QPersistentModelIndex, QStringListModel, Qt
from qtpy.QtWidgets import QCompleter, QLineEdit, QWidget


class WordsEdit(QLineEdit):
    """Comma-separated class words; offers the words of earlier requests after each comma."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setPlaceholderText("nucleus, cell")
        self._earlier = QStringListModel(self)
        self.setCompleter(_LastWordCompleter(self._earlier, self))

    def remember(self, words: tuple[str, ...]) -> None:
        """Offer words from now on, the latest first."""
        known = [word for word in self._earlier.stringList() if word not in words]
        self._earlier.setStringList([*words, *known])


class _LastWordCompleter(QCompleter):
    """Completes what stands after the last comma."""

    def __init__(self, words: QStringListModel, line: QLineEdit) -> None:
        super().__init__(words, line)
        self._line = line
        self.setCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)

    def splitPath(self, path: str) -> list[str]:  # noqa: N802 (Qt's name)
        return [path.rpartition(",")[2].strip()]

    def pathFromIndex(self, index: QModelIndex | QPersistentModelIndex) -> str:  # noqa: N802
        before, comma, _ = self._line.text().rpartition(",")
        word = str(index.data(Qt.ItemDataRole.EditRole))
        return f"{before.rstrip()}{comma} {word}" if comma else word
