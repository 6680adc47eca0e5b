"""Labels of a large plane on disk, and the parts of the plane that are read for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from clsclip.blocks import blocks
from clsclip.errors import FileError, InvalidConfigError, InvalidImageError
from clsclip.image_sources import open_source
from napari_clsclip import _large_labels
from napari_clsclip._acceptance import accept
from napari_clsclip._large_labels import BlockPlan, LargeFile, LargeLabels
from napari_clsclip._large_reading import BlockReader, fingerprint, part_of, reduced, thinned
from napari_clsclip._large_settings import (
    LARGE_VARIABLE,
    RESULTS_VARIABLE,
    large_settings,
    results_folder,
)
from napari_clsclip._layers import Plane, displayed_plane, is_large
from waiting import eventually

PLAN = BlockPlan(64, ((1.0,),))
SETTINGS: dict[str, Any] = {"words": ("nucleus",), "threshold": 0.5}


def plane_of(data: Any, order: tuple[int, ...] | None = None, **options: Any) -> Plane:
    viewer = ViewerModel()
    layer = viewer.add_image(data, **options)
    if order is not None:
        viewer.dims.order = order
    if viewer.dims.ndim > 2:
        viewer.dims.set_current_step(viewer.dims.order[0], 1)
    return displayed_plane(layer, viewer.dims)


def written(folder: Path, plane: Plane, ids: NDArray[np.uint8], *, stop: int = 99) -> LargeLabels:
    """Labels of which the first blocks are written."""
    with LargeFile(folder, "an image: x", SETTINGS, 100) as file:
        if file.plan() is None:
            file.begin(PLAN, plane.index, plane.placement)
        labels = file.labels(PLAN, plane.index)
        for block in blocks(plane.index.size, PLAN.core)[:stop]:
            labels.write(block, ids[block.core])
        return labels


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (0, 2, 1), (2, 1, 0)])
def test_a_plane_of_a_stack_lies_where_its_pixels_do(
    tmp_path: Path, rng: np.random.Generator, order: tuple[int, ...]
) -> None:
    image = rng.integers(0, 255, (140, 150, 160), dtype=np.uint8)
    plane = plane_of(image, order, scale=(2, 1, 0.5), rgb=False)
    ids = rng.integers(0, 4, plane.index.size, dtype=np.uint8)
    labels = written(tmp_path, plane, ids)
    full = np.asarray(labels.levels[0])
    assert full.shape == image.shape
    assert_array_equal(plane.index.view(full), ids)
    assert np.count_nonzero(full) == np.count_nonzero(ids)
    for level, array in enumerate(labels.levels):
        step = 2**level
        rolled = np.moveaxis(np.asarray(array), order[0], 0)[1]
        assert_array_equal(rolled.T if plane.index.transposed else rolled, ids[::step, ::step])
    shown = Labels(labels.levels, **plane.placement.arguments())
    assert shown.multiscale
    assert not shown.editable


def test_what_is_done_is_known_again_and_the_coarsest_level_is_in_memory(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_large_labels, "OVERVIEW_SIDE", 50)
    plane = plane_of(np.zeros((200, 130), np.uint8))
    ids = rng.integers(1, 4, (200, 130), dtype=np.uint8)
    first = written(tmp_path, plane, ids, stop=2)
    assert first.done == {0, 1}
    assert [array.shape for array in first.levels] == [(200, 130), (100, 65), (50, 33)]
    with LargeFile(tmp_path, "an image: x", SETTINGS, 100) as file:
        assert file.path.name.startswith("an_image_x-")
        assert file.plan() == PLAN
        again = file.labels(PLAN, plane.index)
    assert again.done == {0, 1}
    assert isinstance(again.levels[-1], np.ndarray)
    assert_array_equal(again.levels[-1][:16], np.pad(ids[:64:4, :128:4], ((0, 0), (0, 1))))
    again.write(blocks((200, 130), 64)[2], ids[:64, 128:])
    assert_array_equal(again.levels[-1][:16], ids[:64:4, ::4])
    with open_source(again.path) as source:
        assert_array_equal(source.read()[:64], ids[:64])
        assert not source.read()[64:].any()


def test_other_settings_are_another_file_and_leave_the_first_alone(tmp_path: Path) -> None:
    plane = plane_of(np.zeros((200, 130), np.uint8))
    first = written(tmp_path, plane, np.ones((200, 130), np.uint8))
    with LargeFile(tmp_path, "an image: x", SETTINGS | {"threshold": 0.4}, 100) as other:
        assert other.path != first.path
        assert other.plan() is None
    assert np.asarray(first.levels[0]).all()
    (first.path / "zarr.json").write_text("{}")
    with (
        LargeFile(tmp_path, "an image: x", SETTINGS, 100) as damaged,
        pytest.raises(FileError, match=r"is damaged .* Remove this folder"),
    ):
        damaged.plan()


def test_an_interrupted_beginning_leaves_nothing_that_counts(tmp_path: Path) -> None:
    plane = plane_of(np.zeros((200, 130), np.uint8))
    with LargeFile(tmp_path, "a", SETTINGS, 100) as file:
        draft = file.path.with_name(f".{file.path.name}.new")
        draft.mkdir()
        (draft / "zarr.json").write_text("{")
        assert file.plan() is None
        file.begin(PLAN, plane.index, plane.placement)
        assert not draft.exists()
        assert file.labels(PLAN, plane.index).done == frozenset()


def test_parts_of_a_plane(rng: np.random.Generator) -> None:
    image = rng.integers(0, 255, (3, 50, 70, 3), dtype=np.uint8)
    plane = plane_of(image, (0, 2, 1), rgb=True)
    turned = image[1].swapaxes(0, 1)
    seen: list[tuple[int, int]] = []
    part = part_of(plane, (slice(10, 30), slice(5, 25)), 4)
    assert_array_equal(part.read(), turned[10:30:4, 5:25:4])
    assert_array_equal(thinned(plane, 7, lambda *done: seen.append(done)), turned[::7, ::7])
    assert seen == [(0, 1)]
    small = reduced(plane, 4, lambda *_: None)
    assert small.shape == (18, 13, 3)
    assert_array_equal(small[0, 0], np.rint(turned[:4, :4].mean(axis=(0, 1))))
    padded = np.pad(turned, ((0, 2), (0, 2), (0, 0)), mode="edge")
    assert_array_equal(small[-1, -1], np.rint(padded[68:, 48:].mean(axis=(0, 1))))
    floats = plane_of(turned[..., 0] / 3)
    assert reduced(floats, 4, lambda *_: None).dtype == np.float64
    assert fingerprint(plane) != fingerprint(floats)


def test_blocks_are_read_one_ahead_and_an_error_reaches_whoever_takes_them() -> None:
    class Source:
        dtype, ndim, shape = np.dtype(np.float32), 2, (40, 40)

        def __init__(self) -> None:
            self.reads = 0

        def __getitem__(self, index: tuple[slice, ...]) -> NDArray[np.float32]:
            self.reads += 1
            return np.full((10, 40), np.nan if self.reads == 3 else 1, np.float32)

    plane = plane_of(np.zeros((40, 40), np.float32))
    source = Source()
    plane = Plane(**{**vars(plane), "source": source})
    reader = BlockReader(plane, blocks((40, 40), (10, 40)))
    taken = iter(reader)
    eventually(lambda: source.reads == 1)
    assert next(taken)[0].number == 0
    assert next(taken)[0].number == 1
    assert source.reads <= 3
    with pytest.raises(InvalidImageError, match="400 NaN"):
        next(taken)
    stopped = BlockReader(plane, blocks((40, 40), (10, 40)))
    stopped.stop()
    assert list(stopped) == []


def test_labels_with_levels_cannot_be_accepted_for_they_cannot_be_corrected() -> None:
    viewer = ViewerModel()
    image = viewer.add_image(np.zeros((40, 50), np.uint8))
    levels = [np.zeros((40, 50), np.uint8), np.zeros((20, 25), np.uint8)]
    layer = viewer.add_labels(levels, multiscale=True, name="large")
    plane = displayed_plane(image, viewer.dims)
    with pytest.raises(InvalidImageError, match="'large' has resolution levels"):
        accept(layer, plane, viewer.dims, ("nucleus",), ())


def test_settings_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in (LARGE_VARIABLE, RESULTS_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    assert large_settings().large_from == 2**28
    assert results_folder(large_settings()).name == "large-results"
    monkeypatch.setenv(RESULTS_VARIABLE, str(tmp_path))
    assert results_folder(large_settings()) == tmp_path
    for value in ("many", "0", str(2**40)):
        monkeypatch.setenv(LARGE_VARIABLE, value)
        with pytest.raises(InvalidConfigError, match=f"{LARGE_VARIABLE} cannot be used.*{value}"):
            large_settings()
    monkeypatch.delenv(LARGE_VARIABLE)
    plane = plane_of(np.zeros((40, 50), np.uint8))
    assert is_large(plane, 1999)
    assert not is_large(plane, 2000)
