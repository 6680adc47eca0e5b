"""The part of the Learn tab that finds out what to correct next, and opens it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from napari.components import ViewerModel
from napari.layers import Image, Labels
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from clsclip.errors import CancelledError, ClsClipError, InvalidImageError
from clsclip.ranking import Ranked
from clsclip.typed_words import parse_words
from clsclip.wire import SegmentRequest
from napari_clsclip._candidates import Candidate, files_of, planes_of, world_position
from napari_clsclip._connection import BackendConnection
from napari_clsclip._foreign_files import opening_reader
from napari_clsclip._layers import Plane, displayed_plane
from napari_clsclip._message import Message
from napari_clsclip._placement import unit_ratio
from napari_clsclip._ranking_job import Ranking, RankingJob
from napari_clsclip._segment_tab import SegmentTab

POLL_MILLISECONDS: Final = 100

_PLANES: Final = "Planes of the image"
_FOLDER: Final = "Choose a folder …"
_TOOLTIP: Final = (
    "Look at all of them with the words and the model of the Segment tab, and open the one whose "
    "correction is expected to teach most: where the model is unsure, and which looks unlike what "
    "was accepted. The next press opens the next one."
)
_Asked = tuple[object, ...]


class NextRow(QWidget):
    """Where to look, a button, progress, and the reason for what was opened.

    Parameters
    ----------
    viewer : ViewerModel
    connection : BackendConnection
    segment_tab : SegmentTab
        Says words, model and image, and segments what is opened.
    message : Message
        Where errors are told.

    Attributes
    ----------
    source : QComboBox
        Planes, or a folder.
    reason : QLabel
        Why the candidate on screen comes next.
    """

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
        self._tab = segment_tab
        self._message = message
        self._job: RankingJob | None = None
        self._asked: _Asked | None = None
        self._ranking: Ranking | None = None
        self._place = 0
        self._opened: list[Image] = []
        self._poll_timer = QTimer(self, interval=POLL_MILLISECONDS)
        self._poll_timer.timeout.connect(self._poll)
        self.source = QComboBox()
        self.source.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.source.addItem(_PLANES, None)
        self.source.addItem(_FOLDER, None)
        self.source.setToolTip("Where to look for what to correct next.")
        self.source.activated.connect(self._choose)
        self.next_button = QPushButton("Next image")
        self.next_button.setToolTip(_TOOLTIP)
        self.next_button.clicked.connect(self.next)
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.setToolTip("Look at no further ones, and use the order found so far.")
        self.cancel_button.clicked.connect(self.cancel)
        self.progress = QProgressBar()
        self.progress.setFormat("%v of %m")
        self.reason = QLabel()
        self.reason.setWordWrap(True)
        self.reason.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._lay_out()
        self._show_busy(False)

    @property
    def busy(self) -> bool:
        """Whether candidates are being looked at."""
        return self._job is not None

    @property
    def folder(self) -> Path | None:
        """The folder that is chosen; None: planes of the image."""
        data = self.source.currentData()
        return None if data is None else Path(data)

    def look_in(self, folder: Path) -> None:
        """Choose a folder."""
        text = folder.name or str(folder)
        found = self.source.findData(str(folder))
        if found < 0:
            found = self.source.count() - 1
            self.source.insertItem(found, text, str(folder))
            self.source.setItemData(found, str(folder), Qt.ItemDataRole.ToolTipRole)
        self.source.setCurrentIndex(found)

    def next(self) -> None:
        """Open the best candidate that was not opened yet; look at them first if need be."""
        if self._job is not None:
            return
        try:
            request = self._request()
            asked = self._question(request)
            if self._ranking is not None and self._asked == asked:
                self._open_next()
                return
            folder = self.folder
            find = self._planes() if folder is None else partial(files_of, folder)
        except ClsClipError as error:
            self._message.show_error(error.message)
            return
        self._asked, self._ranking, self._place = asked, None, 0
        job = self._job = RankingJob(self._connection.supervisor, find, request)
        self.destroyed.connect(job.cancel)
        self._message.show_text("")
        self.progress.setRange(0, 0)
        self._show_busy(True)
        job.start()
        self._poll_timer.start()

    def cancel(self) -> None:
        """Look at no further candidates."""
        if self._job is not None:
            self._job.cancel()

    def forget(self) -> None:
        """Note that an image layer shows another image from now on."""
        self._ranking = None

    def _request(self) -> SegmentRequest:
        return SegmentRequest(
            words=parse_words(self._tab.words.text()),
            model=self._tab.model.name,
            zoom=self._tab.zoom.value() or None,
        )

    def _question(self, request: SegmentRequest) -> _Asked:
        """What a ranking is the answer to; another question needs another one."""
        where = self.folder or self._tab.image.value
        return (where, request.words, request.model, request.zoom)

    def _planes(self) -> Callable[[], list[Candidate]]:
        image = self._tab.image.value
        if image is None:
            raise InvalidImageError(
                "There is no image. Open one whose planes are to be looked at, or choose a folder."
            )
        plane = self._tab.channels.apply(displayed_plane(image, self._viewer.dims))
        return partial(planes_of, plane, image.level_shapes[0])

    def _choose(self, row: int) -> None:
        if self.source.itemText(row) != _FOLDER:
            return
        self.source.setCurrentIndex(0)
        chosen = QFileDialog.getExistingDirectory(self, "Images to choose from")
        if chosen:
            self.look_in(Path(chosen))

    def _poll(self) -> None:
        job = self._job
        if job is None:
            return
        self.progress.setRange(0, job.total)
        self.progress.setValue(job.done_count)
        if not job.done:
            return
        self._job = None
        self._poll_timer.stop()
        self.destroyed.disconnect(job.cancel)
        self._show_busy(False)
        try:
            self._ranking = job.result()
        except CancelledError as error:
            self._message.show_text(error.message)
        except ClsClipError as error:
            self._message.show_error(error.message)
        else:
            if self._ranking.unreadable:
                count, first = len(self._ranking.unreadable), self._ranking.unreadable[0]
                self._message.show_error(f"{count:,} left out. {first}")
            self._open_next()

    def _open_next(self) -> None:
        ranking = self._ranking
        if ranking is None:
            return
        if self._place >= len(ranking.ranked):
            self._ranking = None
            left_out = f" {ranking.accepted:,} are accepted already." if ranking.accepted else ""
            self.reason.setText(f"That was the last one.{left_out} Press again to look anew.")
            return
        chosen = ranking.ranked[self._place]
        self._place += 1
        self.reason.setText(self._reason(chosen, ranking))
        try:
            image = self._show(chosen.candidate.key)
            self._tab.image.value = image
            planes = self._tab.scope.planes(image)
        except ClsClipError as error:
            self._message.show_error(error.message)
            return
        if len(planes) == 1 and not self._segmented(image, planes[0]):
            self._tab.segment()

    def _reason(self, chosen: Ranked[Candidate], ranking: Ranking) -> str:
        some = "" if ranking.complete else " looked at"
        place = f"{self._place:,} of {len(ranking.ranked):,}{some}"
        return f"{place}: {chosen.candidate.key.name}. {chosen.reason(ranking.words)}"

    def _show(self, candidate: Candidate) -> Image:
        """Bring a candidate on screen."""
        image = self._tab.image.value if candidate.file is None else self._open(candidate.file)
        if image is None:
            raise InvalidImageError("The image is not open any more. Press again to look anew.")
        for axis, position in world_position(image, candidate.position).items():
            of_viewer = axis + self._viewer.dims.ndim - image.ndim
            ratio = unit_ratio(image, self._viewer.dims, axis)
            self._viewer.dims.set_point(of_viewer, position / ratio)
        return image

    def _open(self, file: Path) -> Image:
        for layer in self._opened:
            if layer in self._viewer.layers and layer.source.path == str(file):
                return layer
        try:
            added = self._viewer.open(str(file), stack=False, plugin=opening_reader(file))
        except Exception as error:  # readers are other people's code
            raise InvalidImageError(f"'{file}' cannot be opened ({error}).") from error
        images = [layer for layer in added if isinstance(layer, Image)]
        if not images:
            raise InvalidImageError(f"'{file}' holds no image.")
        for layer in self._opened:  # what was looked at before does not shine through
            layer.visible = False
            for result in self._results_of(layer):
                result.visible = False
        self._opened.append(images[0])
        return images[0]

    def _results_of(self, image: Image) -> list[Labels]:
        layers = (layer for layer in self._viewer.layers if isinstance(layer, Labels))
        return [layer for layer in layers if self._tab.results.image(layer) is image]

    def _segmented(self, image: Image, plane: Plane) -> bool:
        """Whether some result shows the plane already."""
        position = plane.index.position
        return any(self._tab.results.predicted(r, position) for r in self._results_of(image))

    def _show_busy(self, busy: bool) -> None:
        self.next_button.setEnabled(not busy)
        self.source.setEnabled(not busy)
        self.progress.setVisible(busy)
        self.cancel_button.setVisible(busy)

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        buttons = QHBoxLayout()
        buttons.addWidget(self.source, stretch=1)
        buttons.addWidget(self.next_button)
        running = QHBoxLayout()
        running.addWidget(self.progress, stretch=1)
        running.addWidget(self.cancel_button)
        layout.addLayout(buttons)
        layout.addLayout(running)
        layout.addWidget(self.reason)
