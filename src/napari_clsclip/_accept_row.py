"""The part of the Learn tab that accepts corrected labels, so that the backend keeps them."""

from __future__ import annotations

import weakref
from typing import Final

from napari.components import ViewerModel
from napari.layers import Labels
from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import QLabel, QPushButton, QVBoxLayout, QWidget

from clsclip.errors import ClsClipError, ConflictError, InvalidImageError
from clsclip.typed_words import parse_words
from clsclip.wire_annotations import Annotation, AnnotationList
from napari_clsclip._accept_job import StoreJob
from napari_clsclip._acceptance import Acceptance, accept
from napari_clsclip._connection import BackendConnection
from napari_clsclip._layers import Plane, displayed_plane
from napari_clsclip._message import Message
from napari_clsclip._segment_tab import SegmentTab
from napari_clsclip._supervisor import BackendState, BackendStatus

POLL_MILLISECONDS: Final = 50

_EXPLANATION: Final = (
    "Correct the labels with napari's brush until the plane on screen is right. Accept keeps it "
    "as an example to learn from, beside every earlier version."
)
_ACCEPT_TOOLTIP: Final = (
    "Keep image and labels of the plane on screen in the annotation store of the backend. You "
    "vouch for every pixel of it, also for the background; of a plane of which only a region was "
    "segmented, for that region and for what you painted."
)
_WORDS_SHOWN: Final = 12

Key = tuple[int, ...]


class AcceptRow(QWidget):
    """Button, and what is kept.

    Parameters
    ----------
    viewer : ViewerModel
    connection : BackendConnection
    segment_tab : SegmentTab
        Says which image and which result are meant.
    message : Message
        Where what happened is told.

    Attributes
    ----------
    stored_changed : Signal
        :attr:`stored` is another now.
    accepted : Signal(Labels, Acceptance)
        The backend has kept a plane.
    stored : AnnotationList or None
        The latest annotations of the backend, and the words of all; None: not known yet.
    """

    stored_changed = Signal()
    accepted = Signal(object, object)

    def __init__(
        self,
        viewer: ViewerModel,
        connection: BackendConnection,
        segment_tab: SegmentTab,
        message: Message,
    ) -> None:
        super().__init__()
        self._viewer = viewer
        self._connection = connection
        self._segment_tab = segment_tab
        self.message = message
        self.stored: AnnotationList | None = None
        self._job: StoreJob | None = None
        self._place_of_job: tuple[Labels, Key] | None = None
        self._accepted: weakref.WeakKeyDictionary[Labels, dict[Key, Annotation]]
        self._accepted = weakref.WeakKeyDictionary()
        self._poll_timer = QTimer(self, interval=POLL_MILLISECONDS)
        self._poll_timer.timeout.connect(self._poll)
        explanation = QLabel(_EXPLANATION)
        self.accept_button = QPushButton("Accept this plane")
        self.accept_button.setToolTip(_ACCEPT_TOOLTIP)
        self.kept = QLabel()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (explanation, self.accept_button, self.kept):
            layout.addWidget(widget)
        for label in (explanation, self.kept):
            label.setWordWrap(True)
        self.kept.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.accept_button.clicked.connect(self.accept)
        connection.status_changed.connect(self._ask_once_ready)
        self._ask_once_ready(connection.status)

    @property
    def busy(self) -> bool:
        """Whether something is on its way to the store."""
        return self._job is not None

    def refresh(self) -> None:
        """Ask what is kept, unless something is on its way; returns at once."""
        if self._job is None:
            self._start(None)

    def accept(self) -> None:
        """Keep the plane on screen; returns at once."""
        if self._job is not None and self._job.acceptance is not None:
            return
        try:
            layer, acceptance = self._acceptance()
        except ClsClipError as error:
            self.message.show_error(error.message)
            return
        key = acceptance.plane.index.key
        earlier = self._accepted.get(layer, {}).get(key)
        self._place_of_job = (layer, key)
        self._start(acceptance, "" if earlier is None else earlier.id)
        self.accept_button.setEnabled(False)
        self.message.show_text("Keeping …")

    def forget(self, layer: Labels) -> None:
        """Note that a layer shows other labels from now on: what is accepted is another plane."""
        self._accepted.pop(layer, None)

    def _acceptance(self) -> tuple[Labels, Acceptance]:
        active = self._viewer.layers.selection.active
        layer = active if isinstance(active, Labels) else self._segment_tab.results.current()
        if layer is None:
            raise InvalidImageError(
                "There are no labels to accept. Segment an image, or select a label layer."
            )
        results = self._segment_tab.results
        plane = self._plane_under(layer)
        words = results.words(layer) or parse_words(self._segment_tab.words.text())
        predicted = results.predicted(layer, plane.index.position)
        return layer, accept(layer, plane, self._viewer.dims, words, predicted)

    def _plane_under(self, layer: Labels) -> Plane:
        """The plane on screen of the image that some labels belong to, as it was segmented."""
        results, chosen = self._segment_tab.results, self._segment_tab.image.value
        image = results.image(layer) or chosen
        if image is None:
            raise InvalidImageError(
                "The image of these labels is not open any more. Open it again, and choose it."
            )
        plane = displayed_plane(image, self._viewer.dims, level=results.level(layer))
        return self._segment_tab.channels.apply(plane) if image is chosen else plane

    def _start(self, acceptance: Acceptance | None, replaces: str = "") -> None:
        if self._job is not None:
            self._job.cancel()
        job = self._job = StoreJob(self._connection.supervisor, acceptance, replaces)
        self.destroyed.connect(job.cancel)
        job.start()
        self._poll_timer.start()

    def _ask_once_ready(self, status: BackendStatus) -> None:
        if status.state is BackendState.READY and self.stored is None:
            self.refresh()

    def _poll(self) -> None:
        job = self._job
        if job is None or not job.done:
            return
        self._job = None
        self._poll_timer.stop()
        self.accept_button.setEnabled(True)
        place, self._place_of_job = self._place_of_job, None
        try:
            kept, stored = job.result()
        except ConflictError as error:
            if place is not None:  # the next Accept makes an annotation of its own
                self._accepted.get(place[0], {}).pop(place[1], None)
            self.message.show_error(error.message)
        except ClsClipError as error:
            if job.acceptance is not None:
                self.message.show_error(error.message)
        else:
            if kept is not None and place is not None:
                self._accepted.setdefault(place[0], {})[place[1]] = kept
                self.message.show_text(_what_was_kept(kept))
                self.accepted.emit(place[0], job.acceptance)
            self.stored = stored
            self.kept.setText(_what_is_kept(stored))
            self.stored_changed.emit()


def _what_was_kept(kept: Annotation) -> str:
    found = ", ".join(
        f"{word} {pixels:,} pixels" for word, pixels in zip(kept.words, kept.pixels, strict=True)
    )
    return f"Kept as version {kept.version}: {found}."


def _what_is_kept(stored: AnnotationList) -> str:
    if not stored.total:
        return "Nothing has been accepted yet."
    words = [f"{word} {count:,}" for word, count in stored.words.items()]
    shown = ", ".join(words[:_WORDS_SHOWN]) + (", …" if len(words) > _WORDS_SHOWN else "")
    return f"{stored.total:,} {'plane' if stored.total == 1 else 'planes'} kept: {shown}."
