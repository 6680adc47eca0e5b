"""The files of a batch as a table whose rows are fetched as they come into view."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, Qt, Signal
from qtpy.QtGui import QBrush, QColor, QFont, QImage, QPixmap

from clsclip.errors import NotFoundError
from clsclip.wire_batch import BatchFile, BatchFiles, FileOrder, FileStatus
from napari_clsclip._batch_pages import Fetcher
from napari_clsclip._batch_words import duration_words, file_details, state_words
from napari_clsclip._client import Client
from napari_clsclip._connection import BackendConnection
from napari_clsclip._message import ERROR_COLOR

PAGE: Final = 100
"""Files that are fetched together."""

THUMBNAIL: Final = 40
"""Height and width of a thumbnail in the table, in pixels."""

COLUMNS: Final = ("", "File", "State", "Score", "Objects", "Time", "Reason")
IMAGE, NAME, STATE, SCORE, OBJECTS, TIME, REASON = range(len(COLUMNS))

_HELP: Final = {
    SCORE: "Expected IoU of the least certain word, 0 to 1. Low: look at it first.",
    OBJECTS: "Single objects, where they are told apart.",
    TIME: "How long the file took.",
}
_NUMBERS: Final = (SCORE, OBJECTS, TIME)
_THUMBNAILS_AT_ONCE: Final = 8
_MOST_THUMBNAILS: Final = 1000
_ACCEPTED_COLOR: Final = "#37b24d"

_Index = QModelIndex | QPersistentModelIndex


class View(NamedTuple):
    """Which files are listed, and how."""

    batch: str
    status: FileStatus | None = None
    order: FileOrder = "name"


class BatchFilesModel(QAbstractTableModel):
    """Table of files. Nothing of it waits for the backend.

    Parameters
    ----------
    connection : BackendConnection
    parent : QObject

    Attributes
    ----------
    failed : Signal(str)
        Why rows could not be fetched.
    moved : Signal
        Rows may hold other files than before.
    view : View
        What is listed.
    opened : int or None
        Number of the file that is open for review.
    """

    failed = Signal(str)
    moved = Signal()

    def __init__(self, connection: BackendConnection, parent: QObject) -> None:
        super().__init__(parent)
        self.view = View("")
        self.opened: int | None = None
        self._total = 0
        self._pages: dict[int, tuple[BatchFile, ...]] = {}
        self._stale: set[int] = set()
        self._thumbnails: dict[int, QPixmap | None] = {}
        self._page_fetcher: Fetcher[tuple[View, int], BatchFiles]
        self._page_fetcher = Fetcher(connection, self, _page, 1)
        self._page_fetcher.fetched.connect(self._take_page)
        self._page_fetcher.failed.connect(self.failed)
        self._thumbnail_fetcher: Fetcher[tuple[str, int], QImage | None]
        self._thumbnail_fetcher = Fetcher(connection, self, _thumbnail, _THUMBNAILS_AT_ONCE)
        self._thumbnail_fetcher.fetched.connect(self._take_thumbnail)

    def show_files(self, view: View) -> None:
        """List other files, or in another order; the same ones stay as they are."""
        if view == self.view:
            return
        self.beginResetModel()
        if view.batch != self.view.batch:
            self._thumbnails.clear()
            self._thumbnail_fetcher.forget()
            self.opened = None
        self.view, self._total = view, 0
        self._pages.clear()
        self._stale.clear()
        self._page_fetcher.forget()
        self.endResetModel()
        self._want(0)

    def refresh(self) -> None:
        """Fetch what is in view once more, and the rest when it comes into view."""
        if not self.view.batch:
            return
        self._stale = set(self._pages)
        # One that was not there may have been drawn since.
        self._thumbnails = {n: known for n, known in self._thumbnails.items() if known is not None}
        if not self._total:
            self._want(0)
        else:
            self._tell(0, self._total - 1)

    def file(self, row: int) -> BatchFile | None:
        """The file of a row; None if it was not fetched yet."""
        page = self._pages.get(row // PAGE, ())
        return page[row % PAGE] if 0 <= row % PAGE < len(page) else None

    def row_of(self, number: int) -> int | None:
        """Where a file is; None if it is not among those that were fetched."""
        for page, files in self._pages.items():
            for place, file in enumerate(files):
                if file.number == number:
                    return page * PAGE + place
        return None

    def replace(self, batch: str, file: BatchFile) -> None:
        """Show how a file stands now."""
        row = self.row_of(file.number) if batch == self.view.batch else None
        if row is None:
            return
        files = list(self._pages[row // PAGE])
        files[row % PAGE] = file
        self._pages[row // PAGE] = tuple(files)
        self._thumbnails.pop(file.number, None)
        self._tell(row, row)

    def show_opened(self, number: int | None) -> None:
        """Mark the file that is open for review."""
        before, self.opened = self.opened, number
        for each in (before, number):
            row = None if each is None else self.row_of(each)
            if row is not None:
                self._tell(row, row)

    def rowCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: N802, B008 - Qt's
        """Number of files."""
        return 0 if parent.isValid() else self._total

    def columnCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: N802, B008 - Qt's
        """Number of columns."""
        return 0 if parent.isValid() else len(COLUMNS)

    def headerData(  # noqa: N802 - Qt's name
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        """Title or help of a column."""
        if orientation is not Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return COLUMNS[section]
        return _HELP.get(section) if role == Qt.ItemDataRole.ToolTipRole else None

    def data(self, index: _Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """What is shown of a file; what is missing is fetched."""
        row, column = index.row(), index.column()
        if role == Qt.ItemDataRole.DisplayRole:
            self._want_if_old(row // PAGE)
        file = self.file(row)
        if file is None:
            return "…" if role == Qt.ItemDataRole.DisplayRole and column == NAME else None
        if role == Qt.ItemDataRole.DisplayRole:
            return _cell(file, column)
        if role == Qt.ItemDataRole.ToolTipRole:
            return file_details(file)
        if role == Qt.ItemDataRole.DecorationRole and column == IMAGE:
            return self._thumbnail_of(file)
        if role == Qt.ItemDataRole.ForegroundRole and column in (STATE, REASON):
            color = ERROR_COLOR if file.status == "failed" else _ACCEPTED_COLOR
            return QBrush(QColor(color)) if file.status == "failed" or file.accepted else None
        if role == Qt.ItemDataRole.TextAlignmentRole and column in _NUMBERS:
            return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        if role == Qt.ItemDataRole.FontRole and file.number == self.opened:
            font = QFont()
            font.setBold(True)
            return font
        return None

    def _want(self, page: int) -> None:
        self._page_fetcher.want((self.view, page))

    def _want_if_old(self, page: int) -> None:
        if page not in self._pages or page in self._stale:
            self._stale.discard(page)
            self._want(page)

    def _thumbnail_of(self, file: BatchFile) -> QPixmap | None:
        if file.status == "done" and file.number not in self._thumbnails:
            self._thumbnail_fetcher.want((self.view.batch, file.number))
        return self._thumbnails.get(file.number)

    def _take_page(self, key: tuple[View, int], answer: BatchFiles) -> None:
        view, page = key
        if view != self.view:
            return
        before = self._pages.get(page, ())
        self._resize(answer.total)
        if page * PAGE >= self._total:
            self._pages.pop(page, None)
            return
        self._pages[page] = answer.files
        for old, new in zip(before, answer.files, strict=False):
            if old.number == new.number and old.labels and not new.labels:
                self._thumbnails.pop(new.number, None)
        self._tell(page * PAGE, min(self._total, (page + 1) * PAGE) - 1)
        if [file.number for file in before] != [file.number for file in answer.files]:
            self.moved.emit()

    def _resize(self, total: int) -> None:
        if total > self._total:
            self.beginInsertRows(QModelIndex(), self._total, total - 1)
            self._total = total
            self.endInsertRows()
        elif total < self._total:
            self.beginRemoveRows(QModelIndex(), total, self._total - 1)
            self._total = total
            for page in [page for page in self._pages if page * PAGE >= total]:
                del self._pages[page]
            self.endRemoveRows()

    def _take_thumbnail(self, key: tuple[str, int], image: QImage | None) -> None:
        batch, number = key
        if batch != self.view.batch:
            return
        while len(self._thumbnails) >= _MOST_THUMBNAILS:
            self._thumbnails.pop(next(iter(self._thumbnails)))
        self._thumbnails[number] = None if image is None else QPixmap.fromImage(image)
        row = self.row_of(number)
        if row is not None:
            self._tell(row, row)

    def _tell(self, first: int, last: int) -> None:
        self.dataChanged.emit(self.index(first, 0), self.index(last, len(COLUMNS) - 1))


def _cell(file: BatchFile, column: int) -> str:
    if column == NAME:
        return file.file.replace("\\", "/").rpartition("/")[2]
    if column == STATE:
        return state_words(file)
    if column == SCORE:
        return "" if file.score is None else f"{file.score:.2f}"
    if column == OBJECTS:
        return "" if file.objects is None else f"{file.objects:,}"
    if column == TIME:
        return duration_words(file.seconds)
    return file.error if column == REASON else ""


def _page(client: Client, key: tuple[View, int]) -> BatchFiles:
    view, page = key
    return client.batches.files(
        view.batch, start=page * PAGE, count=PAGE, status=view.status, order=view.order
    )


def _thumbnail(client: Client, key: tuple[str, int]) -> QImage | None:
    """None: there is none, for instance of an image that was labelled before."""
    try:
        image = QImage.fromData(client.batches.thumbnail(*key))
    except NotFoundError:
        return None
    if image.isNull():
        return None
    return image.scaled(
        THUMBNAIL,
        THUMBNAIL,
        Qt.AspectRatioMode.KeepAspectRatio,
        Qt.TransformationMode.SmoothTransformation,
    )
