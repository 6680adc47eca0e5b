"""The Learn tab: accept corrected labels, learn from them, and choose among the versions."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Final

from napari.components import ViewerModel
from napari.layers import Labels
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QLabel, QPushButton, QVBoxLayout, QWidget

from clsclip.config import MAX_WORDS
from napari_clsclip._accept_row import AcceptRow
from napari_clsclip._connection import BackendConnection
from napari_clsclip._learning import Learning
from napari_clsclip._message import FailureNotice, Message
from napari_clsclip._next_row import NextRow
from napari_clsclip._scrolled import scrolled
from napari_clsclip._segment_tab import SegmentTab
from napari_clsclip._supervisor import BackendState
from napari_clsclip._training_form import TrainingForm
from napari_clsclip._training_panel import TrainingPanel
from napari_clsclip._training_watch import TrainingWatch
from napari_clsclip._training_words import headline
from napari_clsclip._versions_table import VersionsTable

_GAP: Final = 10


class LearnTab(QWidget):
    """Four parts, one below the other, over a line with messages.

    Parameters
    ----------
    viewer : ViewerModel
    connection : BackendConnection
    segment_tab : SegmentTab
        Says which image, result and model are meant, and follows the active version.

    Attributes
    ----------
    accept_row : AcceptRow
    next_row : NextRow
    form : TrainingForm
    panel : TrainingPanel
    versions : VersionsTable
    watch : TrainingWatch
    message : Message
    """

    def __init__(
        self, viewer: ViewerModel, connection: BackendConnection, segment_tab: SegmentTab
    ) -> None:
        super().__init__()
        self._model = segment_tab.model
        self.message = Message()
        self._failure = FailureNotice(self.message)
        self.accept_row = AcceptRow(viewer, connection, segment_tab, self.message)
        self.next_row = NextRow(viewer, connection, segment_tab, self.message)
        self.form = TrainingForm()
        self.panel = TrainingPanel()
        self.versions = VersionsTable()
        self._versions_title = _title("Versions")
        self._lay_out()
        self.watch = TrainingWatch(connection, self)
        self.watch.changed.connect(self._show_learning)
        self.watch.refused.connect(self.message.show_error)
        self.watch.begun.connect(self.form.note.clear)
        self.watch.activated.connect(self._model.choose)
        self.accept_row.stored_changed.connect(self._offer_words)
        self.form.changed.connect(self._show_whether_possible)
        self.form.learn_asked.connect(self._learn)
        self.panel.cancel_asked.connect(self.watch.cancel)
        self.panel.resume_asked.connect(self.watch.resume)
        self.versions.use_asked.connect(self.watch.activate)
        self._model.currentTextChanged.connect(self._follow_model)
        self._follow_model()
        self._show_learning()

    def forget(self, layer: Labels) -> None:
        """Note that a label layer, and the image below it, show something else from now on."""
        self.accept_row.forget(layer)
        self.next_row.forget()

    @property
    def accept_button(self) -> QPushButton:
        """Accepts the plane on screen."""
        return self.accept_row.accept_button

    @property
    def kept(self) -> QLabel:
        """What is in the store."""
        return self.accept_row.kept

    @property
    def busy(self) -> bool:
        """Whether something is on its way to the store."""
        return self.accept_row.busy

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        """Ask how learning stands, for the user looks now."""
        super().showEvent(event)
        self.watch.ask()

    def _learn(self) -> None:
        self.message.show_text("")
        self.watch.begin(self.form.request())

    def _show_learning(self) -> None:
        """Show what the backend says."""
        learning = self.watch.learning
        if learning is not None:
            ordering = bool(self.watch.ordering)
            shown, versions = learning.shown, learning.versions
            if shown is not None:
                told = f"{headline(shown)}. {shown.reason}"
                self._failure.look(shown.name, shown.state, told)
            ending = self.watch.ending
            self.panel.show_training(shown, versions, ordering=ordering, ending=ending)
            self.versions.show_versions(versions, learning.trainings, ordering=ordering)
            self._model.offer_versions(versions)
        for widget in (self._versions_title, self.versions):
            widget.setVisible(learning is not None)
        self._offer_words()

    def _offer_words(self) -> None:
        stored = self.accept_row.stored
        if stored is not None:
            words = stored.words
            since = _latest_lesson(self.watch.learning)
            new: Collection[str] = words
            if since is not None:
                new = {
                    word
                    for annotation in stored.annotations
                    if annotation.created > since
                    for word in annotation.words
                }
            self.form.offer(words, new or words)
        running = self.watch.learning is not None and self.watch.learning.running
        self.form.inputs.setVisible(stored is not None and stored.total > 0 and not running)
        self._show_whether_possible()

    def _follow_model(self) -> None:
        self.form.show_model(self._model.name)

    def _show_whether_possible(self) -> None:
        self.form.disable(self._why_not())

    def _why_not(self) -> str:
        """Why nothing can be learnt now; empty if it can."""
        watch, stored = self.watch, self.accept_row.stored
        if watch.status.state is not BackendState.READY:
            return f"The backend is not ready. {watch.status.message}"
        if watch.problem or watch.ordering:
            return watch.problem or watch.ordering
        if watch.learning is None or stored is None:
            return "Asking the backend …"
        if watch.learning.running and watch.learning.shown is not None:
            return f"{watch.learning.shown.name} is being trained; one at a time."
        if not stored.total:
            return "Nothing has been accepted yet: accept a corrected plane first."
        if not 0 < len(self.form.words.checked()) <= MAX_WORDS:
            return f"Check at least one word, and at most {MAX_WORDS}."
        return ""

    def _lay_out(self) -> None:
        parts = (
            self.accept_row, self.next_row, self.panel, self.form, self._versions_title,
            self.versions,
        )  # fmt: skip
        scroll = scrolled(parts, _GAP)
        layout = QVBoxLayout(self)
        layout.addWidget(scroll)
        layout.addWidget(self.message)


def _latest_lesson(learning: Learning | None) -> datetime | None:
    """When the training of the newest version began; None if there is no such version."""
    if learning is None:
        return None
    names = {version.name for version in learning.versions.versions}
    return max((each.started for each in learning.trainings if each.name in names), default=None)


def _title(text: str) -> QLabel:
    label = QLabel(text)
    font = label.font()
    font.setBold(True)
    label.setFont(font)
    return label
