"""The Batch tab: label a folder, follow how far it is, and review what came of it."""

from __future__ import annotations

import threading
from functools import partial
from typing import Final

from napari.components import ViewerModel
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QVBoxLayout, QWidget

from clsclip.errors import ClsClipError
from clsclip.wire_batch import BatchFile, BatchPreview, BatchRequest
from napari_clsclip._backend_job import BackendJob
from napari_clsclip._batch_form import BatchForm
from napari_clsclip._batch_panel import BatchPanel
from napari_clsclip._batch_start import BatchStart, preview
from napari_clsclip._batch_table import BatchTable
from napari_clsclip._batch_watch import BatchWatch
from napari_clsclip._batch_words import preview_words
from napari_clsclip._connection import BackendConnection
from napari_clsclip._message import FailureNotice, Message
from napari_clsclip._reading_row import ReadingRow
from napari_clsclip._review_row import ReviewRow
from napari_clsclip._scrolled import scrolled
from napari_clsclip._section import Fold
from napari_clsclip._supervisor import BackendState
from napari_clsclip._thread_job import Errand

_GAP: Final = 8
_FILES_FIRST: Final = "Looking at the files …"
_LOOKING: Final = "Looking at the files, and labelling one of them …"


class BatchTab(QWidget):
    """Five parts, one below the other, over a line with messages.

    Parameters
    ----------
    viewer : ViewerModel
        In which files are opened for review.
    connection : BackendConnection

    Attributes
    ----------
    form : BatchForm
    fold : Fold
        Shows and hides the form.
    panel : BatchPanel
    files : BatchTable
    review_row : ReviewRow
    watch : BatchWatch
    beginning : BatchStart
    reading_row : ReadingRow
    message : Message
    """

    def __init__(self, viewer: ViewerModel, connection: BackendConnection) -> None:
        super().__init__()
        self._connection = connection
        self._folded = False
        self.message = Message()
        self._failure = FailureNotice(self.message)
        self.form = BatchForm(connection)
        self.fold = Fold("New batch", self.form)
        self.reading_row = ReadingRow()
        self.panel = BatchPanel()
        self.files = BatchTable(connection)
        self.review_row = ReviewRow(viewer, connection)
        self.review = self.review_row.review
        self._preview = Errand(self)
        self._closing = threading.Event()
        self.destroyed.connect(self._closing.set)
        self._lay_out()
        self.watch = BatchWatch(connection, self)
        self.beginning = BatchStart(connection, self.watch.begin, self.watch.resume, self)
        self._connect()
        self._show_batches()

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        """Ask how batches stand, for the user looks now."""
        super().showEvent(event)
        self.watch.ask()

    def preview(self) -> None:
        """Ask what the batch of the form would do; returns at once."""
        request = self._request()
        if request is None or self._preview.busy:
            return
        supervisor = self._connection.supervisor
        work = partial(preview, request, self._closing, local=supervisor.local)
        job = BackendJob(supervisor, self._closing, work, "clsclip-preview")
        self._preview.run(job, self._show_preview, self._refuse_preview)
        self.form.show_preview(_LOOKING)
        self._show_whether_possible()

    def start(self) -> None:
        """Begin the batch of the form; returns at once."""
        request = self._request()
        if request is not None:
            self.message.show_text("")
            self.form.words.remember(request.words)
            self.beginning.begin(request)

    def resume(self, name: str) -> None:
        """Go on with a batch; returns at once."""
        batch = next((each for each in self.watch.batches or () if each.name == name), None)
        if batch is None or batch.state == "paused":
            self.watch.resume(name)
        else:
            self.message.show_text("")
            self.beginning.resume(batch)

    def _request(self) -> BatchRequest | None:
        try:
            return self.form.request()
        except ClsClipError as error:
            self.message.show_error(error.message)
            return None

    def _show_preview(self, preview: BatchPreview) -> None:
        self.form.show_preview(preview_words(preview))
        self.message.show_text("")
        self._show_whether_possible()

    def _refuse_preview(self, message: str) -> None:
        self.form.show_preview("")
        self.message.show_error(message)
        self._show_whether_possible()

    def _take_begun(self) -> None:
        self.fold.setChecked(False)
        self.form.show_preview("")

    def _show_batches(self) -> None:
        """Show what the backend says, and what is done before it is asked."""
        self.reading_row.follow(self.beginning.reading)
        watch, shown = self.watch, self.watch.shown
        batches = watch.batches
        if batches is not None and not self._folded:
            self._folded = True
            self.fold.setChecked(not batches)
        if shown is not None:
            told = f"{shown.name} failed. {shown.reason}"
            self._failure.look(shown.name, shown.state, told)
        self.panel.show_batch(
            shown,
            batches or (),
            ordering=bool(watch.ordering) or self.beginning.reading is not None,
            pending=watch.pending,
        )
        self.files.show_batch(shown)
        self.review_row.setVisible(
            self.review.file is not None or (shown is not None and shown.done > 0)
        )
        self._show_whether_possible()

    def _show_whether_possible(self) -> None:
        self.form.disable(self._why_not(), busy=self._preview.busy, other=self._other())

    def _why_not(self) -> str:
        """Why nothing can be asked now; empty if it can."""
        watch = self.watch
        if watch.status.state is not BackendState.READY:
            return f"The backend is not ready. {watch.status.message}"
        if watch.problem or watch.ordering:
            return watch.problem or watch.ordering
        if self.beginning.reading is not None:
            return _FILES_FIRST
        return "Asking the backend …" if watch.batches is None else ""

    def _other(self) -> str:
        """Why no batch can begin although the backend is ready; empty if one can."""
        for batch in self.watch.batches or ():
            if batch.state in ("running", "paused"):
                return f"{batch.name} is {batch.state}; one batch at a time."
        return ""

    def _open(self, file: BatchFile) -> None:
        if self.watch.shown is not None:
            self.review.open(self.watch.shown, file)

    def _step(self, step: int) -> None:
        shown, file = self.watch.shown, self.review.file
        if shown is not None:
            row = None if file is None else self.files.model.row_of(file.number)
            self.review.go(shown, self.files.model.view, row, step)

    def _go_uncertain(self) -> None:
        if self.watch.shown is not None:
            self.review.go_uncertain(self.watch.shown)

    def _follow_review(self) -> None:
        """Mark what is open in the table, if it is the table of its batch."""
        batch, file = self.review.batch, self.review.file
        same = batch is not None and batch.name == self.files.model.view.batch
        self.files.show_opened(file.number if same and file is not None else None)

    def _connect(self) -> None:
        watch, review, panel = self.watch, self.review, self.panel
        watch.changed.connect(self._show_batches)
        watch.refused.connect(self.message.show_error)
        watch.begun.connect(self._take_begun)
        self.beginning.changed.connect(self._show_batches)
        self.beginning.told.connect(self.message.show_text)
        self.beginning.refused.connect(self.message.show_error)
        self.reading_row.cancel_asked.connect(self.beginning.cancel)
        self.form.preview_asked.connect(self.preview)
        self.form.start_asked.connect(self.start)
        self.form.download.begun.connect(lambda: self.message.show_text(""))
        self.form.download.failed.connect(self.message.show_error)
        self._connection.status_changed.connect(self.form.model.offer)
        self.form.model.offer(self._connection.status)
        panel.pause_asked.connect(watch.pause)
        panel.resume_asked.connect(self.resume)
        panel.cancel_asked.connect(watch.cancel)
        panel.chosen.connect(watch.choose)
        self.files.model.failed.connect(self.message.show_text)
        self.files.open_asked.connect(self._open)
        self.review_row.step_asked.connect(self._step)
        self.review_row.uncertain_asked.connect(self._go_uncertain)
        review.told.connect(self.message.show_text)
        review.failed.connect(self.message.show_error)
        review.teaching.failed.connect(self.message.show_error)
        review.accepted.connect(self.files.model.replace)
        review.accepted.connect(lambda *_: self.watch.ask())
        review.changed.connect(self._follow_review)

    def _lay_out(self) -> None:
        parts = (self.fold, self.form, self.reading_row, self.panel, self.files, self.review_row)
        scroll = scrolled(parts, _GAP, grows=self.files)
        layout = QVBoxLayout(self)
        layout.addWidget(scroll)
        layout.addWidget(self.message)
