"""Which texts of a widget cannot be read as a whole."""

from __future__ import annotations

from qtpy.QtWidgets import QCheckBox, QLabel, QPushButton, QWidget


def cut_off(tab: QWidget) -> list[str]:
    """Texts that are on screen, but not as a whole."""
    found = []
    for label in tab.findChildren(QLabel):
        needed = label.heightForWidth(label.width()) if label.wordWrap() else 0
        if label.isVisible() and label.height() < max(needed, label.fontMetrics().height()):
            found.append(label.text())
    for button in (*tab.findChildren(QPushButton), *tab.findChildren(QCheckBox)):
        if button.isVisible() and button.width() < button.minimumSizeHint().width():
            found.append(button.text())
    return found
