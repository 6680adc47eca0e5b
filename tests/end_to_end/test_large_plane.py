"""A plane that is too large for one request, through a real window and a real backend process."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pytest
from filelock import FileLock
from napari.layers import Labels
from napari.utils.notifications import notification_manager
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from pytestqt.qtbot import QtBot

from clsclip.image_sources import open_source
from clsclip.segmentation import Segmentation
from clsclip.wire import PlanePart, SegmentRequest
from napari_clsclip._connection import BackendConnection
from napari_clsclip._large_settings import LARGE_VARIABLE, RESULTS_VARIABLE
from napari_clsclip._result_looks import METADATA_KEY
from napari_clsclip._scope import Scope
from napari_clsclip._segment_tab import SegmentTab
from small_disk import mounted
from ticking import Ticks

MILLISECONDS = 120_000
SHAPE = (1500, 1200)
CHUNK = 300
BLOCKS = 9  # of 512 x 512
ZOOM = 0.25
HALO = 282  # pixels: a window of 64 at that zoom, and what is mixed in

Dock = Callable[..., Any]


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Planes of more than 1.2 megapixels are large; their labels lie in a folder of the test."""
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
    assert text.startswith(f"{BLOCKS} blocks segmented ({kept} of them before), in ")
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


def test_what_cannot_be_had_is_told_and_the_visible_region_can_be_painted(
    dock: Dock, qtbot: QtBot
) -> None:
    viewer, tab, plane = opened(dock, show=True)
    tab.objects.setChecked(True)
    text = segment(tab, qtbot)
    assert 'napari-clsclip-label IMAGE --words "nucleus" --instances --output FOLDER' in text
    tab.objects.setChecked(False)
    tab.options.regions.setCurrentText("tiles")
    assert "Regions and boxes cannot be used for a plane of 1,500 x 1,200" in segment(tab, qtbot)
    tab.options.regions.setCurrentText("none")
    tab.scope.scope = Scope.ALL
    assert "scope This plane, which goes block by block" in segment(tab, qtbot)
    assert plane.computed == []
    tab.scope.scope = Scope.REGION
    viewer.scene.camera.center = (0, 700, 600)
    viewer.scene.camera.zoom = 4
    assert "of the plane" in segment(tab, qtbot)
    region = viewer.layers["nucleus"]
    assert region.editable
    assert region.data.shape < SHAPE
    region.paint((5, 5), 1)


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file system of 40 megabytes for the results."""
    with mounted(tmp_path / "disk", megabytes=40) as folder:
        monkeypatch.setenv(RESULTS_VARIABLE, str(folder))
        yield folder


def fill_up(file: Path) -> None:
    """Write a file until the disk is full."""
    with file.open("wb", buffering=0) as stream, suppress(OSError):
        while True:
            stream.write(bytes(4096))


def test_a_disk_that_is_full_before_or_during_a_run(
    dock: Dock, qtbot: QtBot, small_disk: Path, connection: BackendConnection
) -> None:
    viewer, tab, _ = opened(dock, seconds=0.02)
    other = small_disk / "other"
    other.write_bytes(bytes(20 * 2**20))
    text = segment(tab, qtbot)
    assert "The labels of this plane may take 32 MiB" in text
    assert "20 MiB are free there. Free some space, or name another folder in" in text
    assert text in [record.message for record in notification_manager.records]
    other.unlink()
    start(tab, qtbot, 1)
    fill_up(other)
    text = finish(tab, qtbot)
    assert "No space left on device" in text
    kept = int(re.search(rf"(\d) of {BLOCKS} blocks are finished and kept", text)[1])
    assert 1 <= kept < BLOCKS
    other.unlink()
    text = segment(tab, qtbot)
    assert f"{BLOCKS} blocks segmented ({kept} of them before)" in text
    direct = ask(connection, tab).labels(0.5)
    assert (finest(viewer.layers["nucleus"]) != direct).mean() < 1e-4


def test_a_folder_that_cannot_be_written_or_is_in_use(
    dock: Dock, qtbot: QtBot, tmp_path: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer, tab, _ = opened(dock)
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv(RESULTS_VARIABLE, str(tmp_path / "file" / "results"))
    text = segment(tab, qtbot)
    assert "cannot be written" in text
    assert "Name another one in the environment variable NAPARI_CLSCLIP_RESULTS" in text
    monkeypatch.setenv(RESULTS_VARIABLE, str(results))
    start(tab, qtbot, 1)
    tab.cancel_button.click()
    (file,) = files(results)
    monkeypatch.setattr("napari_clsclip._large_labels.LOCK_SECONDS", 1.0)
    with FileLock(results / f".{file.name}.lock"):
        assert "is being written by another napari" in segment(tab, qtbot)
    (file / "zarr.json").write_text("{")
    assert "is damaged" in segment(tab, qtbot)
    assert len(viewer.layers) == 2


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
