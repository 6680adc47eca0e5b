"""What may be corrected next: planes of a layer, files of a folder, read by the user's readers."""

from __future__ import annotations

from pathlib import Path

import npe2
import numpy as np
import pytest
from napari.components import ViewerModel
from PIL import Image as Picture
from tifffile import imwrite

from clsclip.errors import InvalidImageError
from invented_reader import invented_reader, write_invented
from napari_clsclip._candidates import MOST, files_of, planes_of, world_position
from napari_clsclip._layers import displayed_plane


def test_planes_of_a_stack_and_where_they_are_in_the_world() -> None:
    viewer = ViewerModel()
    data = np.arange(4 * 3 * 40 * 50, dtype=np.uint16).reshape(4, 3, 40, 50)
    layer = viewer.add_image(data, scale=(2, 5, 1, 1), translate=(10, 0, 0, 0))
    plane = displayed_plane(layer, viewer.dims)
    candidates = planes_of(plane, layer.level_shapes[0])
    assert len(candidates) == 12
    assert candidates[5].name == f"plane 1, 2 of '{layer.name}'"
    read, position = candidates[5].load()
    np.testing.assert_array_equal(read.read(), data[1, 2])
    assert position == {0: 1, 1: 2}
    assert world_position(layer, position) == {0: 12.0, 1: 10.0}

    single = viewer.add_image(np.zeros((40, 50)))
    with pytest.raises(InvalidImageError, match="single plane"):
        planes_of(displayed_plane(single, viewer.dims), single.level_shapes[0])


def test_long_stacks_are_looked_at_evenly() -> None:
    viewer = ViewerModel()
    layer = viewer.add_image(np.zeros((3 * MOST, 8, 8), np.uint8))
    candidates = planes_of(displayed_plane(layer, viewer.dims), layer.level_shapes[0])
    positions = [candidate.position[0] for candidate in candidates]
    assert len(positions) == MOST
    assert set(np.diff(positions)) == {3}


def test_files_of_a_folder(tmp_path: Path, rng: np.random.Generator) -> None:
    npe2.PluginManager.instance().discover()  # as napari does when it starts
    stack = rng.integers(0, 4000, (5, 40, 50), dtype=np.uint16)
    imwrite(tmp_path / "b stack.tif", stack)
    colour = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
    Picture.fromarray(colour).save(tmp_path / "ä.png")
    (tmp_path / "c.tif").write_bytes(b"II*\0 and no more")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_bytes(b"")
    candidates = files_of(tmp_path)
    assert [candidate.name for candidate in candidates] == ["b stack.tif", "c.tif", "ä.png"]
    plane, position = candidates[0].load()
    np.testing.assert_array_equal(plane.read(), stack[2])
    assert position == {0: 2}
    plane, position = candidates[2].load()
    np.testing.assert_array_equal(plane.read(), colour)
    assert position == {}
    with pytest.raises(InvalidImageError, match=r"c.tif' cannot be read"):
        candidates[1].load()

    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InvalidImageError, match="no images"):
        files_of(empty)
    with pytest.raises(InvalidImageError, match="cannot be read"):
        files_of(tmp_path / "gone")


def test_the_first_channel_of_a_file_that_a_plugin_reads(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    pixels = rng.integers(0, 255, (3, 2, 20, 30), dtype=np.uint8)
    write_invented(tmp_path / "a.inv", pixels, about={"channel_axis": 1, "name": ["dna", "rna"]})
    with invented_reader():
        (candidate,) = files_of(tmp_path)
        plane, position = candidate.load()
    np.testing.assert_array_equal(plane.read(), pixels[1, 0])
    assert position == {0: 1}
