"""The line below a choice of models from which one that is not there yet is downloaded."""

from __future__ import annotations

from typing import Final

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QPushButton, QWidget

from clsclip.wire_models import ModelDownload, megabytes
from napari_clsclip._connection import BackendConnection
from napari_clsclip._model_combo import ModelCombo
from napari_clsclip._model_download_watch import ModelDownloadWatch
from napari_clsclip._supervisor import BackendState

_STEPS: Final = 1000
_DOWNLOAD_TOOLTIP: Final = (
    "Fetch it from huggingface.co/{source} to the backend's machine, once. You can go on "
    "meanwhile; after an interruption it goes on where it was."
)
_NOT_HERE: Final = (
    "The model {download.name} is not on the backend's machine yet. Its licence is "
    "{download.licence}."
)
_INTERRUPTED: Final = (
    "The download ended with the backend. Press Download: it goes on where it was."
)
_CANCEL_TOOLTIP: Final = "End the download. What has come is kept."


class ModelDownloadRow(QWidget):
    """Size, licence and *Download*; then progress and *Cancel*; hidden if there is no need.

    Parameters
    ----------
    model : ModelCombo
        The choice; a model that the backend lists as not available is asked about.
    connection : BackendConnection

    Attributes
    ----------
    begun : Signal
        A download was asked for.
    failed : Signal(str)
        It was not possible, or has failed; why, and the way out.
    text : QLabel
    progress : QProgressBar
    button : QPushButton
    """

    begun = Signal()
    failed = Signal(str)

    def __init__(self, model: ModelCombo, connection: BackendConnection) -> None:
        super().__init__()
        self._choice = model
        self.text = QLabel()
        self.progress = QProgressBar(maximum=_STEPS)
        self.button = QPushButton()
        self._running = False  # when it was last looked at, or was ordered here
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.text, stretch=1)
        layout.addWidget(self.progress, stretch=1)
        layout.addWidget(self.button)
        self.watch = ModelDownloadWatch(connection, self)
        self.watch.changed.connect(self._show)
        self.watch.refused.connect(self._take_refusal)
        self.button.clicked.connect(self._press)
        model.currentTextChanged.connect(self._follow_choice)
        model.offered.connect(self._follow_choice)
        self._follow_choice()
        self._show()

    def _follow_choice(self) -> None:
        model = self._choice.name if self._choice.missing else ""
        if model != self.watch.model:
            self._running = False
        self.watch.follow(model)

    def _press(self) -> None:
        download = self.watch.download
        if download is not None and download.state == "running":
            self.watch.cancel()
        else:
            self._running = True
            self.begun.emit()
            self.watch.begin()

    def _take_refusal(self, reason: str) -> None:
        self._running = False
        self.failed.emit(reason)

    def _show(self) -> None:
        """Show what the backend says."""
        download = self.watch.download
        needed = download is not None and download.state != "done"
        self.setVisible(needed)
        if download is None or not needed:
            return
        running, failed = download.state == "running", download.state == "failed"
        ready = self.watch.status.state is BackendState.READY
        self.text.setText(_words(download))
        self.text.setToolTip(download.reason or _NOT_HERE.format(download=download))
        self.progress.setValue(_STEPS * download.done // max(download.total, 1))
        self.progress.setFormat(f"{download.done / 1e6:,.0f} of {megabytes(download.total)}")
        self.text.setVisible(not running)
        self.progress.setVisible(running)
        self.button.setText("Cancel" if running else "Retry" if failed else "Download")
        tooltip = _CANCEL_TOOLTIP if running else _DOWNLOAD_TOOLTIP.format(source=download.source)
        self.button.setToolTip(tooltip)
        self.button.setEnabled(ready and not self.watch.ordering)
        if self.watch.ordering:
            return
        ended, self._running = self._running and not running, running
        if ended and failed:
            self.failed.emit(download.reason)
        elif ended and download.state == "absent":
            self.failed.emit(_INTERRUPTED)


def _words(download: ModelDownload) -> str:
    if download.state == "failed":
        return "The download failed."
    if download.state == "cancelled" and download.done:
        return f"{download.done / 1e6:,.0f} of {megabytes(download.total)} fetched"
    return f"{megabytes(download.total)}, {download.licence}"
