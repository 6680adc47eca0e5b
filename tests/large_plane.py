"""A plane that is too large for one request, in a window, and what the Segment tab makes of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pytest
from napari.layers import Labels
from numpy.typing import NDArray
from pytestqt.qtbot import QtBot

from clsclip.segmentation import Segmentation
from clsclip.wire import SegmentRequest
from napari_clsclip._connection import BackendConnection
from napari_clsclip._large_settings import LARGE_VARIABLE, RESULTS_VARIABLE
from napari_clsclip._segment_tab import SegmentTab

MILLISECONDS = 120_000
SHAPE = (1500, 1200)
CHUNK = 300
BLOCKS = 9  # of 512 x 512
ZOOM = 0.25

Dock = Callable[..., Any]


def small_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let planes of more than 1.2 megapixels be large, with labels in a folder; for a fixture."""
    monkeypatch.setenv(LARGE_VARIABLE, "1200000")
    monkeypatch.setenv(RESULTS_VARIABLE, str(tmp_path / "results"))
    return tmp_path / "results"


class LazyPlane:
    """A plane that is computed chunk by chunk, and which chunks were, in which threads."""

    def __init__(
        self, shape: tuple[int, int] = SHAPE, chunk: int = CHUNK, seconds: float = 0.0
    ) -> None:
        self.computed: list[tuple[int, int]] = []
        self.threads: set[int] = set()

        def load(block_info: dict) -> NDArray[np.uint8]:
            self.computed.append(block_info[None]["chunk-location"])
            self.threads.add(threading.get_ident())
            time.sleep(seconds)
            rows, columns = block_info[None]["array-location"]
            return pixels(slice(*rows), slice(*columns))

        chunks = tuple(
            tuple(min(chunk, length - start) for start in range(0, length, chunk))
            for length in shape
        )
        self.array = dask.array.map_blocks(
            load, chunks=chunks, dtype=np.uint8, meta=np.empty((0, 0), np.uint8)
        )

    def forget(self) -> None:
        self.computed.clear()
        self.threads.clear()


def pixels(rows: slice, columns: slice) -> NDArray[np.uint8]:
    """A part of an endless image of disks on a slanted ground."""
    y = np.arange(rows.start, rows.stop)[:, None]
    x = np.arange(columns.start, columns.stop)[None]
    inside = np.hypot(y % 60 - 30, x % 70 - 35) < 12 + (y // 60 + x // 70) % 9
    return np.where(inside, 200, (y + 2 * x) // 40 % 90).astype(np.uint8)


def ask(
    connection: BackendConnection, tab: SegmentTab, image: NDArray[Any] | None = None, **asked: Any
) -> Segmentation:
    """What the backend says in one request, by default about the whole plane."""
    if image is None:
        image = pixels(slice(0, SHAPE[0]), slice(0, SHAPE[1]))
    request = SegmentRequest(
        **{"words": ("nucleus",), "zoom": ZOOM, "contrast_limits": (0, 255)} | asked,
        model=tab.model.currentText(),
    )
    client = connection.supervisor.ready_client(lambda: False)
    return client.segment(image, request, f"direct-{time.monotonic_ns()}")


def opened(dock: Dock, seconds: float = 0.0, **options: Any) -> tuple[Any, SegmentTab, LazyPlane]:
    """A window with the plane."""
    plane = LazyPlane(seconds=seconds)
    viewer, widget = dock(**options)
    tab = widget.segment_tab
    tab.zoom.setValue(ZOOM)
    viewer.add_image(plane.array, name="slide", contrast_limits=(0, 255), cache=False)
    plane.forget()
    return viewer, tab, plane


def segment(tab: SegmentTab, qtbot: QtBot) -> str:
    """Press the button and wait; what the tab says in the end."""
    tab.segment_button.click()
    return finish(tab, qtbot)


def finish(tab: SegmentTab, qtbot: QtBot) -> str:
    qtbot.waitUntil(lambda: not tab.busy, timeout=MILLISECONDS)
    return tab.message.text()


def start(tab: SegmentTab, qtbot: QtBot, blocks: int) -> None:
    """Press the button and wait until some blocks are finished."""
    tab.segment_button.click()
    qtbot.waitUntil(lambda: not tab.busy or finished(tab) >= blocks, timeout=MILLISECONDS)
    assert tab.busy, tab.message.text()


def finished(tab: SegmentTab) -> int:
    """Blocks that are finished in a run that is under way."""
    labels = tab._job._job.labels if tab.busy else None
    return 0 if labels is None else len(labels.done)


def finest(layer: Labels) -> NDArray[np.uint8]:
    return np.asarray(layer.data[0])


def files(results: Path) -> list[Path]:
    return sorted(results.glob("*.zarr"))
