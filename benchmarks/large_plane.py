"""Time and memory of the napari widget on a plane that it segments block by block.

    python benchmarks/large_plane.py --side 8000 --zoom 0.25

A zarr of SIDE x SIDE pixels full of bright round nuclei is opened as a lazy layer in a real window
(on a display, or under Xvfb) and segmented as by a press of *Segment*, with a backend that the
plugin starts. Memory is the peak of the resident memory of the napari process above what it was
when the image was open and the backend ready; the backend's is not counted. The Qt thread's
processor time between two ticks of a timer of 10 ms says how long the window stands still.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import dask.array
import numpy as np
import psutil
from scale import generate

from clsclip.config import DEFAULT_MODEL

LARGE_FROM = 4096**2
"""Pixels; less than by default, so that planes of several sizes go by blocks of the same size."""


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--word", default="nucleus")
    parser.add_argument("--side", type=int, default=8_000)
    parser.add_argument("--repeat", type=int, default=1, help="the plane, N times down and across")
    parser.add_argument("--zoom", type=float, default=0.0, help="default: chosen for the plane")
    parser.add_argument("--blocks", type=int, default=0, help="cancel after so many; default: all")
    parser.add_argument("--folder", type=Path, help="for the image; kept and used again")
    parser.add_argument("--screenshot", type=Path, help="PNG of the window in the end")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["NAPARI_CONFIG"] = ""  # neither read nor change the user's settings
        os.environ["NAPARI_CLSCLIP_RESULTS"] = temporary
        os.environ["NAPARI_CLSCLIP_LARGE_FROM"] = str(LARGE_FROM)
        path = (args.folder or Path(temporary)) / f"large-{args.side}.zarr"
        if not path.exists():
            generate(path, args.side, 0)
        measure(path, args)
    return 0


def measure(path: Path, args: argparse.Namespace) -> None:
    """Segment the image in a window, and print what it took."""
    import napari
    from qtpy.QtCore import QTimer
    from qtpy.QtWidgets import QApplication

    viewer = napari.Viewer()
    _, widget = viewer.window.add_plugin_dock_widget("napari-clsclip", "ClsCLIP")
    tab = widget.segment_tab
    tab.model.setCurrentText(args.model)
    tab.words.setText(args.word)
    tab.zoom.setValue(args.zoom)
    fine = dask.array.tile(dask.array.from_zarr(path), (args.repeat, args.repeat))
    side = args.side * args.repeat
    viewer.add_image([fine, fine[::16, ::16].compute()], multiscale=True, name="slide",
                     contrast_limits=(0, 255))  # fmt: skip
    tab.scope.full_resolution.setChecked(True)
    tab._connection.supervisor.ready_client(lambda: False)
    application = QApplication.instance()
    assert application is not None
    for _ in range(50):
        application.processEvents()
    memory = Memory()
    ticks: list[float] = []
    timer = QTimer(interval=10)
    timer.timeout.connect(lambda: ticks.append(time.thread_time()))
    began = time.monotonic()
    tab.segment_button.click()
    timer.start()
    run = tab._job
    while tab.busy:
        application.processEvents()
        segmenting = "block" in run.message(tab._connection.status)
        if tab.busy and args.blocks and segmenting and run.progress.done >= args.blocks:
            tab.cancel()
        time.sleep(0.002)
    seconds = time.monotonic() - began
    timer.stop()
    used = memory.stop()
    file = viewer.layers[args.word].metadata["clsclip"]["file"]
    stored = sum(part.stat().st_size for part in Path(file).rglob("*") if part.is_file())
    work = 1000 * np.diff(ticks)
    print(tab.message.text())
    print(f"zooms {viewer.layers[args.word].metadata['clsclip']['zooms']}")
    pixels = side**2 * run.progress.done / run.progress.total
    print(f"{side} x {side}: {seconds:.0f} s, {pixels / 1e6 / seconds:.2f} megapixels/s")
    print(f"peak memory of napari above an open window ({memory.idle:.0f} MiB): {used:.0f} MiB")
    print(f"labels on disk: {stored / side**2:.4f} bytes per pixel")
    print(f"Qt thread between ticks: 95 of 100 under {np.percentile(work, 95):.0f} ms, "
          f"99 under {np.percentile(work, 99):.0f} ms, at most {work.max():.0f} ms")  # fmt: skip
    if args.screenshot:
        viewer.window.screenshot(str(args.screenshot), canvas_only=False)
    viewer.close()


class Memory:
    """The peak of this process's resident memory, looked at 50 times a second."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.idle = self._now()
        self._peak = self.idle
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """MiB above the beginning."""
        self._stopped.set()
        self._thread.join()
        return self._peak - self.idle

    def _now(self) -> float:
        return float(self._process.memory_info().rss / 2**20)

    def _watch(self) -> None:
        while not self._stopped.wait(0.02):
            self._peak = max(self._peak, self._now())


if __name__ == "__main__":
    sys.exit(main())
