"""A list of words to check, each with the number of planes that were accepted of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QCheckBox, QFrame, QScrollArea, QSizePolicy, QVBoxLayout, QWidget

ROWS: Final = 5
"""Words that are shown without scrolling."""


class WordChecks(QScrollArea):
    """A check box per word.

    Attributes
    ----------
    changed : Signal
        Other words are checked now.
    """

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._boxes: dict[str, QCheckBox] = {}
        self._defaults: frozenset[str] = frozenset()
        self._by_hand = False
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # the boxes take it
        self._lay_out({})

    def offer(self, words: Mapping[str, int], defaults: Collection[str]) -> None:
        """List words.

        Parameters
        ----------
        words : mapping of str to int
            How many planes were accepted of each.
        defaults : collection of str
            Words to check. What the user has checked instead stays, and what joins the defaults
            is checked too, until a word is no default any more.
        """
        wanted = frozenset(defaults)
        if self._by_hand and wanted >= self._defaults:
            checked = {*self.checked(), *(wanted - self._defaults)}
        else:
            checked, self._by_hand = set(wanted), False
        self._defaults = wanted
        self._show(words, checked)

    def checked(self) -> tuple[str, ...]:
        """The words that are checked, in the order of the list."""
        return tuple(word for word, box in self._boxes.items() if box.isChecked())

    def box(self, word: str) -> QCheckBox:
        """The check box of a word."""
        return self._boxes[word]

    def _show(self, words: Mapping[str, int], checked: Collection[str]) -> None:
        before = self.checked()
        if tuple(words) != tuple(self._boxes):
            self._lay_out(words)
        for word, box in self._boxes.items():
            count = words[word]
            shown = word.replace("&", "&&")  # else Qt makes a shortcut of it
            box.setText(f"{shown} ({count:,} {'plane' if count == 1 else 'planes'})")
            box.setToolTip(f"Learn '{word}' from all that was accepted of it.")
            box.blockSignals(True)
            box.setChecked(word in checked)
            box.blockSignals(False)
        if self.checked() != before:
            self.changed.emit()

    def _lay_out(self, words: Mapping[str, int]) -> None:
        content = QWidget()
        layout = QVBoxLayout(content)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        self._boxes = {word: QCheckBox() for word in words}
        for box in self._boxes.values():
            box.toggled.connect(self._take_choice)
            layout.addWidget(box)
        layout.addStretch(1)
        self.setWidget(content)
        row = self.fontMetrics().height() + 8
        self.setFixedHeight(row * max(1, min(len(words), ROWS)))

    def _take_choice(self) -> None:
        self._by_hand = True
        self.changed.emit()
