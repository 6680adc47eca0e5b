"""How long the Qt thread is held up by keeping corrections, and by steps that can be undone.

    python benchmarks/unsaved_corrections.py [--size 4096] [--strokes 20]

opens napari with a result of SIZE x SIZE pixels (under ``xvfb-run`` on a machine without display),
paints strokes of ten dabs on it, and prints in milliseconds: what the plugin does in the Qt thread
per dab and at the end of a stroke; how long Qt stands still (gap between ticks of a 5 ms timer)
while the thread writes, beside the same without writing; what a move of the threshold, the first
of a drag and a later one, and its undo take, with napari's own drawing beside it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


class Bench:
    """A window with a result, and what was measured in it, in milliseconds."""

    def __init__(self, size: int) -> None:
        import napari
        from qtpy.QtCore import QTimer

        from clsclip.segmentation import Segmentation
        from napari_clsclip._layers import displayed_plane
        from napari_clsclip._unsaved_layers import UnsavedCorrections, unsaved_corrections

        self.size = size
        self.spent: list[float] = []
        for name in ("_take_paint", "_take_stroke", "_take_undo"):
            method = getattr(UnsavedCorrections, name)
            setattr(UnsavedCorrections, name, _timed(method, self.spent))
        self.viewer = napari.Viewer()
        image = self.viewer.add_image(np.zeros((size, size), np.uint8))
        _, widget = self.viewer.window.add_plugin_dock_widget("napari-clsclip", "ClsCLIP")
        rows = np.arange(size)[:, None]
        values = (127 + 128 * np.sin(rows / 60) * np.cos(rows.T / 60)).astype(np.uint8)[None]
        found = Segmentation(values, ("nucleus",), "mini", "v", (1.0,), 0.1)
        self.results = widget.segment_tab.results
        plane = displayed_plane(image, self.viewer.dims)
        self.layer = self.results.add(image, plane, found, 0.5)
        self.layer.brush_size = 40
        self.journal = unsaved_corrections(self.viewer).journal
        self.ticks: list[float] = []
        self.timer = QTimer(interval=5)
        self.timer.timeout.connect(lambda: self.ticks.append(time.perf_counter()))

    def process(self, seconds: float) -> None:
        """Run the event loop."""
        from qtpy.QtWidgets import QApplication

        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            QApplication.processEvents()
            time.sleep(0.001)

    def gaps(self, seconds: float) -> np.ndarray:
        """Gaps between the ticks of the timer."""
        self.ticks.clear()
        self.timer.start()
        self.process(seconds)
        self.timer.stop()
        return np.diff(self.ticks) * 1000

    def paint(self, strokes: int) -> None:
        """Paint, and print what keeping it takes."""
        self.process(3.0)
        idle = self.gaps(3.0)
        dabs, ends, writing = [], [], []
        rng = np.random.default_rng(0)
        for number in range(strokes):
            points = rng.uniform(200, self.size - 200, 2) + np.arange(10)[:, None] * 12
            with self.layer.block_history():
                for point in points:
                    self.spent.clear()
                    self.layer.paint(tuple(point), 1 + number % 3)
                    dabs.append(sum(self.spent))
                    self.process(0.01)
                self.spent.clear()
            ends.append(sum(self.spent))
            if number % 5 == 0:  # the debounce, and the write after it
                writing.append(self.gaps(2.5))
        _say("per dab, plugin", dabs)
        _say("per end of a stroke, plugin", ends)
        _say("gap between ticks, idle", idle)
        _say("gap between ticks, first write (the whole plane)", writing[0])
        _say("gap between ticks, later writes", np.concatenate(writing[1:]))
        assert self.journal.flush(60)

    def undo(self) -> None:
        """Move the threshold and undo it, and print what that takes."""
        seconds: dict[str, list[float]] = {}

        def clock(what: str, do: Callable[[], object]) -> None:
            began = time.perf_counter()
            do()
            seconds.setdefault(what, []).append(1000 * (time.perf_counter() - began))

        for number in range(6):
            first, second = 0.4 + number / 100, 0.45 + number / 100
            clock("first move of a drag", lambda t=first: self.results.set_threshold(self.layer, t))
            clock("later move", lambda t=second: self.results.set_threshold(self.layer, t))
            self.results.steps.end_adjustment()
            self.process(1.5)
        for _ in range(6):
            clock("undo of a drag", self.layer.undo)
        for _ in range(6):
            clock("of each of these, napari's refresh", lambda: self.layer.refresh(extent=False))
        for what, times in seconds.items():
            _say(what, times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--strokes", type=int, default=20)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NAPARI_CLSCLIP_UNSAVED"] = str(Path(folder) / "unsaved")
        os.environ["NAPARI_CLSCLIP_URL"] = "http://127.0.0.1:1"  # no backend is needed
        os.environ["NAPARI_CONFIG"] = ""
        bench = Bench(args.size)
        bench.paint(args.strokes)
        bench.undo()
        bench.viewer.close()
        bench.journal.close()


def _timed(method: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    def timed(self: Any, event: Any) -> None:
        began = time.perf_counter()
        method(self, event)
        spent.append(1000 * (time.perf_counter() - began))

    return timed


def _say(what: str, milliseconds: Any) -> None:
    values = np.asarray(milliseconds)
    sys.stdout.write(
        f"{what}: median {np.median(values):.1f} ms, 95 % {np.percentile(values, 95):.1f} ms, "
        f"highest {values.max():.1f} ms\n"
    )


if __name__ == "__main__":
    main()
