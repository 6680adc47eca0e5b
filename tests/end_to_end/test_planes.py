"""All planes of a stack, through a real window and a real backend process."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from typing import Any

import dask.array
import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from pytestqt.qtbot import QtBot

from asked_planes import MILLISECONDS, Dock, blobs, expected, finish, start
from napari_clsclip._connection import BackendConnection
from napari_clsclip._patient_backend import MOST_DEATHS
from napari_clsclip._scope import Scope
from napari_clsclip._segment_tab import SegmentTab
from ticking import Ticks


class LazyStack:
    """A Dask array of one chunk per plane, and the planes that were computed, in order.

    A plane is computed once the event of its first index in ``readable`` is set, as all are.
    """

    def __init__(self, planes: NDArray[Any], seconds: float = 0.0) -> None:
        self.planes = planes
        self.computed: list[tuple[int, ...]] = []
        self.threads: set[int] = set()
        self.readable = [threading.Event() for _ in planes]
        for event in self.readable:
            event.set()
        hidden = planes.ndim - 2

        def load(block_info: dict) -> NDArray[Any]:
            position = block_info[None]["chunk-location"][:hidden]
            self.computed.append(position)
            self.threads.add(threading.get_ident())
            time.sleep(seconds)
            self.readable[position[0]].wait(60)
            return planes[position][(None,) * hidden]

        chunks = tuple((1,) * length for length in planes.shape[:hidden])
        self.array = dask.array.map_blocks(
            load, chunks=(*chunks, *((length,) for length in planes.shape[hidden:])),
            dtype=planes.dtype, meta=np.empty((0,) * planes.ndim, planes.dtype),
        )  # fmt: skip


def wait_for_planes(tab: SegmentTab, qtbot: QtBot, count: int) -> None:
    qtbot.waitUntil(lambda: not tab.busy or tab._job.ended >= count, timeout=MILLISECONDS)
    assert tab.busy, tab.message.text()


def test_cancel_after_a_few_of_50_planes_keeps_them_and_goes_on(
    dock: Dock, qtbot: QtBot, connection: BackendConnection
) -> None:
    stack = LazyStack(blobs(5, 10, 32, 40), seconds=0.05)
    viewer, widget = dock()
    tab = widget.segment_tab
    viewer.add_image(stack.array, name="movie", contrast_limits=(0, 255), cache=False)
    viewer.dims.set_current_step((0, 1), (2, 3))
    assert tab.scope.choice.itemText(2) == "All planes (50)"
    stack.computed.clear()
    stack.threads.clear()
    seen: list[str] = []
    tab._poll_timer.timeout.connect(lambda: seen.append(tab.message.text()))
    start(tab)
    wait_for_planes(tab, qtbot, 4)
    tab.cancel_button.click()
    assert not tab.busy
    layer = viewer.layers["nucleus"]
    done = [position for position in np.ndindex(5, 10) if layer.data[position].any()]
    assert 4 <= len(done) < 50
    assert tab.message.text().startswith(f"Cancelled. {len(done)} of 50 planes are done and kept")
    wanted = re.compile(r"Segmenting plane \d+ of 50 \(5 x 10\)(, step .*)?, about \d+ s left …")
    assert any(wanted.fullmatch(text) for text in seen), seen
    # In order, the plane on screen first; one more was with the backend, one more read ahead.
    order = [*np.ndindex(5, 10)]
    order = order[23:] + order[:23]
    assert stack.computed[: len(done)] == order[: len(done)]
    assert sorted(order.index(position) for position in done) == list(range(len(done)))
    assert threading.get_ident() not in stack.threads
    qtbot.wait(400)
    assert len(stack.computed) <= len(done) + 2
    assert len(viewer.layers) == 2
    for position in done[:2]:
        assert_array_equal(layer.data[position], expected(connection, tab, stack.planes[position]))
    # Once more: it goes on where it was, without a look at what is done.
    stack.computed.clear()
    start(tab)
    finish(tab, qtbot)
    assert f"50 of 50 planes segmented ({len(done)} of them before)" in tab.message.text()
    assert sorted(stack.computed) == sorted(set(order) - set(done))
    assert len(viewer.layers) == 2
    for position in ((0, 0), (2, 2), (4, 9)):
        assert_array_equal(layer.data[position], expected(connection, tab, stack.planes[position]))
    stack.computed.clear()
    start(tab)
    assert not tab.busy
    assert "All 50 planes have a result" in tab.message.text()
    assert stack.computed == []
    # Other settings are another question, and the planes are replaced.
    tab.zoom.setValue(2.0)
    start(tab)
    wait_for_planes(tab, qtbot, 1)
    tab.cancel_button.click()
    assert len(viewer.layers) == 2
    assert (2, 3) in stack.computed


def test_painted_planes_stay_as_they_are(
    dock: Dock, qtbot: QtBot, connection: BackendConnection
) -> None:
    stack = LazyStack(blobs(5, 32, 40))
    viewer, widget = dock()
    tab = widget.segment_tab
    viewer.add_image(stack.array, contrast_limits=(0, 255), cache=False)
    start(tab, Scope.PLANE)
    finish(tab, qtbot)
    layer = viewer.layers["nucleus"]
    layer.paint((0, 10, 10), 7)
    layer.paint((3, 10, 10), 7)
    before = layer.data.copy()
    stack.computed.clear()
    tab.zoom.setValue(2.0)  # so that plane 0 is not skipped because it is done
    start(tab)
    finish(tab, qtbot)
    assert "3 of 5 planes segmented" in tab.message.text()
    assert "2 with something painted in them left as they were" in tab.message.text()
    for z in (0, 3):
        assert_array_equal(layer.data[z], before[z])
    assert all(layer.data[z].any() for z in (1, 2, 4))
    assert (3,) not in stack.computed  # nothing was predicted there, so it is not even read
    assert len(viewer.layers) == 2


def test_plane_painted_during_the_run_stays(dock: Dock, qtbot: QtBot) -> None:
    viewer, widget = dock()
    tab = widget.segment_tab
    viewer.add_image(blobs(5, 32, 40), contrast_limits=(0, 255))
    start(tab)
    qtbot.waitUntil(lambda: "nucleus" in viewer.layers, timeout=MILLISECONDS)
    layer = viewer.layers["nucleus"]
    layer.paint((4, 10, 10), 7)
    before = layer.data[4].copy()
    finish(tab, qtbot)
    assert_array_equal(layer.data[4], before)
    assert "4 of 5 planes" in tab.message.text()
    layer.undo()
    assert not layer.data[4].any()


def test_plane_with_nan_is_named_and_the_others_go_on(dock: Dock, qtbot: QtBot) -> None:
    image = blobs(4, 32, 40).astype(np.float32)
    image[2, 5, 5] = np.nan
    viewer, widget = dock()
    tab = widget.segment_tab
    viewer.add_image(image, contrast_limits=(0, 255), axis_labels=("z", "y", "x"))
    start(tab)
    finish(tab, qtbot)
    layer = viewer.layers["nucleus"]
    assert [bool(plane.any()) for plane in layer.data] == [True, True, False, True]
    text = tab.message.text()
    assert "3 of 4 planes segmented" in text
    assert "Plane z 2 left out: The image 'image' has 1 NaN" in text
    assert text in [record.message for record in notification_manager.records]


def test_run_goes_on_when_a_killed_backend_is_back(
    dock: Dock, qtbot: QtBot, connection: BackendConnection
) -> None:
    viewer, widget = dock()
    tab = widget.segment_tab
    planes = 6
    stack = LazyStack(blobs(planes, 96, 96))
    viewer.add_image(stack.array, contrast_limits=(0, 255), cache=False)
    viewer.dims.set_current_step(0, 0)
    stack.computed.clear()
    stack.readable[3].clear()
    killed = connection.supervisor.ready_client(lambda: False).health().pid
    start(tab)
    wait_for_planes(tab, qtbot, 3)
    os.kill(killed, getattr(signal, "SIGKILL", signal.SIGTERM))
    stack.readable[3].set()
    finish(tab, qtbot)
    assert f"{planes} of {planes} planes segmented" in tab.message.text()
    assert connection.supervisor.ready_client(lambda: False).health().pid != killed
    assert all(plane.any() for plane in viewer.layers["nucleus"].data)
    assert len(stack.computed) == planes  # none was read twice


def test_backend_that_dies_again_and_again_ends_the_run_and_segment_goes_on(
    dock: Dock, qtbot: QtBot, connection: BackendConnection
) -> None:
    viewer, widget = dock()
    tab = widget.segment_tab
    planes = 3
    stack = LazyStack(blobs(planes, 512, 512))
    viewer.add_image(stack.array, contrast_limits=(0, 255), cache=False)
    viewer.dims.set_current_step(0, 0)
    stack.readable[1].clear()
    tab.zoom.setValue(8.0)  # takes long
    connection.stop()  # the deaths of other tests do not count
    start(tab)
    wait_for_planes(tab, qtbot, 1)
    stack.readable[1].set()
    for _ in range(MOST_DEATHS):
        qtbot.waitUntil(lambda: ", step " in tab.message.text(), timeout=MILLISECONDS)
        pid = connection.supervisor.ready_client(lambda: False).health().pid
        os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        qtbot.waitUntil(lambda: ", step " not in tab.message.text(), timeout=MILLISECONDS)
    finish(tab, qtbot)
    layer = viewer.layers["nucleus"]
    assert [bool(plane.any()) for plane in layer.data] == [True, False, False]
    assert "press Segment once it is ready" in tab.message.text()
    assert f"1 of {planes} planes are done and kept" in tab.message.text()
    assert tab.message.text() in [record.message for record in notification_manager.records]
    stack.computed.clear()
    start(tab)  # waits until the backend is back
    finish(tab, qtbot)
    assert f"{planes} of {planes} planes segmented (1 of them before)" in tab.message.text()
    assert len(stack.computed) == planes - 1
    assert all(plane.any() for plane in layer.data)


def test_threshold_moves_during_a_run_and_reaches_all_planes(dock: Dock, qtbot: QtBot) -> None:
    viewer, widget = dock()
    tab = widget.segment_tab
    stack = LazyStack(blobs(12, 64, 64), seconds=0.1)
    viewer.add_image(stack.array, contrast_limits=(0, 255))
    start(tab)
    wait_for_planes(tab, qtbot, 1)
    tab.threshold.setValue(tab.threshold.value() + 0.03)
    finish(tab, qtbot)
    qtbot.waitUntil(lambda: tab.selected.settled, timeout=5_000)
    layer = viewer.layers["nucleus"]
    result = tab.results._results[layer]
    assert len(result.patches) == 12
    for (patch,) in result.patches.values():
        wanted = patch.predicted.segmentation.labels(tab.threshold.value())
        assert_array_equal(patch.index.view(layer.data), wanted)


def test_removing_the_result_ends_the_run(dock: Dock, qtbot: QtBot) -> None:
    viewer, widget = dock()
    tab = widget.segment_tab
    stack = LazyStack(blobs(30, 32, 40), seconds=0.1)
    viewer.add_image(stack.array, contrast_limits=(0, 255))
    start(tab)
    wait_for_planes(tab, qtbot, 1)
    viewer.layers.remove("nucleus")
    finish(tab, qtbot)
    assert "result layer was removed" in tab.message.text()
    assert len(viewer.layers) == 1


def test_rolled_axes_run_through_another_axis(
    dock: Dock, qtbot: QtBot, connection: BackendConnection
) -> None:
    viewer, widget = dock()
    tab = widget.segment_tab
    image = np.ascontiguousarray(np.moveaxis(blobs(3, 32, 40), 0, 2))
    viewer.add_image(image, contrast_limits=(0, 255), rgb=False)
    viewer.dims.order = (2, 0, 1)
    assert tab.scope.choice.itemText(2) == "All planes (3)"
    start(tab)
    finish(tab, qtbot)
    layer = viewer.layers["nucleus"]
    for k in range(3):
        plane = np.ascontiguousarray(image[..., k])
        assert_array_equal(layer.data[..., k], expected(connection, tab, plane))


@pytest.mark.slow
def test_window_stays_responsive_during_a_run(dock: Dock, qtbot: QtBot) -> None:
    """The Qt thread works for short times, and waits neither for the backend nor for a plane."""
    viewer, widget = dock(show=True)
    tab = widget.segment_tab
    stack = LazyStack(blobs(5, 192, 192), seconds=0.5)
    viewer.add_image(stack.array, contrast_limits=(0, 255))
    qtbot.wait(500)
    ticks = Ticks()
    start(tab)
    wait_for_planes(tab, qtbot, 1)
    qtbot.wait(300)  # adding the layer is napari's own time; see the test for one plane
    ticks.start()
    finish(tab, qtbot)
    ticks.stop()
    ticks.assert_responsive()
