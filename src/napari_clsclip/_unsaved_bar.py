"""The bar that offers corrections which an earlier napari did not save."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from napari.components import ViewerModel
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from clsclip.errors import ClsClipError
from napari_clsclip._message import Message
from napari_clsclip._results import ResultLayers
from napari_clsclip._unsaved_files import Offer
from napari_clsclip._unsaved_layers import UnsavedCorrections
from napari_clsclip._unsaved_restore import Restoration, Search

POLL_MILLISECONDS: Final = 50

_QUESTION: Final = "Discard these corrections for good?"


class UnsavedBar(QFrame):
    """One sentence, *Restore* and *Discard*; hidden while there is nothing to offer.

    Parameters
    ----------
    viewer : ViewerModel
    results : ResultLayers
    unsaved : UnsavedCorrections
    """

    def __init__(
        self, viewer: ViewerModel, results: ResultLayers, unsaved: UnsavedCorrections
    ) -> None:
        super().__init__()
        self._viewer = viewer
        self._results = results
        self._unsaved = unsaved
        self._offers = unsaved.offers
        self._restoration: Restoration | None = None
        self._asks = False
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self.text = QLabel()
        self.text.setWordWrap(True)
        self.text.setTextFormat(Qt.TextFormat.PlainText)
        self.message = Message()
        self.restore_button = QPushButton("Restore")
        self.restore_button.setToolTip("Add them as a label layer again.")
        self.discard_button = QPushButton("Discard")
        self.buttons = QWidget()
        row = QHBoxLayout(self.buttons)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.restore_button)
        row.addWidget(self.discard_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 6, 6, 6)
        for widget in (self.text, self.buttons, self.message):
            layout.addWidget(widget)
        self.setVisible(False)
        self.restore_button.clicked.connect(self.restore)
        self.discard_button.clicked.connect(self.discard)
        self._poll_timer = QTimer(self, interval=POLL_MILLISECONDS)
        self._poll_timer.timeout.connect(self._poll)
        self._search: Search | None = Search(unsaved.journal.root, unsaved.journal.hold)
        self._search.start()
        self._poll_timer.start()

    @property
    def offers(self) -> tuple[Offer, ...]:
        """What can be restored, the latest first."""
        return tuple(self._offers)

    @property
    def busy(self) -> bool:
        """Whether corrections are being looked for or read."""
        return self._search is not None or self._restoration is not None

    def restore(self) -> None:
        """Put the corrections that are shown into a layer; or keep them, if asked to discard."""
        if self._asks:
            self._asks = False
            self._show()
        elif self._offers and self._restoration is None:
            self._restoration = Restoration(self._offers[0], self._viewer)
            self._restoration.start()
            self._poll_timer.start()
            self._show()

    def discard(self) -> None:
        """Ask, and the second time remove the corrections that are shown."""
        if not self._offers or self._restoration is not None:
            return
        if self._asks:
            self._unsaved.journal.remove(self._offers.pop(0).folder)
            self.message.show_text("")
        self._asks = not self._asks
        self._show()

    def _poll(self) -> None:
        search, restoration = self._search, self._restoration
        if search is not None and not search.is_alive():
            self._search = None
            self._offers += search.offers
            if search.problems:
                self.message.show_error(" ".join(search.problems))
            self._show()
        if restoration is not None and not restoration.is_alive():
            self._restoration = None
            self._finish(restoration)
            self._show()
        if not self.busy:
            self._poll_timer.stop()

    def _finish(self, restoration: Restoration) -> None:
        try:
            said = restoration.finish(self._viewer, self._results, self._unsaved)
        except ClsClipError as error:
            self.message.show_error(error.message)
        else:
            self._offers.remove(restoration.offer)
            self.message.show_text(said)

    def _show(self) -> None:
        busy = self._restoration is not None
        if self._offers:
            self.text.setText(f"{_QUESTION} {_said(self._offers)}" if self._asks
                              else _said(self._offers))  # fmt: skip
        self.text.setVisible(bool(self._offers))
        self.buttons.setVisible(bool(self._offers))
        self.restore_button.setText("Keep" if self._asks else "Restore")
        self.restore_button.setEnabled(not busy)
        self.discard_button.setEnabled(not busy)
        self.message.setVisible(bool(self.message.text()))
        self.setVisible(bool(self._offers) or bool(self.message.text()))


def _said(offers: list[Offer]) -> str:
    kept = offers[0].kept
    when = kept.painted.astimezone()
    year = "" if when.year == datetime.now(when.tzinfo).year else f" {when.year}"
    said = f"Corrections from {when.day} {when:%b}{year} {when:%H:%M} of '{kept.name}'"
    if kept.image is not None:
        said += f" on '{kept.image.name}'"
    said += " were not saved when napari ended."
    if kept.removed:
        said += " (Their layer had been removed.)"
    return said + (f" {len(offers) - 1} more after these." if len(offers) > 1 else "")
