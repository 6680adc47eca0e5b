"""Single objects, regions and reasons, through a real window and a real backend process."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.layers import Labels
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from pytestqt.qtbot import QtBot
from scipy import ndimage

from clsclip.wire import SegmentRequest
from napari_clsclip._connection import BackendConnection
from napari_clsclip._scope import Scope
from napari_clsclip._segment_tab import SegmentTab
from ticking import Ticks

MILLISECONDS = 120_000

Dock = Callable[..., Any]


def spots(height: int = 96, width: int = 128) -> NDArray[np.uint8]:
    """Bright spots of some ten pixels on a dark ground."""
    rng = np.random.default_rng(3)
    points = np.zeros((height, width))
    points[rng.integers(0, height, 30), rng.integers(0, width, 30)] = 1
    smooth = ndimage.gaussian_filter(points, 4)
    return np.asarray(smooth / smooth.max() * 255, dtype=np.uint8)


def segment(tab: SegmentTab, qtbot: QtBot) -> None:
    """Press the button and wait for the end."""
    tab.segment_button.click()
    settle(tab, qtbot)


def settle(tab: SegmentTab, qtbot: QtBot) -> None:
    def settled() -> bool:
        return not tab.busy and tab.selected.settled

    qtbot.waitUntil(settled, timeout=MILLISECONDS)


def with_objects(tab: SegmentTab) -> None:
    """Ask for single objects, and keep all of them: the tiny model is sure of none."""
    tab.objects.setChecked(True)
    tab.options.min_certainty.setValue(0.0)


def ids(layer: Labels) -> list[int]:
    return sorted(set(np.unique(layer.data).tolist()) - {0})


def middle(layer: Labels, tab: SegmentTab) -> float:
    """The probability that half of the pixels reach."""
    objects = tab.results.objects(layer)
    (_, predicted), *_ = objects.planes.values()
    return float(np.median(predicted.segmentation.probabilities)) / 255


def test_more_is_closed_at_first_and_the_switch_is_not_in_it(dock: Dock, qtbot: QtBot) -> None:
    viewer, widget = dock(show=True)
    viewer.add_image(spots())
    tab = widget.segment_tab
    qtbot.waitUntil(tab.objects.isVisible, timeout=5_000)
    assert tab.objects.text() == "Single objects"
    assert not tab.options.isExpanded()
    assert tab.options.content().height() == 0
    tab.options.expand(animate=False)
    last = tab.options.attention

    def is_above_the_message() -> bool:
        bottom = last.mapTo(tab, last.rect().bottomLeft()).y()
        return last.isVisible() and 0 < bottom < tab.message.y()

    qtbot.waitUntil(is_above_the_message, timeout=5_000)


def test_objects_have_ids_and_a_table_that_napari_shows(dock: Dock, qtbot: QtBot) -> None:
    viewer, widget = dock()
    tab = widget.segment_tab
    viewer.add_image(spots(), scale=(0.5, 0.5))
    with_objects(tab)
    tab.words.setText("nucleus, airplane")
    tab.threshold.setValue(0.01)
    segment(tab, qtbot)
    layer = viewer.layers["nucleus, airplane"]
    assert layer.data.dtype == np.int32
    assert layer.features["index"].tolist() == ids(layer)
    for row in layer.features.itertuples():
        inside = layer.data == row.index
        assert row.area == inside.sum()
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        box = (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1)
        assert (row.top, row.left, row.bottom, row.right) == box
        assert 0 < row.score <= 1
    assert "objects, in" in tab.message.text()
    assert layer.metadata["clsclip"]["objects"]["instances"] is True
    row, column = np.argwhere(layer.data > 0)[0]
    status = str(layer.get_status((row, column), world=False)["value"])
    assert "class: " in status
    assert "score: " in status


def test_threshold_finds_objects_anew_and_keeps_painted_pixels(dock: Dock, qtbot: QtBot) -> None:
    viewer, widget = dock()
    tab = widget.segment_tab
    viewer.add_image(spots())
    with_objects(tab)
    segment(tab, qtbot)
    layer = viewer.layers["nucleus"]
    tab.threshold.setValue(middle(layer, tab))
    settle(tab, qtbot)
    before, own = layer.data.copy(), layer.data.max() + 10
    layer.brush_size = 9
    layer.paint((30, 40), own)
    painted = layer.data == own
    tab.threshold.setValue(tab.threshold.value() - 0.02)
    settle(tab, qtbot)
    assert (layer.data != before)[~painted].any()
    assert_array_equal(layer.data == own, painted)
    assert layer.features["index"].tolist() == ids(layer)
    assert "objects." in tab.message.text()
    tab.options.min_area.setValue(100_000)
    settle(tab, qtbot)
    assert ids(layer) == [own]
    segment(tab, qtbot)  # a new layer, because the other one holds painted pixels
    assert_array_equal(layer.data == own, painted)
    assert len(viewer.layers) == 3


def test_planes_of_a_stack_have_different_ids(dock: Dock, qtbot: QtBot) -> None:
    viewer, widget = dock()
    tab = widget.segment_tab
    viewer.add_image(np.stack([spots()] * 3), name="stack")
    with_objects(tab)
    for z in (0, 2):
        viewer.dims.set_current_step(0, z)
        segment(tab, qtbot)
    layer = viewer.layers["nucleus"]
    for offset in (0.0, -0.03):
        tab.threshold.setValue(middle(layer, tab) + offset)
        settle(tab, qtbot)
        first, last = (set(np.unique(layer.data[z])) - {0} for z in (0, 2))
        assert first
        assert last
        assert not first & last
        assert not layer.data[1].any()
        assert set(layer.features["plane"]) == {0, 2}


def test_window_stays_responsive_while_objects_are_found(dock: Dock, qtbot: QtBot) -> None:
    """The Qt thread goes on while objects of a large plane are found, several times over.

    napari itself takes longer to draw a large label layer in software.
    """
    viewer, widget = dock(show=True)
    tab = widget.segment_tab
    viewer.add_image(spots(512, 512))
    tab.zoom.setValue(0.1)
    with_objects(tab)
    segment(tab, qtbot)
    layer = viewer.layers["nucleus"]
    tab.threshold.setValue(middle(layer, tab))
    settle(tab, qtbot)
    qtbot.wait(500)
    ticks = Ticks()
    ticks.start()
    before, held = layer.data.copy(), 0.0
    for offset in (-0.01, -0.02, -0.03):
        began = time.thread_time()
        tab.threshold.setValue(middle(layer, tab) + offset)
        held = max(held, time.thread_time() - began)
    assert_array_equal(layer.data, before)
    settle(tab, qtbot)
    ticks.stop()
    assert (layer.data != before).any()
    assert held < 0.05
    ticks.assert_responsive()


def test_drawn_boxes_are_where_words_are_looked_for(dock: Dock, qtbot: QtBot) -> None:
    viewer, widget = dock()
    tab = widget.segment_tab
    viewer.add_image(spots(), name="slide", scale=(0.5, 0.25), translate=(3, 4))
    square = np.array([[9.5, 19.5], [9.5, 59.5], [49.5, 59.5], [49.5, 19.5]])
    beyond = square + np.array([60, 90])
    far = square + 500
    drawn = [shape * (0.5, 0.25) + (3, 4) for shape in (square, beyond, far)]
    boxes = viewer.add_shapes(drawn, name="boxes")
    assert tab.options.boxes.value is None
    tab.options.boxes.value = boxes
    assert not tab.options.regions.isEnabled()
    tab.options.proposals.setChecked(True)
    tab.threshold.setValue(0.01)
    segment(tab, qtbot)
    assert "Regions are the 2 boxes that you drew." in tab.message.text()
    assert "Left out of 'boxes': 1 lying outside of the image." in tab.message.text()
    inside = np.zeros((96, 128), dtype=bool)
    inside[4:56, 14:66] = inside[66:, 107:] = True  # the boxes with a margin of 15 %
    result = viewer.layers["nucleus"].data > 0
    assert result[10:50, 20:60].any()
    assert not result[~inside].any()
    shown = viewer.layers["nucleus, regions"]
    assert shown.features["origin"].tolist() == ["drawn"] * 2
    assert_allclose(shown.data[0], square, atol=1e-3)
    assert_allclose(shown.data_to_world((9.5, 19.5)), drawn[0][0], atol=1e-4)
    assert viewer.layers.selection.active is viewer.layers["nucleus"]


@pytest.mark.parametrize(("shift", "words"), [(500, "outside of the image"), (None, "is empty")])
def test_boxes_of_which_none_can_be_used_are_told_before_anything_is_asked(
    dock: Dock, shift: int | None, words: str
) -> None:
    viewer, widget = dock()
    tab = widget.segment_tab
    viewer.add_image(spots())
    square = np.array([[0.0, 0.0], [0.0, 9.0], [9.0, 9.0], [9.0, 0.0]])
    tab.options.boxes.value = viewer.add_shapes([] if shift is None else [square + shift])
    tab.segment_button.click()
    assert not tab.busy
    assert words in tab.message.text()
    assert "or choose no boxes" in tab.message.text()


def test_boxes_of_another_plane_are_not_sent(dock: Dock, qtbot: QtBot) -> None:
    viewer, widget = dock()
    tab = widget.segment_tab
    viewer.add_image(np.stack([spots()] * 3), name="stack")
    square = np.array([[10.0, 10.0], [10.0, 50.0], [50.0, 50.0], [50.0, 10.0]])
    planes = [np.insert(square, 0, z, axis=1) for z in (0, 1, 1)]
    tab.options.boxes.value = viewer.add_shapes(planes, name="boxes")
    viewer.dims.set_current_step(0, 0)
    segment(tab, qtbot)
    assert "Region is the box that you drew." in tab.message.text()
    assert "2 lying on other planes" in tab.message.text()


def test_tiles_say_why_and_are_shown_with_the_probabilities(dock: Dock, qtbot: QtBot) -> None:
    viewer, widget = dock()
    tab = widget.segment_tab
    image = viewer.add_image(spots(), name="slide")
    tab.options.regions.setCurrentText("tiles")
    tab.options.probabilities.setChecked(True)
    tab.options.proposals.setChecked(True)
    tab.words.setText("nucleus, airplane")
    segment(tab, qtbot)
    assert "Regions are overlapping tiles and the whole image." in tab.message.text()
    shown = viewer.layers["nucleus, airplane, regions"]
    assert set(shown.features["word"]) == {"nucleus", "airplane"}
    assert set(shown.features["origin"]) == {"tile"}
    labels = viewer.layers["nucleus, airplane"].data
    best = np.maximum(*(viewer.layers[f"{w}, probability"].data for w in ("nucleus", "airplane")))
    assert_array_equal(labels > 0, best >= np.float32(0.5))
    assert tab.image.value is image
    assert tab.image.choices == (image,)  # probabilities are not offered as images
    segment(tab, qtbot)
    assert len(viewer.layers) == 5


def test_attention_is_shown_of_the_plane_on_screen(
    dock: Dock, qtbot: QtBot, connection: BackendConnection, tiny_model: Path
) -> None:
    viewer, widget = dock()
    tab = widget.segment_tab
    image = viewer.add_image(np.stack([spots(), spots()[::-1]]), name="stack")
    tab.options.attention.setChecked(True)
    viewer.dims.set_current_step(0, 1)
    segment(tab, qtbot)
    assert "click its eye to compare" in tab.message.text()
    client = connection.supervisor.ready_client(lambda: False)
    asked = SegmentRequest(
        model=str(tiny_model), zoom=1.0, words=("nucleus",), attention=True,
        contrast_limits=tuple(image.contrast_limits),
    )  # fmt: skip
    expected = client.segment(spots()[::-1].copy(), asked, "direct-attention").attention
    assert expected is not None
    assert expected.replaced.std() > 0
    for name, values in (
        ("nucleus, attention", expected.replaced[0, 0]),
        ("attention, original [CLS]", expected.original[0]),
    ):
        assert_array_equal(viewer.layers[name].data[1], values.astype(np.float32))
        assert not viewer.layers[name].data[0].any()
    assert tab.image.choices == (image,)
    assert viewer.layers.selection.active is viewer.layers["nucleus"]
    # all planes: those that are there are not asked again, and no attention is
    tab.scope.scope = Scope.ALL
    segment(tab, qtbot)
    assert "attention are shown of one plane only" in tab.message.text()
    assert not viewer.layers["nucleus, attention"].data[0].any()


def test_without_regions_there_is_nothing_to_show_and_that_is_said(
    dock: Dock, qtbot: QtBot
) -> None:
    viewer, widget = dock()
    tab = widget.segment_tab
    viewer.add_image(spots())
    tab.options.proposals.setChecked(True)
    segment(tab, qtbot)
    assert "No regions to show" in tab.message.text()
    assert len(viewer.layers) == 2


def test_detector_that_is_not_there_is_named(dock: Dock, qtbot: QtBot) -> None:
    viewer, widget = dock()
    tab = widget.segment_tab
    viewer.add_image(spots())
    assert not tab.options.detector.isEnabled()
    tab.options.regions.setCurrentText("detector")
    tab.options.detector.setText("/no/such/detector")
    segment(tab, qtbot)
    assert "/no/such/detector" in tab.message.text()
    assert len(viewer.layers) == 1


@pytest.mark.parametrize("word", ["细胞", "клетка"])
def test_words_of_any_script_go_through(dock: Dock, qtbot: QtBot, word: str) -> None:
    viewer, widget = dock()
    tab = widget.segment_tab
    viewer.add_image(spots())
    with_objects(tab)
    tab.options.probabilities.setChecked(True)
    tab.words.setText(word)
    tab.threshold.setValue(0.01)
    segment(tab, qtbot)
    layer = viewer.layers[word]
    assert word in tab.message.text()
    assert set(layer.features["class"]) == {word}
    assert f"{word}, probability" in viewer.layers
