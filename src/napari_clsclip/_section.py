"""A part of a form that can be closed."""

from __future__ import annotations

from typing import Final

from qtpy.QtCore import Qt
from qtpy.QtGui import QIcon, QPixmap
from qtpy.QtWidgets import QFormLayout, QPushButton, QWidget
from superqt import QCollapsible

_CLOSED: Final = "\N{BLACK RIGHT-POINTING SMALL TRIANGLE} "
_OPEN: Final = "\N{BLACK DOWN-POINTING SMALL TRIANGLE} "
_BUTTON_STYLE: Final = "text-align: left; border: none; outline: none; background: transparent;"


class Section(QCollapsible):
    """Rows of a form under a title that opens and closes them; closed at first.

    Parameters
    ----------
    title : str

    Attributes
    ----------
    form : QFormLayout
        Holds the rows.
    """

    def __init__(self, title: str) -> None:
        # superqt's own icons are black on whatever theme, so the text has the triangle.
        nothing = QPixmap(1, 1)
        nothing.fill(Qt.GlobalColor.transparent)
        super().__init__(
            f"{_CLOSED}{title}", expandedIcon=QIcon(nothing), collapsedIcon=QIcon(nothing)
        )
        self.toggleButton().setIconSize(nothing.size())
        self.toggled.connect(lambda opened: self.setText(f"{_OPEN if opened else _CLOSED}{title}"))
        self.toggleButton().setStyleSheet(_BUTTON_STYLE)
        content = QWidget()
        self.form = QFormLayout(content)
        self.form.setContentsMargins(0, 0, 0, 0)
        self.form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        for widget in (self, self.content()):
            if layout := widget.layout():
                layout.setContentsMargins(0, 0, 0, 0)
        self.addWidget(content)
        self.collapse(animate=False)


class Fold(QPushButton):
    """A title that shows and hides what is below it.

    Parameters
    ----------
    title : str
    content : QWidget
    """

    def __init__(self, title: str, content: QWidget) -> None:
        super().__init__()
        self._title = title
        self._content = content
        self.setCheckable(True)
        self.setStyleSheet(_BUTTON_STYLE)
        self.toggled.connect(self._show)
        self._show(False)

    def _show(self, opened: bool) -> None:
        self.setText(f"{_OPEN if opened else _CLOSED}{self._title}")
        self._content.setVisible(opened)
