"""The review of the files of a batch: open one, correct it, accept it, go on to another one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from napari.components import ViewerModel
from napari.layers import Labels
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal

from clsclip.errors import ClsClipError
from clsclip.wire_batch import Batch, BatchFile
from napari_clsclip._backend_job import BackendJob
from napari_clsclip._batch_files import View
from napari_clsclip._client import Client
from napari_clsclip._connection import BackendConnection
from napari_clsclip._review_files import Reviewed, differ, read_reviewed
from napari_clsclip._review_layers import ReviewLayers, open_layers
from napari_clsclip._review_search import least_certain, neighbour
from napari_clsclip._review_sending import Sent, send, withdraw
from napari_clsclip._review_teaching import Teaching
from napari_clsclip._thread_job import Errand, ThreadJob

_NO_LABELS: Final = "'{name}' has no labels yet."
_LAST: Final = "There is no further file with labels in this direction of the list."
_ALL_SEEN: Final = (
    "Every file that is not accepted was opened. The next press begins with the least certain "
    "one again."
)


class Review(QObject):
    """Opens files in a viewer and sends what is accepted. Nothing of it blocks the Qt thread.

    Pixels that were changed and not accepted are never given up without a question.

    Parameters
    ----------
    viewer : ViewerModel
    connection : BackendConnection
    parent : QObject

    Attributes
    ----------
    changed : Signal
        Something below is different now.
    told, failed : Signal(str)
        Something for the user.
    opened : Signal(Labels, Image or None)
        A file was opened.
    accepted : Signal(str, BatchFile)
        Name of the batch, and how a file of it stands now.
    safe : Signal(Labels)
        The corrections of a layer need not be kept any more.
    exchanging : Signal(Labels, ndarray)
        A layer is about to hold another array: the labels of another file.
    teaching : Teaching
        Sends corrections to the annotation store as well, if :attr:`teach` says so.
    batch, file
        What is open; None: nothing.
    asking : bool
        Whether the user has to decide about changed pixels first.
    busy : str
        What is under way, for the user; empty: nothing.
    teach : bool
    image_in_use : callable
        Whether work on the open image is under way elsewhere, so that its layer must stay what it
        is.
    """

    changed = Signal()
    told = Signal(str)
    failed = Signal(str)
    opened = Signal(object, object)
    accepted = Signal(str, object)
    safe = Signal(object)
    exchanging = Signal(object, object)

    def __init__(self, viewer: ViewerModel, connection: BackendConnection, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._supervisor = connection.supervisor
        self._closing = threading.Event()
        self.destroyed.connect(self._closing.set)
        self.teaching = Teaching(connection, self)
        self.batch: Batch | None = None
        self.file: BatchFile | None = None
        self.asking = False
        self.busy = ""
        self.teach = False
        self.image_in_use: Callable[[], bool] = lambda: False
        self._layers: ReviewLayers | None = None
        self._known: NDArray[Any] | None = None
        self._touches = 0  # how often pixels may have been changed since something was opened
        self._clean_at = 0  # after how many of these the pixels were what is accepted or on disk
        self._left_at = 0  # after how many of these the user was free to go
        self._sending = False
        self._then: Callable[[], object] | None = None
        self._visited: dict[str, set[int]] = {}
        self._errand = Errand(self)
        viewer.layers.events.removed.connect(self._take_removed)

    @property
    def labels(self) -> Labels | None:
        """The layer that is open for review."""
        return None if self._layers is None else self._layers.labels

    @property
    def _touched(self) -> bool:
        return self._touches != self._clean_at

    @property
    def correctable(self) -> bool:
        """Whether the labels that are open can be painted in."""
        return self._known is not None

    def open(self, batch: Batch, file: BatchFile) -> None:
        """Open a file; asks first if pixels were changed in the one that is open."""
        if not file.labels:
            name = file.file
            self.told.emit(
                f"'{name}' failed: {file.error}" if file.error else _NO_LABELS.format(name=name)
            )
        elif self._layers is None or not self._is_open(batch, file):
            self._leave(partial(self._read, batch, file))

    def go(self, batch: Batch, view: View, row: int | None, step: int) -> None:
        """Open the next or previous labelled file of a list.

        Parameters
        ----------
        batch : Batch
        view : View
            The list of its files.
        row : int or None
            Where the file is in it that is open.
        step : 1 or -1
        """
        find = partial(
            neighbour, batch=batch.name, status=view.status, order=view.order,
            row=-1 if row is None else row, step=step,
        )  # fmt: skip
        self._leave(partial(self._search, batch, find, _LAST))

    def go_uncertain(self, batch: Batch) -> None:
        """Open the least certain file of a batch that was neither accepted nor opened."""
        visited = self._visited.setdefault(batch.name, set())

        def search() -> None:
            find = partial(least_certain, batch=batch.name, visited=frozenset(visited))
            self._search(batch, find, _ALL_SEEN, visited.clear)

        self._leave(search)

    def accept(self) -> None:
        """Say that the labels are right as they are on screen; returns at once."""
        batch, file, layers = self.batch, self.file, self._layers
        if batch is None or file is None or layers is None or self._sending or self.busy:
            return
        known = self._known if self._touched else None
        self._sending, self.asking = True, False
        work = partial(send, batch.name, file, known, layers.labels)
        take = partial(self._take_accepted, batch, layers, self._touches)
        self._run_backend("Accepting …", work, take, self._refuse_accepted)

    def withdraw(self) -> None:
        """Say that the labels are not accepted any more; returns at once."""
        batch, file = self.batch, self.file
        if batch is None or file is None or self.busy or self._sending or not file.accepted:
            return

        def take(now: BatchFile) -> None:
            self._sending = False
            self.accepted.emit(batch.name, now)
            if self.file is file:
                self.file = now
            if self._then is not None:
                self._leave(self._then)

        def refuse(message: str) -> None:
            self._sending = False
            self._then = None
            self.failed.emit(message)

        self._sending = True
        work = partial(withdraw, batch.name, file.number)
        self._run_backend("Taking it back …", work, take, refuse)

    def discard_and_leave(self) -> None:
        """Answer the question: the changed pixels are not wanted."""
        self.asking = False
        self._go_on()
        self.changed.emit()

    def stay(self) -> None:
        """Answer the question: nothing happens."""
        self._then = None
        self.asking = False
        self.changed.emit()

    def _is_open(self, batch: Batch, file: BatchFile) -> bool:
        mine = self.file
        return (
            self.batch is not None
            and mine is not None
            and (self.batch.name, mine.number) == (batch.name, file.number)
        )

    def _leave(self, then: Callable[[], object]) -> None:
        """Do something that gives up what is open, unless pixels of it are not accepted."""
        self._then = then
        if self._sending or self.asking:
            self.changed.emit()
            return  # it is done, or not, once that is over
        known, layer = self._known, self.labels
        if not self._touched or known is None or layer is None:
            self._go_on()
            return
        compare = ThreadJob(partial(differ, known, layer.data), "clsclip-compare")
        self._run("Comparing …", compare, partial(self._take_compared, self._touches))

    def _take_compared(self, touches: int, changes: bool) -> None:
        if changes:
            self.asking = True
            return
        self._clean_at = touches
        if self._then is not None:
            self._leave(self._then)  # once more if pixels were changed meanwhile

    def _go_on(self) -> None:
        self._left_at = self._touches
        then, self._then = self._then, None
        if then is not None:
            then()

    def _search(
        self,
        batch: Batch,
        find: Callable[[Client], BatchFile | None],
        nothing: str,
        forget: Callable[[], object] | None = None,
    ) -> None:
        def take(file: BatchFile | None) -> None:
            if file is not None:
                self._read(batch, file)
                return
            self.told.emit(nothing)
            if forget is not None:
                forget()

        self._run_backend("Looking for it …", find, take)

    def _read(self, batch: Batch, file: BatchFile) -> None:
        read = ThreadJob(partial(read_reviewed, batch, file), "clsclip-read")
        self._run("Opening …", read, self._show)

    def _show(self, reviewed: Reviewed) -> None:
        before = self._layers
        if before is not None and self._touches != self._left_at:
            self._leave(partial(self._show, reviewed))
            return
        self._layers = None  # what is removed now is not the user's doing
        try:
            same = self.batch is not None and _same_labels(self.batch, reviewed.batch)
            exchange = self._exchange if same and not self.image_in_use() else None
            layers = open_layers(self._viewer, reviewed, before, exchange)
        except Exception as error:
            self._layers = before
            if before is not None and before.labels not in self._viewer.layers:
                self._forget_file()
            if not isinstance(error, ClsClipError):
                raise
            self.failed.emit(error.message)
            return
        new = before is None or layers.labels is not before.labels
        if before is not None and new:
            self.safe.emit(before.labels)
        self._layers = layers
        self.batch, self.file = reviewed.batch, reviewed.file
        self._visited.setdefault(self.batch.name, set()).add(self.file.number)
        self._known = reviewed.labels
        self._touches = self._clean_at = self._left_at = 0
        if new:
            self._watch(layers.labels)
        self.told.emit(layers.note)
        self.opened.emit(layers.labels, layers.image)

    def _exchange(self, labels: Labels, ids: NDArray[Any]) -> None:
        """Put the labels of another file into a layer."""
        self.safe.emit(labels)
        self.exchanging.emit(labels, ids)
        labels.data = ids

    def _watch(self, labels: Labels) -> None:
        for name in ("paint", "labels_update", "set_data", "data"):
            getattr(labels.events, name).connect(self._take_touched)

    def _take_touched(self, event: Any) -> None:
        """Something may have changed: napari tells no more of undo and redo."""
        if event.source is self.labels and not self._closing.is_set():
            self._touches += 1

    def _take_removed(self, event: Any) -> None:
        if self._closing.is_set() or self._layers is None:
            return
        if event.value is self._layers.labels:
            self._forget_file()
            self.changed.emit()

    def _forget_file(self) -> None:
        """Note that the layers of what was open are gone."""
        self._layers = self.batch = self.file = self._known = self._then = None
        self.asking = False
        self._touches = self._clean_at = self._left_at = 0

    def _take_accepted(self, batch: Batch, layers: ReviewLayers, touches: int, sent: Sent) -> None:
        self._sending = False
        self.accepted.emit(batch.name, sent.file)
        if layers is not self._layers:  # the user has removed it meanwhile
            self._go_on()
            return
        self.file, self._clean_at = sent.file, touches
        if sent.labels is not None and sent.planes:
            self._known = sent.labels
            if self.teach:
                self._offer(batch, layers, sent)
        if self._then is not None:
            self._leave(self._then)
        elif self._touched:
            self._check_safe(layers.labels)
        else:
            self.safe.emit(layers.labels)

    def _check_safe(self, labels: Labels) -> None:
        """Look whether what happened to the layer meanwhile has changed pixels."""

        def take(touches: int, changes: bool) -> None:
            if not changes:
                self._clean_at = touches
                self.safe.emit(labels)

        if self._known is not None:
            compare = ThreadJob(partial(differ, self._known, labels.data), "clsclip-compare")
            self._run("", compare, partial(take, self._touches))

    def _refuse_accepted(self, message: str) -> None:
        self._sending = False
        self._then = None
        self.failed.emit(f"{message} Nothing is lost: accept it again.")

    def _offer(self, batch: Batch, layers: ReviewLayers, sent: Sent) -> None:
        if sent.labels is None:
            return
        try:
            examples = layers.acceptances(batch.request, sent.labels, sent.planes)
        except ClsClipError as error:
            self.failed.emit(error.message)
            return
        self.teaching.offer((batch.name, sent.file.number), examples)

    def _run_backend(
        self,
        words: str,
        work: Callable[[Client], Any],
        take: Callable[[Any], object],
        refuse: Callable[[str], object] | None = None,
    ) -> None:
        job = BackendJob(self._supervisor, self._closing, work, "clsclip-review")
        self._run(words, job, take, refuse)

    def _run(
        self,
        words: str,
        job: ThreadJob[Any],
        take: Callable[[Any], object],
        refuse: Callable[[str], object] | None = None,
    ) -> None:
        def then(step: Callable[[Any], object], outcome: Any) -> None:
            self.busy = ""
            try:
                step(outcome)
            finally:
                self.changed.emit()

        self.busy = words
        self._errand.run(job, partial(then, take), partial(then, refuse or self.failed.emit))
        self.changed.emit()


def _same_labels(batch: Batch, other: Batch) -> bool:
    """Whether the labels of two batches mean the same."""
    return (batch.name, batch.request) == (other.name, other.request)
