"""The versions of the models: which there are, which is active, and a way to another one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QSizePolicy,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from clsclip.wire_training import Training, Version, VersionList
from napari_clsclip._message import Message
from napari_clsclip._training_words import day, scores_after, version_details

COLUMNS: Final = ("Version", "IoU after", "Date", "Note")
ROWS: Final = 5
"""Rows that are shown without scrolling, if they are of one line each."""

_MODES: Final = (
    QHeaderView.ResizeMode.Fixed,  # see _Table.fit
    QHeaderView.ResizeMode.Stretch,
    QHeaderView.ResizeMode.ResizeToContents,
    QHeaderView.ResizeMode.Stretch,
)
_ACTIVE: Final = "\N{CHECK MARK} "
_USE_TOOLTIP: Final = "Make the selected version the active one: Segment uses it from now on."
_NO_BACK_TOOLTIP: Final = "No other version was active before."


class VersionsTable(QWidget):
    """Table, details of the selected version, two buttons, and a notice of damage.

    Attributes
    ----------
    use_asked : Signal(str)
        A version is to be the active one.
    """

    use_asked = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._shown: tuple[VersionList, tuple[str, ...]] | None = None
        self._details: dict[str, str] = {}
        self._ordering = False
        self.table = _Table()
        self.details = QLabel()
        self.details.setWordWrap(True)
        self.details.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.notice = Message()
        self.notice.hide()
        self.use_button = QPushButton("Use")
        self.use_button.setToolTip(_USE_TOOLTIP)
        self.back_button = QPushButton("Go back")
        buttons = QHBoxLayout()
        buttons.addWidget(self.use_button)
        buttons.addWidget(self.back_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self.notice, self.table, self.details):
            layout.addWidget(widget)
        layout.addLayout(buttons)
        self.table.itemSelectionChanged.connect(self._follow_selection)
        self.use_button.clicked.connect(lambda: self.use_asked.emit(self.selected))
        self.back_button.clicked.connect(self._go_back)
        self._follow_selection()

    @property
    def selected(self) -> str:
        """Name of the selected version; empty if none is."""
        row = self.table.currentRow()
        if self._shown is None or not 0 <= row < len(self._shown[0].versions):
            return ""
        return self._shown[0].versions[row].name if self.table.selectedItems() else ""

    def show_versions(
        self, versions: VersionList, trainings: Sequence[Training], *, ordering: bool
    ) -> None:
        """List versions; the selected one stays selected.

        Parameters
        ----------
        versions : VersionList
        trainings : sequence of Training
            That made some of them.
        ordering : bool
            Whether an order is on its way, so that no other can be given.
        """
        self._ordering = ordering
        details = tuple(version_details(version, trainings) for version in versions.versions)
        if (versions, details) != self._shown:
            selected = self.selected
            self._shown = (versions, details)
            tooltips = [
                version_details(version, trainings, len(version.changes))
                for version in versions.versions
            ]
            self._fill(versions, tooltips, selected)
            self._details = {
                version.name: text for version, text in zip(versions.versions, details, strict=True)
            }
            self.notice.show_text(versions.notice)
            self.notice.setVisible(bool(versions.notice))
        self._follow_selection()

    def _fill(self, versions: VersionList, tooltips: Sequence[str], selected: str) -> None:
        names = [version.name for version in versions.versions]
        self.table.blockSignals(True)
        self.table.clearSelection()
        self.table.setRowCount(len(names))
        for row, (version, tooltip) in enumerate(zip(versions.versions, tooltips, strict=True)):
            active = version.name == versions.active
            for column, text in enumerate(_cells(version, active)):
                item = QTableWidgetItem(text)
                item.setToolTip(tooltip)
                if column == 0 and active:
                    font = item.font()
                    font.setBold(True)
                    item.setFont(font)
                self.table.setItem(row, column, item)
        self.table.setColumnHidden(3, not any(version.note for version in versions.versions))
        if selected in names:
            self.table.selectRow(names.index(selected))
        self.table.blockSignals(False)
        self.table.fit()

    def _follow_selection(self) -> None:
        selected, shown = self.selected, self._shown
        self.details.setText(self._details.get(selected, ""))
        self.details.setVisible(bool(self.details.text()))
        active, back = ("", "") if shown is None else (shown[0].active, shown[0].back)
        available = shown is not None and any(
            version.name == selected and version.available for version in shown[0].versions
        )
        self.use_button.setEnabled(available and selected != active and not self._ordering)
        self.back_button.setEnabled(bool(back) and not self._ordering)
        self.back_button.setToolTip(
            f"Use {back} again, which was active before {active}." if back else _NO_BACK_TOOLTIP
        )

    def _go_back(self) -> None:
        if self._shown is not None:
            self.use_asked.emit(self._shown[0].back)


class _Table(QTableWidget):
    """A table as wide as there is room, whose texts wrap, and as high as its rows."""

    def __init__(self) -> None:
        super().__init__(0, len(COLUMNS))
        self.setHorizontalHeaderLabels(list(COLUMNS))
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setTabKeyNavigation(False)  # Tab goes on to the buttons
        self.setWordWrap(True)
        self.setAccessibleName("Versions")
        self.verticalHeader().hide()
        header = self.horizontalHeader()
        for column, mode in enumerate(_MODES):
            header.setSectionResizeMode(column, mode)
        header.setHighlightSections(False)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)

    def fit(self) -> None:
        """Make the rows as high as their texts, and the table as high as its first rows.

        The names take the width that they need, but no more than a third.
        """
        needed = max(self.sizeHintForColumn(0), self.horizontalHeader().sectionSizeHint(0))
        self.setColumnWidth(0, min(needed, self.width() // 3))
        self.resizeRowsToContents()
        header = self.horizontalHeader().sizeHint().height()
        rows = sum(self.rowHeight(row) for row in range(min(self.rowCount(), ROWS)))
        self.setFixedHeight(header + rows + 2 * self.frameWidth())

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Texts wrap elsewhere now."""
        super().resizeEvent(event)
        if event.size().width() != event.oldSize().width():
            self.fit()


def _cells(version: Version, active: bool) -> tuple[str, ...]:
    name = f"{_ACTIVE}{version.name}" if active else version.name
    return name, scores_after(version), day(version.created), version.note
