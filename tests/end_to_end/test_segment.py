"""From a typed word to a label layer, through a real window and a real backend process."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import dask.array
import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from pytestqt.qtbot import QtBot
from skimage import data

from clsclip.wire import HealthReport, SegmentRequest
from napari_clsclip._connection import BackendConnection
from napari_clsclip._segment_tab import SegmentTab
from napari_clsclip._supervisor import BackendState
from ticking import Ticks

MILLISECONDS = 120_000

Dock = Callable[..., Any]


def noise(*shape: int, dtype: str = "uint8") -> NDArray[Any]:
    """Smooth random image: blobs of some ten pixels, over the whole range of the dtype."""
    rng = np.random.default_rng(sum(shape))
    coarse = rng.random((*[max(1, length // 8) for length in shape[:2]], *shape[2:]))
    fine = np.kron(coarse, np.ones((8, 8) + (1,) * len(shape[2:])))[: shape[0], : shape[1]]
    top = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1.0
    return (fine * top).astype(dtype)


def segment(tab: SegmentTab, qtbot: QtBot) -> None:
    """Press the button and wait for the end."""
    tab.segment_button.click()
    qtbot.waitUntil(lambda: not tab.busy, timeout=MILLISECONDS)


def health(connection: BackendConnection) -> HealthReport:
    return connection.supervisor.ready_client(lambda: False).health()


def expected_labels(
    connection: BackendConnection, tab: SegmentTab, image: NDArray[Any], words: tuple[str, ...],
    contrast_limits: tuple[float, float] | None = None,
) -> NDArray[np.uint16]:  # fmt: skip
    """What the backend says when it is asked without the plugin."""
    client = connection.supervisor.ready_client(lambda: False)
    request = SegmentRequest(
        model=tab.model.currentText(), zoom=1.0, words=words, contrast_limits=contrast_limits
    )
    return client.segment(image, request, f"direct-{time.monotonic_ns()}").labels(
        tab.threshold.value()
    )


def test_word_becomes_a_label_layer(
    dock: Dock, qtbot: QtBot, connection: BackendConnection
) -> None:
    viewer, widget = dock()
    tab = widget.segment_tab
    image = noise(48, 64, 3)
    layer = viewer.add_image(
        image, name="slide", scale=(0.5, 0.25), translate=(3, 4), units=("um", "um")
    )
    segment(tab, qtbot)
    result = viewer.layers["nucleus"]
    assert_array_equal(result.data, expected_labels(connection, tab, image, ("nucleus",)))
    assert 0 < result.data.mean() < 1
    assert result.data.dtype == np.uint16
    assert_allclose(result.scale, (0.5, 0.25))
    assert_allclose(result.data_to_world((5, 7)), layer.data_to_world((5, 7)))
    assert result.units == layer.units
    about = result.metadata["clsclip"]
    assert about["words"] == ["nucleus"]
    assert about["model"] == tab.model.currentText()
    assert about["model_version"]
    assert about["image"] == "slide"
    assert about["zooms"] == [1.0]
    assert tab.message.text().startswith("nucleus ")
    assert "Ready on" in widget.status_line.text.text()
    offered = [tab.model.itemText(row) for row in range(tab.model.count())]
    assert offered == [model.name for model in connection.status.models]


def test_two_words_get_two_values_and_a_class_table(
    dock: Dock, qtbot: QtBot, connection: BackendConnection
) -> None:
    viewer, widget = dock()
    tab = widget.segment_tab
    image = noise(64, 64, 3)
    viewer.add_image(image)
    tab.words.setText("nucleus, airplane")
    tab.threshold.setValue(0.01)
    segment(tab, qtbot)
    result = viewer.layers["nucleus, airplane"]
    expected = expected_labels(connection, tab, image, ("nucleus", "airplane"))
    assert_array_equal(result.data, expected)
    assert set(np.unique(expected)) >= {1, 2}
    assert result.features["class"].tolist() == ["nucleus", "airplane"]


@pytest.mark.parametrize(
    ("image", "limits"),
    [
        (noise(48, 64, 4), (0, 255)),
        (noise(48, 64, dtype="uint16") // 16, (100, 3000)),
        (noise(48, 64, dtype="float32") * 7 - 2, (-1.0, 4.0)),
        (noise(48, 64) > 128, (0, 1)),
    ],
    ids=["RGBA", "uint16", "float32", "bool"],
)
def test_kinds_of_images(
    dock: Dock, qtbot: QtBot, connection: BackendConnection, image: NDArray[Any], limits: tuple
) -> None:
    viewer, widget = dock()
    viewer.add_image(image, contrast_limits=limits)
    segment(widget.segment_tab, qtbot)
    sent = image.astype(np.uint8) if image.dtype == bool else image
    expected = expected_labels(connection, widget.segment_tab, sent, ("nucleus",), limits)
    assert_array_equal(viewer.layers["nucleus"].data, expected)


def test_planes_of_a_lazy_stack_gather_and_only_they_are_computed(
    dock: Dock, qtbot: QtBot, connection: BackendConnection
) -> None:
    planes = np.stack([noise(40, 48 + z)[:, :48] for z in range(9)])
    computed: list[int] = []

    def load(block_info: dict) -> NDArray[np.uint8]:
        z = block_info[None]["chunk-location"][0]
        computed.append(z)
        return planes[z : z + 1]

    stack = dask.array.map_blocks(
        load, chunks=((1,) * 9, (40,), (48,)), dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8)
    )
    viewer, widget = dock()
    tab = widget.segment_tab
    viewer.add_image(stack, name="stack", contrast_limits=(0, 255), cache=False)
    for z in (2, 7):
        viewer.dims.set_current_step(0, z)
        computed.clear()
        segment(tab, qtbot)
        assert computed == [z]
    assert len(viewer.layers) == 2
    result = viewer.layers["nucleus"].data
    assert result.shape == (9, 40, 48)
    for z in range(9):
        if z in (2, 7):
            plane = expected_labels(connection, tab, planes[z], ("nucleus",), (0, 255))
            assert_array_equal(result[z], plane)
        else:
            assert not result[z].any()


def test_image_with_nan_is_refused_in_words(dock: Dock, qtbot: QtBot) -> None:
    viewer, widget = dock()
    image = noise(32, 32, dtype="float32")
    image[3, 4] = np.nan
    viewer.add_image(image, contrast_limits=(0, 1))
    segment(widget.segment_tab, qtbot)
    assert "1 NaN" in widget.segment_tab.message.text()
    assert [record.message for record in notification_manager.records] == [
        widget.segment_tab.message.text()
    ]
    assert len(viewer.layers) == 1
    assert widget.segment_tab.segment_button.isEnabled()


def test_unknown_model_is_named_in_the_message(dock: Dock, qtbot: QtBot) -> None:
    viewer, widget = dock()
    viewer.add_image(noise(32, 32))
    widget.segment_tab.model.setCurrentText("no-such-model")
    segment(widget.segment_tab, qtbot)
    assert "no-such-model" in widget.segment_tab.message.text()
    assert len(viewer.layers) == 1


def test_painted_pixels_survive_threshold_and_new_segmentation(dock: Dock, qtbot: QtBot) -> None:
    viewer, widget = dock()
    tab = widget.segment_tab
    viewer.add_image(noise(48, 64))
    segment(tab, qtbot)
    first = viewer.layers["nucleus"]
    first.paint((20, 20), 5)
    painted = first.data == 5
    before = first.data.copy()
    tab.threshold.setValue(tab.threshold.value() + 0.02)
    assert (first.data != before).any()
    assert_array_equal(first.data == 5, painted)
    after = first.data.copy()
    segment(tab, qtbot)
    assert_array_equal(first.data, after)
    assert len(viewer.layers) == 3
    segment(tab, qtbot)  # the second result has no painted pixels, so it is replaced
    assert len(viewer.layers) == 3


def start_long_request(tab: SegmentTab, qtbot: QtBot) -> None:
    """Press the button for an image that takes very long, and wait until it is computed."""
    tab.zoom.setValue(8.0)
    tab.segment_button.click()
    qtbot.waitUntil(lambda: "step" in tab.message.text() or not tab.busy, timeout=MILLISECONDS)
    assert tab.busy, tab.message.text()


def test_cancel_ends_at_once_and_the_backend_stops_too(
    dock: Dock, qtbot: QtBot, connection: BackendConnection
) -> None:
    viewer, widget = dock()
    tab = widget.segment_tab
    viewer.add_image(noise(512, 512))
    start_long_request(tab, qtbot)
    assert not tab.segment_button.isEnabled()
    began = time.monotonic()
    tab.cancel_button.click()
    assert not tab.busy
    assert time.monotonic() - began < 1.0
    assert tab.segment_button.isEnabled()
    assert not tab.cancel_button.isEnabled()
    assert len(viewer.layers) == 1
    qtbot.waitUntil(lambda: health(connection).running == 0, timeout=20_000)
    viewer.layers[0].data = noise(32, 32)
    segment(tab, qtbot)
    assert "nucleus" in viewer.layers


def test_removed_image_still_gets_its_result(dock: Dock, qtbot: QtBot) -> None:
    viewer, widget = dock()
    tab = widget.segment_tab
    viewer.add_image(noise(600, 600))  # so that it is not done before the image is removed
    tab.segment_button.click()
    viewer.layers.clear()
    qtbot.waitUntil(lambda: not tab.busy, timeout=MILLISECONDS)
    assert [layer.name for layer in viewer.layers] == ["nucleus"]


def test_closing_the_viewer_cancels_its_request(
    dock: Dock, qtbot: QtBot, connection: BackendConnection
) -> None:
    viewer, widget = dock()
    viewer.add_image(noise(512, 512))
    start_long_request(widget.segment_tab, qtbot)
    viewer.close()
    del widget
    gc.collect()
    qtbot.waitUntil(lambda: health(connection).running == 0, timeout=20_000)


def test_two_viewers_share_one_backend(
    dock: Dock, qtbot: QtBot, connection: BackendConnection
) -> None:
    pids = set()
    for _ in range(2):
        viewer, widget = dock()
        viewer.add_image(noise(32, 32))
        segment(widget.segment_tab, qtbot)
        assert "nucleus" in viewer.layers
        pids.add(health(connection).pid)
    assert len(pids) == 1


def test_window_stays_responsive(dock: Dock, qtbot: QtBot) -> None:
    """The Qt thread goes on from the press of the button until the result is drawn.

    A few times it works for longer: napari itself takes some tenths of a second to add a label
    layer and draw it in software. It never waits for the backend.
    """
    viewer, widget = dock(show=True)
    tab = widget.segment_tab
    viewer.add_image(noise(1536, 1536, 3))  # so that the request takes seconds
    tab.zoom.setValue(1.0)
    qtbot.wait(1000)
    ticks = Ticks()
    ticks.start()
    segment(tab, qtbot)
    qtbot.wait(300)
    ticks.stop()
    assert "nucleus" in viewer.layers
    ticks.assert_responsive()


def test_threshold_of_a_large_plane_is_quick_and_needs_no_backend(
    dock: Dock, qtbot: QtBot, connection: BackendConnection
) -> None:
    viewer, widget = dock()
    tab = widget.segment_tab
    viewer.add_image(noise(2048, 2048))
    tab.zoom.setValue(0.06)
    segment(tab, qtbot)
    result = viewer.layers["nucleus"]
    connection.stop()
    assert connection.status.state is BackendState.OFF
    seconds, seen = [], set()
    for threshold in np.linspace(0.3, 0.7, 9):
        began = time.thread_time()
        tab.threshold.setValue(threshold)
        seconds.append(time.thread_time() - began)
        seen.add(int(result.data.sum()))
    assert len(seen) > 1
    assert np.median(seconds) < 0.05
    # Asking again starts the backend by itself.
    viewer.layers[0].data = noise(32, 32)
    tab.zoom.setValue(1.0)
    segment(tab, qtbot)
    assert connection.status.state is BackendState.READY
    assert len(viewer.layers) == 3


def test_killed_backend_is_told_and_comes_back(
    dock: Dock, qtbot: QtBot, connection: BackendConnection
) -> None:
    viewer, widget = dock()
    tab = widget.segment_tab
    viewer.add_image(noise(512, 512))
    start_long_request(tab, qtbot)
    killed = health(connection).pid
    os.kill(killed, getattr(signal, "SIGKILL", signal.SIGTERM))
    qtbot.waitUntil(lambda: not tab.busy, timeout=20_000)
    assert "press Segment once it is ready" in tab.message.text()
    assert tab.message.text() in [record.message for record in notification_manager.records]
    assert tab.words.text() == "nucleus"
    assert len(viewer.layers) == 1
    qtbot.waitUntil(lambda: "Ready on" in widget.status_line.text.text(), timeout=MILLISECONDS)
    viewer.layers[0].data = noise(32, 32)
    segment(tab, qtbot)
    assert "nucleus" in viewer.layers
    assert health(connection).pid != killed


def test_bundled_model_finds_the_cell_of_the_sample(dock: Dock, qtbot: QtBot) -> None:
    viewer, widget = dock()
    tab = widget.segment_tab
    viewer.open_sample("napari-clsclip", "cell")
    tab.model.setCurrentText("mini")
    tab.zoom.setValue(0.0)
    tab.words.setText("cell")
    segment(tab, qtbot)
    image, found = data.cell(), viewer.layers["cell [1]"].data > 0
    bright = image > 160  # the body of the one cell
    assert found[bright].mean() > 0.8
    assert found[~bright].mean() < 0.03
