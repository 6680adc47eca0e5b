"""The line in which a model is chosen."""

from __future__ import annotations

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtGui import QBrush, QColor
from qtpy.QtWidgets import QComboBox, QSizePolicy

from clsclip.config import DEFAULT_MODEL
from clsclip.wire import ModelInfo
from clsclip.wire_training import VersionList
from napari_clsclip._supervisor import BackendStatus
from napari_clsclip._training_words import version_details


class ModelCombo(QComboBox):
    """The models of the backend; another name or a run directory can be typed.

    It shows the active version, also when another one becomes active, until the user chooses
    something else by hand.

    Attributes
    ----------
    offered : Signal
        Other models are listed now, or others of them can be used.
    """

    offered = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._models: tuple[ModelInfo, ...] = ()
        self._versions: tuple[ModelInfo, ...] = ()
        self._listed: tuple[ModelInfo, ...] = ()
        self._followed = DEFAULT_MODEL
        self.setEditable(True)
        self.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setCurrentText(DEFAULT_MODEL)

    @property
    def name(self) -> str:
        """What is chosen; nothing is the default model."""
        return self.currentText().strip() or DEFAULT_MODEL

    @property
    def missing(self) -> bool:
        """Whether the backend lists what is chosen as not available."""
        return any(model.name == self.name and not model.available for model in self._listed)

    def offer(self, status: BackendStatus) -> None:
        """List the models of the backend; the text stays."""
        self._models = status.models
        self._list()

    def offer_versions(self, versions: VersionList) -> None:
        """List versions before the other models, and show the active one if it is another now.

        Who has chosen by hand the version that it was made from wants what it has become.
        """
        self._versions = tuple(
            ModelInfo(
                name=version.name,
                description=version_details(version),
                available=version.available,
                reason=None if version.available else version_details(version),
            )
            for version in versions.versions
        )
        self._list()
        if versions.active != self._followed:
            made = next((v for v in versions.versions if v.name == versions.active), None)
            if self.name in (self._followed, "" if made is None else made.parent):
                self.setCurrentText(versions.active)
            self._followed = versions.active

    def choose(self, name: str) -> None:
        """Show a model, whatever was chosen."""
        self.setCurrentText(name)

    def _list(self) -> None:
        versions = {version.name for version in self._versions}
        others = (model for model in self._models if model.name not in versions)
        models = (*self._versions, *others)
        if models == self._listed:
            return
        self._listed = models
        text = self.currentText()
        with QSignalBlocker(self):  # what is chosen stays
            self.clear()
            for row, model in enumerate(models):
                self.addItem(model.name)
                tooltip = model.description if model.available else f"{model.reason}"
                self.setItemData(row, tooltip, Qt.ItemDataRole.ToolTipRole)
                if not model.available:
                    grey = QBrush(QColor("grey"))
                    self.setItemData(row, grey, Qt.ItemDataRole.ForegroundRole)
            self.setCurrentText(text)
        self.offered.emit()
