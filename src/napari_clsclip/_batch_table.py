"""The table of the files of a batch, and what chooses among them."""

from __future__ import annotations

from typing import Final, get_args

from qtpy.QtCore import QModelIndex, Qt, Signal
from qtpy.QtGui import QKeyEvent, QResizeEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QHBoxLayout,
    QHeaderView,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from clsclip.wire_batch import Batch, FileOrder, FileStatus
from napari_clsclip._batch_files import (
    IMAGE,
    NAME,
    OBJECTS,
    REASON,
    SCORE,
    STATE,
    THUMBNAIL,
    TIME,
    BatchFilesModel,
    View,
)
from napari_clsclip._connection import BackendConnection

_ALL: Final = "all files"
_ORDERS: Final[dict[FileOrder, str]] = {"name": "by name", "score": "least certain first"}
_ROWS: Final = 6
"""Rows for which there is always room."""

_PADDING: Final = 12
_WIDEST: Final = {STATE: "corrected", SCORE: "Score", OBJECTS: "Objects", TIME: "118 min"}
_REASON_CHARACTERS: Final = 40
_SHORTEST_NAME: Final = 90


class BatchTable(QWidget):
    """Which files, in which order, and the files.

    Parameters
    ----------
    connection : BackendConnection

    Attributes
    ----------
    open_asked : Signal(BatchFile)
        A row was clicked, or Enter was pressed on it.
    model : BatchFilesModel
    table : QTableView
    status, order : QComboBox
    """

    open_asked = Signal(object)

    def __init__(self, connection: BackendConnection) -> None:
        super().__init__()
        self._batch: Batch | None = None
        self.model = BatchFilesModel(connection, self)
        self.table = _Table(self.model)
        self.status = QComboBox()
        self.status.addItem(_ALL, None)
        for status in get_args(FileStatus):
            self.status.addItem(status, status)
        self.status.setToolTip("Which files are listed.")
        self.order = QComboBox()
        for order, text in _ORDERS.items():
            self.order.addItem(text, order)
        self.order.setToolTip("Least certain first: where the model expects most mistakes.")
        choices = QHBoxLayout()
        choices.addWidget(self.status)
        choices.addWidget(self.order, stretch=1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(choices)
        layout.addWidget(self.table)
        self.status.currentIndexChanged.connect(self._list)
        self.order.currentIndexChanged.connect(self._list)
        self.table.chosen.connect(self._open)
        self.model.moved.connect(self.select_opened)
        self.model.modelReset.connect(self.table.clearSelection)

    def show_batch(self, batch: Batch | None) -> None:
        """List the files of a batch, as they are now if anything has happened since."""
        before, self._batch = self._batch, batch
        self.setVisible(batch is not None and (batch.files > 0 or batch.state != "running"))
        self._list()
        if batch is None or before is None or batch.name != before.name:
            return
        counts = [(b.files, b.done, b.failed, b.accepted, b.state) for b in (before, batch)]
        if counts[0] != counts[1]:
            self.model.refresh()

    def select_opened(self) -> None:
        """Select the row of the file that is open for review, wherever it is now."""
        number = self.model.opened
        row = None if number is None else self.model.row_of(number)
        if row is None:
            if number is not None:  # it is not in this list
                self.table.clearSelection()
            return
        index = self.model.index(row, NAME)
        if index.row() != self.table.currentIndex().row() or not self.table.selectedIndexes():
            self.table.setCurrentIndex(index)

    def show_opened(self, number: int | None) -> None:
        """Mark the file that is open for review."""
        self.model.show_opened(number)
        self.select_opened()

    def _list(self) -> None:
        batch = self._batch
        name = "" if batch is None else batch.name
        status = self.status.currentData()
        self.model.show_files(View(name, status, self.order.currentData()))
        failures = batch is not None and batch.failed > 0 and status in (None, "failed")
        self.table.show_columns(
            figures=status != "failed",
            objects=batch is not None and batch.request.instances,
            reasons=failures or status == "failed",
        )

    def _open(self, index: QModelIndex) -> None:
        file = self.model.file(index.row())
        if file is not None:
            self.open_asked.emit(file)


class _Table(QTableView):
    """Rows of one height; widths are set by what a column can hold, not by reading all rows."""

    chosen = Signal(QModelIndex)

    def __init__(self, model: BatchFilesModel) -> None:
        super().__init__()
        self._shown = dict.fromkeys((IMAGE, STATE, SCORE, OBJECTS, TIME, REASON), True)
        self.setModel(model)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.setTabKeyNavigation(False)
        self.setWordWrap(True)  # a row has room for two lines
        self.setShowGrid(False)
        self.setAccessibleName("Files")
        rows = self.verticalHeader()
        rows.hide()
        rows.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        rows.setDefaultSectionSize(THUMBNAIL + 4)
        header = self.horizontalHeader()
        header.setHighlightSections(False)
        header.setMinimumSectionSize(THUMBNAIL)
        header.setSectionResizeMode(IMAGE, QHeaderView.ResizeMode.Fixed)
        self.setMinimumHeight(_ROWS * (THUMBNAIL + 4) + header.sizeHint().height())
        self.clicked.connect(self.chosen)

    def show_columns(self, *, figures: bool, objects: bool, reasons: bool) -> None:
        """Say which columns say something.

        Parameters
        ----------
        figures, objects, reasons : bool
            Whether there are scores and times, numbers of objects, and reasons of failures.
            Without figures, all files have failed.
        """
        self._shown = {
            IMAGE: figures, STATE: figures, SCORE: figures, OBJECTS: figures and objects,
            TIME: figures, REASON: reasons,
        }  # fmt: skip
        self.fit()

    def fit(self) -> None:
        """Give the names what the other columns leave.

        What does not fit beside them is in the tooltip only; reasons come after a scroll.
        """
        letters = self.fontMetrics()
        widths = {IMAGE: THUMBNAIL + 6}
        for column, widest in _WIDEST.items():
            widths[column] = letters.horizontalAdvance(widest) + _PADDING
        shown = dict(self._shown)
        room = self.viewport().width()
        if not shown[SCORE]:
            widths[REASON] = room * 3 // 5
            left = room - widths[REASON]
        else:
            widths[REASON] = letters.averageCharWidth() * _REASON_CHARACTERS
            fixed = [column for column in widths if column != REASON]
            for dispensable in (TIME, OBJECTS, None):
                left = room - sum(widths[column] for column in fixed if shown[column])
                if left >= _SHORTEST_NAME or dispensable is None:
                    break
                shown[dispensable] = False
        for column, width in widths.items():
            self.setColumnHidden(column, not shown[column])
            self.setColumnWidth(column, width)
        self.setColumnWidth(NAME, max(_SHORTEST_NAME, left))

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """There is more or less room for the names now."""
        super().resizeEvent(event)
        if event.size().width() != event.oldSize().width():
            self.fit()

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802 - Qt's name
        """Enter opens a row; letters are left to the keys of the review."""
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            if self.currentIndex().isValid():
                self.chosen.emit(self.currentIndex())
        elif event.text().strip() and not event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            event.ignore()
        else:
            super().keyPressEvent(event)
