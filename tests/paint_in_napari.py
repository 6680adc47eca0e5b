"""Open napari with a result, paint on it with the mouse, and go on until killed.

``python paint_in_napari.py`` prints a line per finished stroke, then ``painting`` and goes on with
the mouse button held down. The shape of image and labels, and what is painted, are the functions
below, which tests import.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

SHAPE = (3, 600, 700)
PLANE = 1
STROKES = (((150.0, 200.0), (150.0, 420.0)), ((300.0, 350.0), (420.0, 350.0)))
HELD = (500.0, 100.0)
BRUSH = 14
LABEL = 5


def image() -> NDArray[np.uint8]:
    return np.random.default_rng(4).integers(0, 255, SHAPE, dtype=np.uint8)


def probabilities() -> NDArray[np.uint8]:
    """Of the one word, shape (1, height, width)."""
    rows, columns = np.ogrid[: SHAPE[1], : SHAPE[2]]
    return (127 + 128 * np.sin(rows / 30) * np.cos(columns / 40)).astype(np.uint8)[None]


class Painting:
    """A window of napari with a result, and a mouse that paints on it."""

    def __init__(self) -> None:
        import napari

        from clsclip.segmentation import Segmentation
        from napari_clsclip._layers import displayed_plane

        viewer = napari.Viewer()
        layer = viewer.add_image(image(), name="slide", scale=(1, 0.5, 0.5), translate=(0, 3, 4))
        viewer.dims.set_current_step(0, PLANE)
        _, widget = viewer.window.add_plugin_dock_widget("napari-clsclip", "ClsCLIP")
        found = Segmentation(probabilities(), ("nucleus",), "mini", "v1", (1.0,), 0.1)
        results = widget.segment_tab.results
        self.labels = results.add(layer, displayed_plane(layer, viewer.dims), found, 0.5)
        self.labels.mode, self.labels.brush_size = "paint", BRUSH
        self.labels.selected_label = LABEL
        self._layer, self._camera = layer, viewer.scene.camera
        self._native = viewer.window._qt_viewer.canvas.native
        settle(1.0)

    def press(self, point: tuple[float, float]) -> None:
        """Hold the mouse button down at a pixel of the image."""
        QTest.mousePress(self._native, Qt.MouseButton.LeftButton, pos=self._at(point))

    def move(self, point: tuple[float, float]) -> None:
        """Go to a pixel of the image."""
        QTest.mouseMove(self._native, self._at(point))
        settle(0.02)

    def release(self, point: tuple[float, float]) -> None:
        """Let the mouse button go at a pixel of the image."""
        QTest.mouseRelease(self._native, Qt.MouseButton.LeftButton, pos=self._at(point))

    def stroke(self, start: tuple[float, float], stop: tuple[float, float]) -> None:
        """Paint a line of 8 moves."""
        self.press(start)
        for step in np.linspace(0, 1, 8):
            self.move(tuple(np.array(start) * (1 - step) + np.array(stop) * step))
        self.release(stop)

    def _at(self, point: tuple[float, float]) -> QPoint:
        """Where a pixel of the image is drawn in the canvas."""
        world = np.array([*self._layer.data_to_world((PLANE, *point))[1:]])
        centre = np.array(self._camera.center[-2:])
        size = np.array([self._native.height(), self._native.width()])
        row, column = (world - centre) * self._camera.zoom + size / 2
        return QPoint(round(column), round(row))


def settle(seconds: float) -> None:
    """Let the window work for a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.005)


def main() -> None:
    painting = Painting()
    for start, stop in STROKES:
        painting.stroke(start, stop)
        settle(0.05)
        np.save(sys.argv[1], painting.labels.data)
        sys.stdout.write("stroke\n")
        sys.stdout.flush()
    settle(2.0)
    painting.press(HELD)
    sys.stdout.write("painting\n")
    sys.stdout.flush()
    for step in range(10_000):
        painting.move((HELD[0] + step % 40, HELD[1] + step % 400))


if __name__ == "__main__":
    main()
