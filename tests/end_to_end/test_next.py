"""What to correct next: the order comes from the backend, the window opens what is best."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from napari import Viewer
from PIL import Image
from pytestqt.qtbot import QtBot

from napari_clsclip._widget import ClsClipWidget

MILLISECONDS = 60_000
Dock = Callable[..., tuple[Viewer, ClsClipWidget]]


def pressed(widget: ClsClipWidget, qtbot: QtBot) -> str:
    """Press Next image and wait until everything has come to rest; returns the reason."""
    row = widget.learn_tab.next_row
    row.next_button.click()
    qtbot.waitUntil(lambda: not row.busy and not widget.segment_tab.busy, timeout=MILLISECONDS)
    return row.reason.text()


def test_next_plane_then_next_file(
    dock: Dock, qtbot: QtBot, tmp_path: Path, rng: np.random.Generator
) -> None:
    viewer, widget = dock(show=True)
    row, learn = widget.learn_tab.next_row, widget.learn_tab
    assert pressed(widget, qtbot) == ""
    assert "There is no image" in learn.message.text()

    rows, columns = np.indices((64, 64))
    stack = rng.integers(0, 60, (4, 64, 64), dtype=np.uint8)
    stack[1] = np.where(rows // 8 % 2, 230, 10)
    stack[3] = np.where(np.hypot(rows % 21 - 10, columns % 21 - 10) < 6, 240, 20)
    image = viewer.add_image(stack, name="stack", scale=(3, 1, 1))
    first = pressed(widget, qtbot)
    assert first.startswith("1 of 4: plane ")
    assert "The model: " in first
    shown = int(viewer.dims.point[0] / 3)
    assert f"plane {shown} of 'stack'" in first
    result = widget.segment_tab.results.current()
    assert result is not None  # it was segmented at once
    assert widget.segment_tab.results.predicted(result, (shown,))
    seen = {shown}
    result.data_setitem((np.array([shown]), np.array([5]), np.array([5])), 1)
    learn.accept_row.accept()
    qtbot.waitUntil(lambda: not learn.busy, timeout=MILLISECONDS)
    for number in (2, 3, 4):
        assert pressed(widget, qtbot).startswith(f"{number} of 4: ")
        seen.add(int(viewer.dims.point[0] / 3))
    assert seen == {0, 1, 2, 3}
    assert "last one" in pressed(widget, qtbot)
    again = pressed(widget, qtbot)
    assert again.startswith("1 of 3: ")  # the accepted one is left out
    assert int(viewer.dims.point[0] / 3) != shown

    folder = tmp_path / "images"
    folder.mkdir()
    for name, pixels in (("a b.png", stack[1].T), ("ü.png", stack[3] // 2)):
        Image.fromarray(pixels).save(folder / name)
    (folder / "broken.tif").write_bytes(b"II*\0 and no more")
    row.look_in(folder)
    assert row.folder == folder
    assert pressed(widget, qtbot).startswith("1 of 2: ")
    assert "1 left out" in learn.message.text()
    assert "broken.tif" in learn.message.text()
    opened = widget.segment_tab.image.value
    assert opened is not image
    assert opened.visible
    assert widget.segment_tab.results.image(widget.segment_tab.results.current()) is opened
    pressed(widget, qtbot)
    other = widget.segment_tab.image.value
    assert {Path(layer.source.path).name for layer in (opened, other)} == {"a b.png", "ü.png"}
    assert (opened.visible, other.visible) == (False, True)


def test_cancelled_while_looking(dock: Dock, qtbot: QtBot) -> None:
    viewer, widget = dock()
    row = widget.learn_tab.next_row
    viewer.add_image(np.zeros((400, 96, 96), np.uint8))
    row.next_button.click()
    assert row.busy
    assert not row.next_button.isEnabled()
    qtbot.waitUntil(lambda: row.progress.value() > 0, timeout=MILLISECONDS)
    row.cancel_button.click()
    qtbot.waitUntil(lambda: not row.busy and not widget.segment_tab.busy, timeout=MILLISECONDS)
    assert "looked at: plane" in row.reason.text()  # in the order found so far
    assert row.next_button.isEnabled()
