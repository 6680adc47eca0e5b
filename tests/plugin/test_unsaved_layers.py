"""Which corrections are kept while somebody paints, and until when: without a backend."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from pytestqt.qtbot import QtBot

from napari_clsclip._acceptance import accept
from napari_clsclip._layers import displayed_plane
from napari_clsclip._unsaved_files import dead_sessions
from unsaved_sessions import MILLISECONDS, SHAPE, Napari, image, kept, sessions


@pytest.fixture
def napari(unsaved_folder: Path) -> Iterator[Callable[..., Napari]]:
    yield from sessions(unsaved_folder)


def test_what_nobody_has_painted_is_not_kept(
    napari: Callable[..., Napari], unsaved_folder: Path
) -> None:
    one = napari()
    layer = one.add(one.viewer.add_image(image()))
    one.results.set_threshold(layer, 0.7)
    own = one.viewer.add_labels(np.zeros(SHAPE, int))
    own.paint((20, 20), 3)
    assert one.journal.flush(10)
    assert not unsaved_folder.exists()


def test_strokes_undo_and_threshold_are_kept(
    napari: Callable[..., Napari], unsaved_folder: Path
) -> None:
    one = napari()
    layer = one.add(one.viewer.add_image(image()))
    layer.paint((20, 20), 5)
    assert one.journal.flush(10)
    assert_array_equal(kept(unsaved_folder)[0], layer.data)
    layer.paint((60, 60), 6)
    assert one.journal.flush(10)
    assert_array_equal(kept(unsaved_folder)[0], layer.data)
    layer.undo()
    assert not (layer.data == 6).any()
    assert one.journal.flush(10)
    assert_array_equal(kept(unsaved_folder)[0], layer.data)
    one.results.set_threshold(layer, 0.8)
    assert one.journal.flush(10)
    assert_array_equal(kept(unsaved_folder)[0], layer.data)
    assert len(kept(unsaved_folder)) == 1


def test_painting_is_kept_by_itself_after_a_moment(
    napari: Callable[..., Napari], unsaved_folder: Path, qtbot: QtBot
) -> None:
    one = napari(quiet=0.05)
    layer = one.add(one.viewer.add_image(image()))
    layer.paint((20, 20), 5)
    qtbot.waitUntil(lambda: bool(kept(unsaved_folder)), timeout=MILLISECONDS)
    assert_array_equal(kept(unsaved_folder)[0], layer.data)


def test_all_predicted_planes_of_a_stack_are_kept_with_the_painted_one(
    napari: Callable[..., Napari], unsaved_folder: Path
) -> None:
    one = napari()
    stack = one.viewer.add_image(image(4, *SHAPE))
    for z in (0, 2):
        one.viewer.dims.set_current_step(0, z)
        layer = one.add(stack)
    one.viewer.dims.set_current_step(0, 3)
    layer.paint((3, 20, 20), 1)
    assert one.journal.flush(10)
    assert_array_equal(kept(unsaved_folder)[0], layer.data)
    files = {p: p.stat().st_mtime_ns for p in unsaved_folder.glob("*/*/*.npz")}
    layer.paint((3, 40, 40), 1)
    assert one.journal.flush(10)
    changed = [path.name for path, t in files.items() if path.stat().st_mtime_ns != t]
    assert changed == ["3-0-0.npz"]


def test_saved_layers_are_not_unsaved_until_somebody_paints_on(
    make_napari_viewer: Callable[..., Any], unsaved_folder: Path, tmp_path: Path,
    napari: Callable[..., Napari],
) -> None:  # fmt: skip
    make_napari_viewer()  # brings napari's writers
    one = napari()
    layer = one.add(one.viewer.add_image(image()))
    for save in (layer.save, one.viewer.layers.save):
        layer.paint((20, 20), layer.data.max() + 1)
        assert one.journal.flush(10)
        assert len(kept(unsaved_folder)) == 1
        assert save(str(tmp_path / ("labels.tif" if save == layer.save else "layers")))
        assert one.journal.flush(10)
        assert kept(unsaved_folder) == []


def test_accepted_planes_are_not_unsaved(
    napari: Callable[..., Napari], unsaved_folder: Path
) -> None:
    one = napari()
    stack = one.viewer.add_image(image(3, *SHAPE))
    for z in (0, 1):
        one.viewer.dims.set_current_step(0, z)
        layer = one.add(stack)
        layer.paint((z, 20, 20), 1 + z)
    one.accept(layer)
    assert one.journal.flush(10)
    assert len(kept(unsaved_folder)) == 1  # the other plane is not accepted
    one.viewer.dims.set_current_step(0, 0)
    plane = displayed_plane(stack, one.viewer.dims)
    early = accept(layer, plane, one.viewer.dims, ("nucleus",), ())
    layer.paint((0, 60, 60), 3)
    one.unsaved.accepted(layer, early)  # it was painted on, on the way
    assert one.journal.flush(10)
    assert len(kept(unsaved_folder)) == 1
    one.accept(layer)
    assert one.journal.flush(10)
    assert kept(unsaved_folder) == []


def test_array_of_another_type_is_an_entry_of_its_own(
    napari: Callable[..., Napari], unsaved_folder: Path
) -> None:
    one = napari()
    layer = one.add(one.viewer.add_image(image()))
    layer.paint((20, 20), 5)
    assert one.journal.flush(10)
    before = layer.data.copy()
    layer.data = layer.data.astype(np.int32)
    layer.paint((60, 60), 100_000)
    assert one.journal.flush(10)
    first, second = kept(unsaved_folder)
    assert_array_equal(first, before)
    assert_array_equal(second, layer.data)
    assert second.dtype == np.int32


def test_qt_thread_is_held_up_for_milliseconds_only(
    napari: Callable[..., Napari], unsaved_folder: Path
) -> None:
    """Per stroke on a plane of 4096 x 4096 pixels, while the journal writes."""
    one = napari(quiet=0.0)
    layer = one.add(one.viewer.add_image(np.zeros((4096, 4096), np.uint8)))
    layer.brush_size = 40
    seconds = []
    for step in range(30):
        value = [[np.arange(200)] * 2, None, np.uint16(1)]
        layer.data[100 + step * 9, : 200 + step] = 7
        began = time.perf_counter()
        layer.events.paint(value=[((value[0][0] + step, value[0][1]), value[1], value[2])])
        seconds.append(time.perf_counter() - began)
        time.sleep(0.01)
    assert np.median(seconds) < 0.01
    assert max(seconds) < 0.05
    assert one.journal.flush(60)
    assert_array_equal(kept(unsaved_folder)[0], layer.data)
    assert list(dead_sessions(unsaved_folder)) == []
