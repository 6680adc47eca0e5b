"""The line in which a model is chosen."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtGui import QBrush, QColor
from qtpy.QtWidgets import QComboBox, QSizePolicy

from clsclip.config import DEFAULT_MODEL
from napari_clsclip._supervisor import BackendStatus


class ModelCombo(QComboBox):
    """The models of the backend; another name or a run directory can be typed."""

    def __init__(self) -> None:
        super().__init__()
        self.setEditable(True)
        self.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setCurrentText(DEFAULT_MODEL)

    def offer(self, status: BackendStatus) -> None:
        """List the models of the backend; the text stays."""
        if [self.itemText(i) for i in range(self.count())] == [m.name for m in status.models]:
            return
        text = self.currentText()
        self.clear()
        for row, model in enumerate(status.models):
            self.addItem(model.name)
            tooltip = model.description if model.available else f"{model.reason}"
            self.setItemData(row, tooltip, Qt.ItemDataRole.ToolTipRole)
            if not model.available:
                grey = QBrush(QColor("grey"))
                self.setItemData(row, grey, Qt.ItemDataRole.ForegroundRole)
        self.setCurrentText(text)
