"""The dock widget: how the backend is, over the tabs that use it."""

from __future__ import annotations

from functools import partial
from html import escape
from typing import Final

from napari.components import ViewerModel
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from napari_clsclip._batch_tab import BatchTab
from napari_clsclip._connection import BackendConnection, shared_connection
from napari_clsclip._learn_tab import LearnTab
from napari_clsclip._segment_tab import SegmentTab
from napari_clsclip._supervisor import BackendState, BackendStatus
from napari_clsclip._unsaved_bar import UnsavedBar
from napari_clsclip._unsaved_layers import unsaved_corrections

_DOT_COLORS: Final = {
    BackendState.OFF: "#868e96",
    BackendState.STARTING: "#f5b301",
    BackendState.READY: "#37b24d",
    BackendState.OFFLINE: "#f03e3e",
}


class ClsClipWidget(QWidget):
    """Dock widget of the plugin.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer in which the widget is docked.
    """

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__()
        # napari hands plugins a proxy that wraps every layer anew each time, so layers could
        # neither be compared by identity nor referred to weakly.
        viewer = getattr(napari_viewer, "__wrapped__", napari_viewer)
        connection = shared_connection()
        self.status_line = BackendStatusLine(connection)
        self.segment_tab = SegmentTab(viewer, connection)
        self.learn_tab = LearnTab(viewer, connection, self.segment_tab)
        self.batch_tab = BatchTab(viewer, connection)
        unsaved, results = unsaved_corrections(viewer), self.segment_tab.results
        unsaved.follow(results)
        self.learn_tab.accept_row.accepted.connect(unsaved.accepted)
        self.learn_tab.watch.changed.connect(self._offer_versions)
        review = self.batch_tab.review
        review.opened.connect(unsaved.keep_whole)
        review.safe.connect(lambda layer: unsaved.let_go([layer]))
        review.exchanging.connect(unsaved.exchange)
        review.exchanging.connect(self.learn_tab.forget)
        review.opened.connect(lambda *_: self.segment_tab.reset_choices())
        review.image_in_use = partial(_any_busy, self.segment_tab, self.learn_tab)
        review.teaching.kept.connect(self.learn_tab.accept_row.refresh)
        self.unsaved_bar = UnsavedBar(viewer, results, unsaved)
        self.tabs = QTabWidget()
        self.tabs.setDocumentMode(True)
        self.tabs.addTab(self.segment_tab, "Segment")
        self.tabs.addTab(self.learn_tab, "Learn")
        self.tabs.addTab(self.batch_tab, "Batch")
        layout = QVBoxLayout(self)
        layout.addWidget(self.status_line)
        layout.addWidget(self.unsaved_bar)
        layout.addWidget(self.tabs)
        self.setMinimumWidth(300)
        connection.start()  # so that the models are loaded while the first word is typed

    def reset_choices(self) -> None:
        """Offer the images that are open now; napari calls it when the layers change."""
        self.segment_tab.reset_choices()

    def _offer_versions(self) -> None:
        learning = self.learn_tab.watch.learning
        if learning is not None:
            self.batch_tab.form.model.offer_versions(learning.versions)


def _any_busy(segment_tab: SegmentTab, learn_tab: LearnTab) -> bool:
    """Whether anything is being done with layers."""
    parts = (segment_tab, segment_tab.link, learn_tab.accept_row, learn_tab.next_row)
    return any(part.busy for part in parts)


class BackendStatusLine(QWidget):
    """Coloured dot, one sentence about the backend, and a way to restart it when offline.

    Parameters
    ----------
    connection : BackendConnection
    """

    def __init__(self, connection: BackendConnection) -> None:
        super().__init__()
        self.connection = connection
        self.dot = QLabel("\N{BLACK CIRCLE}")
        self.text = QLabel()
        self.text.setWordWrap(True)
        self.text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.text.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        self.restart_button = QPushButton("Restart")
        self.restart_button.clicked.connect(connection.restart)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.dot, alignment=Qt.AlignmentFlag.AlignTop)
        layout.addWidget(self.text, stretch=1)
        layout.addWidget(self.restart_button)
        connection.status_changed.connect(self.show_status)
        self.show_status(connection.status)

    def show_status(self, status: BackendStatus) -> None:
        """Show a status."""
        self.dot.setStyleSheet(f"color: {_DOT_COLORS[status.state]};")
        self.text.setText(status.message)
        log = f"<pre>{escape(status.details)}</pre>" if status.details else ""
        self.text.setToolTip(f"{escape(status.message)}{log}")
        self.restart_button.setVisible(status.state is BackendState.OFFLINE)
