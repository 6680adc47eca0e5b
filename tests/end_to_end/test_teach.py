"""What a person repairs with the mouse, the bundled model learns, and unlearns at a click."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from napari import Viewer
from napari.layers import Labels
from numpy.typing import NDArray
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox
from scipy import ndimage

from canvas_mouse import drag
from napari_clsclip._learn_tab import LearnTab
from napari_clsclip._segment_tab import SegmentTab
from napari_clsclip._widget import ClsClipWidget

MILLISECONDS = 400_000
WORD = "airplane"
"""A word for which the bundled model finds nothing in these images."""
SIDE = 192
BRUSH = 15
CORRECTED = 4
ENOUGH = 1.1
"""Loss below which the test presses Cancel, which keeps what is best so far; it begins at 2."""

Place = tuple[float, float]
Stroke = tuple[Place, Place]


def crosses(rng: np.random.Generator) -> tuple[NDArray[Any], list[Stroke]]:
    """Crosses as two strokes of a round brush, among discs on a grey ground, and their strokes."""
    plane, strokes = np.full((SIDE, SIDE), 0.35), []
    for row, column in ((48, 48), (48, 144), (144, 48), (144, 144)):
        center = np.array((row, column)) + rng.integers(-8, 9, 2)
        turn, arm = rng.uniform(0, np.pi), rng.uniform(22, 30)
        if (row == column) or rng.random() < 0.3:
            arms = [
                arm * np.array((np.sin(angle), np.cos(angle))) for angle in (turn, turn + np.pi / 2)
            ]
            shape = [(tuple(center - a), tuple(center + a)) for a in arms]
            strokes += shape
            here = painted(shape)
        else:
            here = painted([(tuple(center), tuple(center))], radius=arm / 2)
        plane[here] = rng.uniform(0.6, 0.9)
    blurred = ndimage.gaussian_filter(plane, 1) + rng.normal(0, 0.03, plane.shape)
    return np.clip(255 * blurred, 0, 255).astype(np.uint8), strokes


def painted(strokes: list[Stroke], radius: float = BRUSH / 2) -> NDArray[np.bool_]:
    """Pixels that a round brush reaches."""
    pixels = np.moveaxis(np.indices((SIDE, SIDE), dtype=float), 0, -1)
    found = np.zeros((SIDE, SIDE), np.bool_)
    for start, end in np.asarray(strokes):
        along = end - start
        part = np.clip((pixels - start) @ along / max(along @ along, 1e-9), 0, 1)
        found |= np.hypot(*np.moveaxis(pixels - start - part[..., None] * along, -1, 0)) <= radius
    return found


def iou(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    return float((mask & truth).sum() / (mask | truth).sum())


def segment(tab: SegmentTab, qtbot: QtBot) -> Labels:
    qtbot.mouseClick(tab.segment_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not tab.busy, timeout=MILLISECONDS)
    layer = tab.results.current()
    assert layer is not None, tab.message.text()
    return layer


def correct(viewer: Viewer, layer: Labels, strokes: list[Stroke], qtbot: QtBot) -> None:
    """Erase what the model has found on the plane on screen, and paint what is there."""
    if layer.data[viewer.dims.current_step[0]].any():
        layer.mode, layer.brush_size = "erase", 3 * SIDE
        drag(viewer, qtbot, [(SIDE / 2, SIDE / 2)])
    layer.mode, layer.brush_size, layer.selected_label = "paint", BRUSH, 1
    for stroke in strokes:
        drag(viewer, qtbot, stroke)


def accept(tab: LearnTab, qtbot: QtBot) -> None:
    qtbot.mouseClick(tab.accept_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not tab.busy, timeout=MILLISECONDS)
    assert tab.message.text().startswith("Kept as version 1"), tab.message.text()


def ended(tab: LearnTab) -> bool:
    learning = tab.watch.learning
    return learning is not None and learning.shown is not None and not learning.running


def good_enough(tab: LearnTab) -> bool:
    reports = tab.panel.curve.loss[0].points
    return bool(reports) and reports[-1][1] < ENOUGH


@pytest.mark.slow
def test_correct_learn_segment_better_and_go_back(
    dock: Callable[..., tuple[Viewer, ClsClipWidget]], qtbot: QtBot
) -> None:
    rng = np.random.default_rng(5)
    planes, strokes = zip(*(crosses(rng) for _ in range(CORRECTED + 1)), strict=True)
    truth = [painted(each) for each in strokes]
    last = CORRECTED  # is never corrected
    viewer, widget = dock(show=True)
    viewer.add_image(np.stack(planes), name="stack")
    tab, learn = widget.segment_tab, widget.learn_tab
    tab.model.setCurrentText("mini")
    tab.words.setText(WORD)
    for plane in (last, 0):
        viewer.dims.set_current_step(0, plane)
        first = segment(tab, qtbot)
    before = first.data[last].copy()

    widget.tabs.setCurrentWidget(learn)
    for plane in range(CORRECTED):
        viewer.dims.set_current_step(0, plane)
        correct(viewer, first, strokes[plane], qtbot)
        assert iou(first.data[plane] > 0, truth[plane]) > 0.95
        accept(learn, qtbot)
    np.testing.assert_array_equal(first.data[last], before)

    for box in learn.form.words.findChildren(QCheckBox):
        box.setChecked(box is learn.form.words.box(WORD))
    learn.form.note.setText("painted with the mouse")
    qtbot.waitUntil(learn.form.learn_button.isEnabled, timeout=MILLISECONDS)
    qtbot.mouseClick(learn.form.learn_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: learn.watch.learning.running, timeout=MILLISECONDS)
    opened_later = ClsClipWidget(viewer)
    qtbot.addWidget(opened_later)
    title = opened_later.learn_tab.panel.title
    qtbot.waitUntil(lambda: title.text() == f"Learning {WORD}", timeout=MILLISECONDS)
    opened_later.close()
    qtbot.waitUntil(lambda: good_enough(learn) or ended(learn), timeout=MILLISECONDS)
    if not ended(learn):
        qtbot.mouseClick(learn.panel.cancel_button, Qt.MouseButton.LeftButton)
        qtbot.waitUntil(lambda: ended(learn), timeout=MILLISECONDS)
    told = learn.panel.outcome.text()
    assert told.startswith(f"{WORD} 0.0"), told
    assert "is the active version now" in told
    version = tab.model.currentText()
    assert version.startswith("mini-v")
    assert learn.versions.table.item(0, 0).text() == f"✓ {version}"
    assert learn.versions.table.item(0, 3).text() == "painted with the mouse"

    widget.tabs.setCurrentWidget(tab)
    viewer.dims.set_current_step(0, last)
    second = segment(tab, qtbot)
    assert second is not first
    assert second.metadata["clsclip"]["model"] == version
    better = iou(second.data[last] > 0, truth[last])
    assert better > iou(before > 0, truth[last]) + 0.2

    widget.tabs.setCurrentWidget(learn)
    qtbot.mouseClick(learn.versions.back_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: tab.model.currentText() == "mini", timeout=MILLISECONDS)
    widget.tabs.setCurrentWidget(tab)
    third = segment(tab, qtbot)
    assert third.metadata["clsclip"]["model"] == "mini"
    np.testing.assert_array_equal(third.data[last], before)
