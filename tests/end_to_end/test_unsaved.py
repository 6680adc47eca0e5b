"""A napari process that is killed while somebody paints, and the next one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from pytestqt.qtbot import QtBot

from clsclip.wire import TOKEN_VARIABLE
from napari_clsclip import _widget
from napari_clsclip._connection import URL_VARIABLE, BackendConnection
from napari_clsclip._supervisor import RemoteAddress
from napari_clsclip._unsaved_files import dead_sessions
from paint_in_napari import LABEL, PLANE, SHAPE, STROKES, image
from waiting import eventually

NOWHERE = "http://127.0.0.1:1"
MILLISECONDS = 60_000

Dock = Callable[[], Any]


class Painter:
    """A napari process in which somebody paints."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state.npy"
        script = Path(__file__).parents[1] / "paint_in_napari.py"
        environment = {**os.environ, URL_VARIABLE: NOWHERE, TOKEN_VARIABLE: "none"}
        self.process = subprocess.Popen(
            [sys.executable, str(script), str(self.state)],
            stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def wait_for(self, said: str) -> None:
        output: IO[str] | None = self.process.stdout
        assert output is not None
        for line in output:
            if line.strip() == said:
                return
        raise AssertionError(f"napari ended with {self.process.wait()}")

    def kill(self) -> NDArray[np.uint16]:
        """Kill it, without a warning; returns the labels after its last finished stroke."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return np.load(self.state)


@pytest.fixture
def painter(tmp_path: Path) -> Iterator[Painter]:
    started = Painter(tmp_path)
    yield started
    if started.process.poll() is None:
        started.kill()


@pytest.fixture
def dock(
    make_napari_viewer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, qapp: Any
) -> Iterator[Dock]:
    """A viewer with the docked widget; its backend is not there."""
    connection = BackendConnection(RemoteAddress(NOWHERE, "none"))
    monkeypatch.setattr(_widget, "shared_connection", lambda: connection)

    def make() -> Any:
        viewer = make_napari_viewer(show=True)
        _, widget = viewer.window.add_plugin_dock_widget("napari-clsclip", "ClsCLIP")
        return viewer, widget

    yield make
    connection.stop()


def held_stroke(labels: NDArray[np.uint16], finished: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Pixels that differ from the finished strokes; all of them hold the painted label."""
    more = labels != finished
    assert (labels[more] == LABEL).all()
    return more


def test_corrections_survive_a_kill_while_painting(
    dock: Dock, painter: Painter, unsaved_folder: Path, qtbot: QtBot
) -> None:
    painter.wait_for("painting")
    tiles = f"*/*/{PLANE}-*.npz"
    eventually(lambda: len(list(unsaved_folder.glob(tiles))) == 4)
    before = {path: path.stat().st_mtime_ns for path in unsaved_folder.glob(tiles)}

    def goes_on() -> bool:
        """Whether the stroke that never ends is written, too."""
        return any(path.stat().st_mtime_ns != time for path, time in before.items())

    eventually(goes_on)
    assert list(dead_sessions(unsaved_folder)) == []  # nothing is offered while it lives
    finished = painter.kill()

    viewer, widget = dock()
    viewer.add_image(image() + 1, name="slide")
    where = {"scale": (1, 0.25, 0.25), "translate": (0, 7, 8)}
    opened = viewer.add_image(image(), name="opened again", **where)
    bar = widget.unsaved_bar
    qtbot.waitUntil(lambda: len(bar.offers) == 1, timeout=MILLISECONDS)
    assert bar.isVisible()
    said = bar.text.text()
    assert said.startswith("Corrections from ")
    assert said.endswith(" of 'nucleus' on 'slide' were not saved when napari ended.")
    bar.restore_button.click()
    qtbot.waitUntil(lambda: not bar.offers, timeout=MILLISECONDS)
    assert bar.message.text() == "'nucleus' is back as it was."
    labels = viewer.layers["nucleus"]
    more = held_stroke(labels.data, finished)
    for start, stop in STROKES:
        assert labels.data[PLANE][tuple(map(int, start))] == LABEL
        assert labels.data[PLANE][tuple(map(int, stop))] == LABEL
    assert more.sum() < 0.1 * more.size
    assert not more[:PLANE].any()
    assert labels.data.shape == SHAPE
    assert labels.data.dtype == np.uint16
    assert_allclose(labels.data_to_world((1, 5, 7)), opened.data_to_world((1, 5, 7)))
    assert labels.metadata["clsclip"]["words"] == ["nucleus"]
    assert labels.metadata["clsclip"]["classes"] == {1: "nucleus"}
    assert labels.features["class"].tolist() == ["nucleus"]
    results = widget.segment_tab.results
    assert results.image(labels) is opened
    assert results.words(labels) == ("nucleus",)
    assert results.current() is labels

    # What was restored and painted on is kept further, from the first stroke to the last.
    labels.paint((PLANE, 20, 20), 9)
    watched = _widget.unsaved_corrections(viewer)
    assert watched.journal.flush(20)
    kept = [folder for folder in unsaved_folder.glob("*/*/") if _holds(folder, 9)]
    assert len(kept) == 1
    assert_array_equal(_labels(kept[0]), labels.data)


def _labels(folder: Path) -> NDArray[np.uint16]:
    from napari_clsclip._unsaved_files import KeptFolder

    kept = KeptFolder(folder)
    about = kept.read_about()
    assert about is not None
    return kept.read(about)[0]


def _holds(folder: Path, value: int) -> bool:
    return bool((_labels(folder) == value).any())
