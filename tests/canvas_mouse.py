"""The mouse over napari's canvas, at places of an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from napari import Viewer
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QPoint, Qt

_THROTTLED_MILLISECONDS = 20
"""Longer than napari gathers movements of the mouse."""


def drag(viewer: Viewer, qtbot: QtBot, places: Sequence[tuple[float, float]]) -> None:
    """Press the left button at the first place, move over the others, and let go at the last.

    Parameters
    ----------
    viewer : Viewer
        Shown, in 2D display.
    qtbot : QtBot
    places : sequence of (float, float)
        Row and column in the world, of the two axes on screen.
    """
    canvas = viewer.window._qt_viewer.canvas.native
    first, *others = (_on_canvas(viewer, canvas.width(), canvas.height(), each) for each in places)
    qtbot.mouseMove(canvas, first)
    qtbot.wait(_THROTTLED_MILLISECONDS)
    qtbot.mousePress(canvas, Qt.MouseButton.LeftButton, pos=first)
    last = first
    for last in others:
        qtbot.mouseMove(canvas, last)
        qtbot.wait(_THROTTLED_MILLISECONDS)
    qtbot.mouseRelease(canvas, Qt.MouseButton.LeftButton, pos=last)


def _on_canvas(viewer: Viewer, width: int, height: int, place: tuple[float, float]) -> QPoint:
    camera = viewer.scene.camera if hasattr(viewer, "scene") else viewer.camera  # napari 0.9
    down, right = (np.array(place) - camera.center[-2:]) * camera.zoom
    return QPoint(round(width / 2 + right), round(height / 2 + down))
