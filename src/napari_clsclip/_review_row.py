"""The part of the Batch tab about the file that is open for review."""

from __future__ import annotations

from typing import Final

from napari.components import ViewerModel
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from clsclip.wire_batch import BatchFile
from napari_clsclip._batch_words import file_details, state_words
from napari_clsclip._connection import BackendConnection
from napari_clsclip._review import Review
from napari_clsclip._review_keys import (
    ACCEPT_KEY,
    NEXT_KEY,
    PREVIOUS_KEY,
    UNCERTAIN_KEY,
    ReviewKeys,
)

_TEACH_TOOLTIP: Final = (
    "Keep each plane that was corrected and accepted also as an example to learn from, see the "
    "Learn tab."
)
_ACCEPT_TOOLTIP: Final = (
    "The labels are right as they are on screen: write what you corrected in every format of the "
    "batch, and let no later run touch this file."
)
_WITHDRAW_TOOLTIP: Final = "The labels are not accepted any more; a later run may replace them."
_UNCERTAIN_TOOLTIP: Final = (
    "Open the file of which the model is least sure, among those neither accepted nor opened."
)
_QUESTION: Final = "You have changed {name} and not accepted it."
_CLICK: Final = "Click a file, or press Next uncertain, to look at its labels."


class ReviewRow(QWidget):
    """What is open, the question about unaccepted changes, and buttons with their keys.

    Parameters
    ----------
    viewer : ViewerModel
    connection : BackendConnection

    Attributes
    ----------
    step_asked : Signal(int)
        The next (1) or previous (-1) file of the list is to be opened.
    uncertain_asked : Signal
        The least certain file is to be opened.
    review : Review
    """

    step_asked = Signal(int)
    uncertain_asked = Signal()

    def __init__(self, viewer: ViewerModel, connection: BackendConnection) -> None:
        super().__init__()
        self.review = Review(viewer, connection, self)
        self._keys = ReviewKeys(
            viewer,
            {
                ACCEPT_KEY: self.review.accept,
                NEXT_KEY: lambda: self.step_asked.emit(1),
                PREVIOUS_KEY: lambda: self.step_asked.emit(-1),
                UNCERTAIN_KEY: self.uncertain_asked.emit,
            },
        )
        self.title = QLabel()
        font = self.title.font()
        font.setBold(True)
        self.title.setFont(font)
        self.question = QLabel()
        for label in (self.title, self.question):
            label.setWordWrap(True)
        self.accept_first_button = QPushButton("Accept")
        self.discard_button = QPushButton("Discard")
        self.stay_button = QPushButton("Stay")
        self.accept_button = _button("Accept", ACCEPT_KEY, _ACCEPT_TOOLTIP)
        self.uncertain_button = _button("Next uncertain", UNCERTAIN_KEY, _UNCERTAIN_TOOLTIP)
        self.previous_button = _button("Previous", PREVIOUS_KEY, "Open the previous file.")
        self.next_button = _button("Next", NEXT_KEY, "Open the next file of the table.")
        self.withdraw_button = QPushButton("Take acceptance back")
        self.withdraw_button.setToolTip(_WITHDRAW_TOOLTIP)
        self.teach = QCheckBox("Teach the model with what I correct")
        self.teach.setToolTip(_TEACH_TOOLTIP)
        self._asked, self._buttons = QWidget(), QWidget()
        self._lay_out()
        self.review.changed.connect(self._show)
        self.review.opened.connect(self._show)
        self.accept_first_button.clicked.connect(self.review.accept)
        self.discard_button.clicked.connect(self.review.discard_and_leave)
        self.stay_button.clicked.connect(self.review.stay)
        self.accept_button.clicked.connect(self.review.accept)
        self.uncertain_button.clicked.connect(self.uncertain_asked)
        self.previous_button.clicked.connect(lambda: self.step_asked.emit(-1))
        self.next_button.clicked.connect(lambda: self.step_asked.emit(1))
        self.withdraw_button.clicked.connect(self.review.withdraw)
        self.teach.toggled.connect(self._set_teach)
        self.destroyed.connect(lambda _=None, keys=self._keys: keys.hold(False))
        self._show()

    def _set_teach(self, teach: bool) -> None:
        self.review.teach = teach

    def _show(self) -> None:
        review, file = self.review, self.review.file
        self._keys.hold(file is not None)
        self.title.setText(review.busy or (_CLICK if file is None else _title(file)))
        self.title.setToolTip("" if file is None else file_details(file))
        self._asked.setVisible(review.asking)
        self.question.setText(_QUESTION.format(name="" if file is None else _name(file)))
        free = file is not None and not review.busy
        self.accept_button.setEnabled(free)
        self._buttons.setVisible(not review.asking)
        self.teach.setVisible(file is None or review.correctable)
        self.withdraw_button.setVisible(file is not None and file.accepted)
        self.withdraw_button.setEnabled(free)

    def _lay_out(self) -> None:
        answers = QHBoxLayout()
        for button in (self.accept_first_button, self.discard_button, self.stay_button):
            answers.addWidget(button)
        asked = QVBoxLayout(self._asked)
        asked.setContentsMargins(0, 0, 0, 0)
        asked.addWidget(self.question)
        asked.addLayout(answers)
        buttons = QGridLayout(self._buttons)
        buttons.setContentsMargins(0, 0, 0, 0)
        buttons.addWidget(self.accept_button, 0, 0)
        buttons.addWidget(self.uncertain_button, 0, 1)
        buttons.addWidget(self.previous_button, 1, 0)
        buttons.addWidget(self.next_button, 1, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.title)
        layout.addWidget(self._asked)
        layout.addWidget(self._buttons)
        layout.addWidget(self.withdraw_button)
        layout.addWidget(self.teach)
        self.title.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)


def _button(text: str, key: str, tooltip: str) -> QPushButton:
    button = QPushButton(f"{text} ({key.replace('Shift-', '⇧')})")
    button.setToolTip(f"{tooltip} Key: {key.replace('-', '+')}, in the viewer.")
    return button


def _name(file: BatchFile) -> str:
    return file.file.replace("\\", "/").rpartition("/")[2]


def _title(file: BatchFile) -> str:
    state = state_words(file) if file.accepted else "not accepted yet"
    return f"{_name(file)}: {state}"
