"""Parts of a tab, one below the other, that scroll where the window is too low for them."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFrame, QScrollArea, QVBoxLayout, QWidget


def scrolled(parts: Sequence[QWidget], gap: int, grows: QWidget | None = None) -> QScrollArea:
    """Put widgets into a scroll area.

    Parameters
    ----------
    parts : sequence of QWidget
    gap : int
        Pixels between two of them.
    grows : QWidget, optional
        The one that takes the room that is left; None: nothing does.
    """
    content = QWidget()
    content.setMinimumWidth(1)  # in a narrow window all become narrower, and nothing is cut off
    layout = QVBoxLayout(content)
    layout.setContentsMargins(0, 0, gap // 2, 0)  # to the scroll bar
    layout.setSpacing(gap)
    for widget in parts:
        layout.addWidget(widget, stretch=1 if widget is grows else 0)
    layout.addStretch(0 if grows is not None else 1)
    scroll = QScrollArea()
    scroll.setWidgetResizable(True)
    scroll.setFrameShape(QFrame.Shape.NoFrame)
    scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    scroll.setWidget(content)
    return scroll
