"""A plane that is too large for one request, through a real window and a real backend process."""

from __future__ import annotations

import os
import re
import signal
import threading
from pathlib import Path

import dask.array
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from pytestqt.qtbot import QtBot

from clsclip.image_sources import open_source
from clsclip.wire import PlanePart
from large_plane import (
    BLOCKS,
    CHUNK,
    MILLISECONDS,
    SHAPE,
    ZOOM,
    Dock,
    LazyPlane,
    ask,
    files,
    finest,
    finish,
    opened,
    pixels,
    segment,
    small_limit,
    start,
)
from napari_clsclip._connection import BackendConnection
from napari_clsclip._large_settings import LARGE_VARIABLE
from napari_clsclip._result_looks import METADATA_KEY
from ticking import Ticks

HALO = 282  # pixels: a window of 64 at that zoom, and what is mixed in


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return small_limit(tmp_path, monkeypatch)


def test_blocks_equal_one_request_and_are_shown_from_disk(
    dock: Dock, qtbot: QtBot, connection: BackendConnection, results: Path
) -> None:
    viewer, tab, plane = opened(dock)
    seen: list[str] = []
    tab._poll_timer.timeout.connect(lambda: seen.append(tab.message.text()))
    text = segment(tab, qtbot)
    (file,) = files(results)
    assert text.startswith(f"{BLOCKS} blocks segmented, in ")
    assert f"The labels are in '{file}'. napari cannot paint in so large a layer" in text
    wanted = re.compile(rf"Segmenting block \d of {BLOCKS}(, step .*)?(, about \d+ s left)? … .*")
    assert any(wanted.fullmatch(words) for words in seen), seen
    # No thread but the workers' reads; each chunk where a block and its halo reach, and 25 places.
    assert threading.get_ident() not in plane.threads
    reach = CHUNK + 512 + 2 * HALO
    assert len(set(plane.computed)) == 20
    assert max(map(plane.computed.count, plane.computed)) <= (reach // 512 + 1) ** 2 + 25
    layer = viewer.layers["nucleus"]
    assert [level.shape for level in layer.data] == [(1500, 1200), (750, 600), (375, 300)]
    assert not isinstance(layer.data[0], np.ndarray)
    assert not layer.editable
    made = layer.metadata[METADATA_KEY]
    assert (made["file"], made["words"], made["zooms"]) == (str(file), ["nucleus"], [ZOOM])
    labels = finest(layer)
    direct = ask(connection, tab)
    assert made["model_version"] == direct.model_version
    # At most a step of 1/255 apart, at very few pixels, see docs/large.md.
    different = labels != direct.labels(0.5)
    assert 0.05 < labels.mean() < 0.95
    assert different.mean() < 1e-4
    assert np.abs(direct.probabilities[0][different].astype(int) - 128).max(initial=0) <= 1
    for level, array in enumerate(layer.data):
        assert_array_equal(array, labels[:: 2**level, :: 2**level])
    with open_source(file, level=1) as source:  # other programs find the levels by its metadata
        assert_array_equal(source.read(), labels[::2, ::2])
    # Once more: nothing is read but the places that tell one image from another.
    plane.forget()
    text = segment(tab, qtbot)
    assert f"All {BLOCKS} blocks have been segmented with these settings before" in text
    assert len(plane.computed) < 60
    assert len(viewer.layers) == 2
    # The threshold belongs to the file: another one is another file.
    assert viewer.layers.selection.active is layer
    tab.threshold.setValue(0.4)
    assert "'nucleus' keeps its threshold of 0.50" in tab.message.text()
    assert_array_equal(finest(layer), labels)
    start(tab, qtbot, 1)
    tab.cancel_button.click()
    assert len(files(results)) == 2
    assert_array_equal(finest(layer), labels)
    corner = (slice(0, 512), slice(0, 512))
    other = finest(viewer.layers["nucleus [1]"])[corner]
    assert (other != direct.labels(0.4)[corner]).mean() < 1e-4
    viewer.layers.selection.active = layer
    assert tab.threshold.value() == 0.5


def test_cancel_keeps_blocks_and_another_session_goes_on(
    dock: Dock, qtbot: QtBot, connection: BackendConnection, results: Path
) -> None:
    viewer, tab, plane = opened(dock, seconds=0.02)
    start(tab, qtbot, 2)
    tab.cancel_button.click()
    assert not tab.busy
    layer = viewer.layers["nucleus"]
    kept = int(tab.message.text().split()[1])
    assert 2 <= kept < BLOCKS
    assert tab.message.text().startswith(f"Cancelled. {kept} of {BLOCKS} blocks are finished and")
    qtbot.wait(500)  # a block was with the backend, one was read ahead
    read = len(plane.computed)
    qtbot.wait(300)
    assert len(plane.computed) == read
    assert finest(layer)[:512, :512].any()
    assert not finest(layer)[1024:, 1024:].any()
    assert len(viewer.layers) == 2
    viewer.layers.clear()
    viewer, tab, plane = opened(dock)
    text = segment(tab, qtbot)
    before = re.fullmatch(rf"{BLOCKS} blocks segmented \((\d+) of them before\), in .*", text)
    assert before
    assert int(before[1]) - kept in (0, 1)  # one may have been on its way to the file
    assert (0, 0) in plane.computed  # one of the 25 places
    assert len(files(results)) == 1
    direct = ask(connection, tab).labels(0.5)
    assert (finest(viewer.layers["nucleus"]) != direct).mean() < 1e-4


def test_a_run_goes_on_when_the_backend_is_back_and_without_its_image(
    dock: Dock, qtbot: QtBot, connection: BackendConnection
) -> None:
    viewer, tab, _ = opened(dock, seconds=0.02)
    start(tab, qtbot, 1)
    viewer.layers.remove("slide")
    client = connection.supervisor.ready_client(lambda: False)
    os.kill(client.health().pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    text = finish(tab, qtbot)
    assert text.startswith(f"{BLOCKS} blocks segmented, in ")
    direct = ask(connection, tab).labels(0.5)
    assert (finest(viewer.layers["nucleus"]) != direct).mean() < 1e-4


def test_removing_the_result_ends_the_run(dock: Dock, qtbot: QtBot) -> None:
    viewer, tab, _ = opened(dock, seconds=0.02)
    start(tab, qtbot, 1)
    qtbot.waitUntil(lambda: "nucleus" in viewer.layers, timeout=MILLISECONDS)
    viewer.layers.remove("nucleus")
    text = finish(tab, qtbot)
    assert text.startswith("The result layer was removed. ")
    assert "press Segment to go on" in text


def test_objects_larger_than_blocks_are_looked_for_in_a_reduced_plane(
    dock: Dock, qtbot: QtBot, connection: BackendConnection
) -> None:
    viewer, tab, _ = opened(dock)
    tab.zoom.setValue(0.1)  # 0.8 in a plane with 8 times fewer rows and columns
    segment(tab, qtbot)
    image = pixels(slice(0, SHAPE[0]), slice(0, SHAPE[1])).astype(np.float64)
    padded = np.pad(image, ((0, 4), (0, 0)), mode="edge")
    means = np.rint(padded.reshape(188, 8, 150, 8).mean(axis=(1, 3))).astype(np.uint8)
    direct = ask(connection, tab, means, zoom=0.8).labels(0.5)
    large = direct.repeat(8, 0).repeat(8, 1)[: SHAPE[0], : SHAPE[1]]
    assert 0.02 < large.mean() < 0.98
    assert (finest(viewer.layers["nucleus"]) != large).mean() < 1e-4


def test_the_automatic_zoom_is_chosen_once_for_all_blocks(
    dock: Dock, qtbot: QtBot, connection: BackendConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LARGE_VARIABLE, "35000")
    shape = (220, 180)
    plane = LazyPlane(shape, chunk=60)
    viewer, widget = dock()
    tab = widget.segment_tab
    levels = [plane.array, plane.array[::4, ::4].compute()]
    viewer.add_image(levels, multiscale=True, name="pyramid", contrast_limits=(0, 255))
    tab.scope.full_resolution.setChecked(True)
    tab.zoom.setValue(0)
    tab.words.setText("nucleus, airplane")
    assert segment(tab, qtbot).startswith("12 blocks segmented")
    layer = viewer.layers["nucleus, airplane"]
    zooms = layer.metadata[METADATA_KEY]["zooms"]
    assert len(zooms) == 2
    passes = tuple((zoom, zoom * 2**-0.5) for zoom in zooms)
    part = PlanePart(shape=shape, origin=(0, 0), core=(0, 0, *shape), passes=passes)
    image = plane.array.compute()
    direct = ask(connection, tab, image, words=("nucleus", "airplane"), zoom=None, part=part)
    assert (finest(layer) != direct.labels(0.5)).mean() < 1e-4


def test_a_plane_of_400_megapixels_is_cancelled_after_its_first_block(
    dock: Dock, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(LARGE_VARIABLE)
    computed = []

    def load(block_info: dict) -> NDArray[np.uint8]:
        computed.append(block_info[None]["chunk-location"])
        return np.full((2000, 2000), 7, np.uint8)

    array = dask.array.map_blocks(
        load, chunks=((2000,) * 10,) * 2, dtype=np.uint8, meta=np.empty((0, 0), np.uint8)
    )
    viewer, widget = dock()
    tab = widget.segment_tab
    tab.zoom.setValue(0.125)
    viewer.add_image([array, np.full((200, 200), 7, np.uint8)], multiscale=True, name="slide",
                     contrast_limits=(0, 255))  # fmt: skip
    tab.scope.full_resolution.setChecked(True)
    computed.clear()
    start(tab, qtbot, 1)
    tab.cancel_button.click()
    assert "of 25 blocks are finished and kept" in tab.message.text()
    assert viewer.layers["nucleus"].data.shapes[0] == (20_000, 20_000)
    read = set(computed)
    assert {(0, 0), (1, 1), (2, 2)} <= read  # 4096 pixels and a halo of less than 1000
    assert len(read - {(row, column) for row in (0, 2, 4, 7, 9) for column in (0, 2, 4, 7, 9)}) < 30


@pytest.mark.slow
def test_window_stays_responsive_while_blocks_come_in(dock: Dock, qtbot: QtBot) -> None:
    """As for a stack of planes."""
    viewer, tab, _ = opened(dock, seconds=0.15, show=True)
    tab.zoom.setValue(0.5)
    start(tab, qtbot, 1)
    qtbot.waitUntil(lambda: "nucleus" in viewer.layers, timeout=MILLISECONDS)
    qtbot.wait(300)  # adding the layer is napari's own time
    ticks = Ticks()
    ticks.start()
    finish(tab, qtbot)
    ticks.stop()
    ticks.assert_responsive()
