"""How corrections that were not saved are offered, restored and discarded: without a backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pytestqt.qtbot import QtBot

from napari_clsclip._unsaved_bar import UnsavedBar
from unsaved_sessions import MILLISECONDS, SHAPE, Napari, image, kept, sessions


@pytest.fixture
def napari(unsaved_folder: Path) -> Iterator[Callable[..., Napari]]:
    yield from sessions(unsaved_folder)


@pytest.fixture
def bar(qtbot: QtBot) -> Callable[[Napari], UnsavedBar]:
    """The bar of a viewer, once it has looked for what was left."""

    def make(of: Napari) -> UnsavedBar:
        widget = UnsavedBar(of.viewer, of.results, of.unsaved)
        qtbot.addWidget(widget)
        qtbot.waitUntil(lambda: not widget.busy, timeout=MILLISECONDS)
        return widget

    return make


def restore(widget: UnsavedBar, qtbot: QtBot) -> None:
    widget.restore_button.click()
    qtbot.waitUntil(lambda: not widget.busy, timeout=MILLISECONDS)


def test_removed_layer_stays_kept_and_says_so(
    napari: Callable[..., Napari], unsaved_folder: Path, bar: Callable[[Napari], UnsavedBar]
) -> None:
    one = napari()
    layer = one.add(one.viewer.add_image(image(), name="slide"))
    layer.paint((20, 20), 5)
    one.viewer.layers.remove(layer)
    one.viewer.layers.append(layer)
    assert one.journal.flush(10)
    one.viewer.layers.clear()
    one.end()
    assert_array_equal(kept(unsaved_folder)[0], layer.data)
    widget = bar(napari())
    offer = widget.text.text()
    assert "of 'nucleus' on 'slide' were not saved when napari ended." in offer
    assert "Their layer had been removed." in offer


def test_restored_result_is_known_and_its_pixels_are_the_users(
    napari: Callable[..., Napari], bar: Callable[[Napari], UnsavedBar], qtbot: QtBot
) -> None:
    one = napari()
    stack = one.viewer.add_image(image(3, *SHAPE), name="stack", scale=(1, 0.5, 0.5))
    layer = one.add(stack)
    layer.paint((0, 20, 20), 1)
    layer.name = "mine"
    one.end()
    two = napari()
    other = two.viewer.add_image(image(3, *SHAPE) + 1, name="stack")
    again = two.viewer.add_image(image(3, *SHAPE), name="stack again", scale=(1, 2, 2))
    two.viewer.dims.set_current_step(0, 0)
    widget = bar(two)
    restore(widget, qtbot)
    restored = two.viewer.layers["mine"]
    assert_array_equal(restored.data, layer.data)
    assert two.results.image(restored) is again
    assert two.results.image(restored) is not other
    assert_allclose(restored.scale, (1, 2, 2))
    assert restored.metadata == layer.metadata
    assert restored.opacity == layer.opacity
    assert_array_equal(restored.colormap.map(np.arange(3)), layer.colormap.map(np.arange(3)))
    before = restored.data.copy()
    two.results.set_threshold(restored, 0.9)
    assert_array_equal(restored.data, before)
    assert two.add(again) is not restored  # its plane is not overwritten
    two.viewer.dims.set_current_step(0, 1)
    two.viewer.layers.selection.active = restored
    newer = two.add(again)
    assert restored.data[0].tolist() == before[0].tolist()
    assert newer.data[1].any()


def test_restored_without_its_image_it_is_a_result_again_once_that_is_open(
    napari: Callable[..., Napari], bar: Callable[[Napari], UnsavedBar], qtbot: QtBot
) -> None:
    one = napari()
    layer = one.add(one.viewer.add_image(image(), name="slide", translate=(3, 4)))
    layer.paint((20, 20), 1)
    one.end()
    two = napari()
    two.viewer.add_image(image(80, 80), name="slide")
    widget = bar(two)
    restore(widget, qtbot)
    assert "Its image 'slide' is not open" in widget.message.text()
    restored = two.viewer.layers["nucleus"]
    assert two.results.identity(restored) is None
    assert_allclose(restored.translate, (3, 4))
    restored.paint((60, 60), 1)
    two.end()
    three = napari()
    slide = three.viewer.add_image(image(), name="slide")
    restore(bar(three), qtbot)
    again = three.viewer.layers["nucleus"]
    assert_array_equal(again.data, restored.data)
    assert three.results.image(again) is slide
    assert three.results.words(again) == ("nucleus",)


def test_restored_objects_keep_their_table_and_new_ones_get_other_ids(
    napari: Callable[..., Napari], bar: Callable[[Napari], UnsavedBar], qtbot: QtBot
) -> None:
    one = napari()
    layer = one.add(one.viewer.add_image(image(2, *SHAPE), name="stack"), objects=True)
    rows = len(layer.features)
    layer.paint((0, 20, 20), 900)
    one.end()
    two = napari()
    stack = two.viewer.add_image(image(2, *SHAPE), name="stack")
    two.viewer.dims.set_current_step(0, 0)
    restore(bar(two), qtbot)
    restored = two.viewer.layers["nucleus"]
    assert_array_equal(restored.data, layer.data)
    assert restored.features.columns.tolist() == layer.features.columns.tolist()
    assert restored.features["index"].tolist() == layer.features["index"].tolist()
    assert set(restored.features["class"]) == {"nucleus"}
    two.viewer.dims.set_current_step(0, 1)
    assert two.add(stack, objects=True) is restored
    assert restored.data[1][restored.data[1] > 0].min() > 900
    assert len(restored.features) == 2 * rows
    assert_array_equal(restored.data[0], layer.data[0])


def test_discard_asks_once_and_removes(
    napari: Callable[..., Napari], bar: Callable[[Napari], UnsavedBar], unsaved_folder: Path
) -> None:
    one = napari()
    for value in (1, 2):
        layer = one.add(one.viewer.add_image(image() + value))
        layer.paint((20, 20), value)
    one.end()
    two = napari()
    widget = bar(two)
    assert len(widget.offers) == 2
    assert widget.text.text().endswith("1 more after these.")
    widget.discard_button.click()
    assert widget.text.text().startswith("Discard these corrections for good?")
    assert widget.restore_button.text() == "Keep"
    widget.restore_button.click()
    assert len(widget.offers) == 2
    assert two.viewer.layers == []
    for left in (1, 0):
        widget.discard_button.click()
        widget.discard_button.click()
        assert two.journal.flush(10)
        assert len(kept(unsaved_folder)) == len(widget.offers) == left
    assert widget.isHidden()
    two.end()
    assert list(unsaved_folder.iterdir()) == []


def test_what_was_not_decided_is_offered_again(
    napari: Callable[..., Napari], bar: Callable[[Napari], UnsavedBar], qtbot: QtBot
) -> None:
    one = napari()
    layer = one.add(one.viewer.add_image(image()))
    layer.paint((20, 20), 5)
    one.end()
    two, other = napari(), napari()
    assert len(bar(two).offers) == 1
    assert len(bar(two).offers) == 1  # also by a widget that is opened again
    assert bar(other).offers == ()  # it is offered by the first
    two.end()
    three = napari()
    widget = bar(three)
    restore(widget, qtbot)
    three.end()
    assert len(bar(napari()).offers) == 1  # restored, and still not saved


def test_unreadable_entry_is_told_and_left(
    napari: Callable[..., Napari], bar: Callable[[Napari], UnsavedBar], unsaved_folder: Path
) -> None:
    one = napari()
    layer = one.add(one.viewer.add_image(image()))
    layer.paint((20, 20), 5)
    one.end()
    (about,) = unsaved_folder.glob("*/*/about.json")
    about.write_text(about.read_text()[:-20])
    widget = bar(napari())
    assert widget.offers == ()
    assert "left where they are" in widget.message.text()
    assert about.exists()
