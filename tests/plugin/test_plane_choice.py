"""Which planes and which region are meant, and that the rest of the labels stays as it is."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image
from numpy.testing import assert_allclose, assert_array_equal

from clsclip.errors import InvalidImageError
from clsclip.segmentation import Segmentation
from napari_clsclip._large_settings import LARGE_VARIABLE
from napari_clsclip._layers import Plane, displayed_plane
from napari_clsclip._plane_choice import EveryPlane, count_in_words, visible_region
from napari_clsclip._results import ResultLayers


def viewer_with(data: object, **options: object) -> tuple[ViewerModel, Image]:
    viewer = ViewerModel()
    viewer.canvas.size = (400, 600)
    layer = viewer.add_image(data, **options)
    assert isinstance(layer, Image)
    return viewer, layer


def look_at(viewer: ViewerModel, center: tuple[float, float], height: float) -> None:
    """Move the camera so that ``height`` units of the world fill the canvas from top to bottom."""
    viewer.scene.camera.center = (0.0, *center)
    viewer.scene.camera.zoom = viewer.canvas.size[0] / height


def region(viewer: ViewerModel, layer: Image, level: int | None = None) -> Plane:
    return visible_region(
        displayed_plane(layer, viewer.dims, level=level, whole=False), layer, viewer
    )


def prediction(shape: tuple[int, ...], seed: int = 0) -> Segmentation:
    values = np.random.default_rng(seed).integers(0, 256, (1, *shape), dtype=np.uint8)
    return Segmentation(values, ("nucleus",), "tiny", "v", (1.0,), 0.1)


def test_every_plane_begins_with_the_one_on_screen() -> None:
    viewer, layer = viewer_with(np.zeros((2, 3, 8, 10)))
    viewer.dims.set_current_step((0, 1), (1, 1))
    plane = displayed_plane(layer, viewer.dims)
    positions = [one.index.position for one in EveryPlane(plane)]
    assert positions == [(1, 1), (1, 2), (0, 0), (0, 1), (0, 2), (1, 0)]
    assert count_in_words(plane) == "6 (2 x 3)"


@pytest.mark.parametrize(
    ("shape", "words"),
    [((8, 10), "1"), ((1200, 1, 8, 10), "1,200"), ((1, 8, 10), "1")],
)
def test_count_in_words(shape: tuple[int, ...], words: str) -> None:
    viewer, layer = viewer_with(np.zeros(shape))
    assert count_in_words(displayed_plane(layer, viewer.dims)) == words


def test_region_is_what_the_camera_sees_of_a_scaled_and_moved_layer() -> None:
    data = np.arange(3 * 200 * 300).reshape(3, 200, 300)
    viewer, layer = viewer_with(data, scale=(2, 0.5, 0.25), translate=(1, 10, 20))
    viewer.dims.set_current_step(0, 2)
    # 20 by 30 units around (50, 40): rows (40 to 60 - 10) / 0.5, columns (25 to 55 - 20) / 0.25
    look_at(viewer, (50, 40), 20)
    plane = region(viewer, layer)
    assert plane.index.index == (2, slice(60, 101), slice(20, 141))
    assert plane.index.size == (41, 121)
    assert not plane.index.whole
    assert_array_equal(plane.read(), data[2, 60:101, 20:141])


def test_region_beyond_the_edge_is_cut_and_the_whole_plane_is_whole() -> None:
    viewer, layer = viewer_with(np.zeros((200, 300)))
    look_at(viewer, (0, 0), 100)
    assert region(viewer, layer).index.index == (slice(0, 51), slice(0, 76))
    look_at(viewer, (100, 150), 10_000)
    assert region(viewer, layer).index.index == (slice(None), slice(None))
    assert region(viewer, layer).index.whole


def test_region_of_a_rotated_layer_holds_all_that_is_in_view() -> None:
    viewer, layer = viewer_with(np.zeros((400, 400)), rotate=30)
    center = layer.data_to_world((200, 200))
    look_at(viewer, tuple(center), 40)
    rows, columns = region(viewer, layer).index.index
    for corner in np.array([(-20, -30), (-20, 30), (20, -30), (20, 30)]):
        row, column = layer.world_to_data(center + corner)
        assert rows.start - 0.5 <= row <= rows.stop - 0.5
        assert columns.start - 0.5 <= column <= columns.stop - 0.5
    assert rows.stop - rows.start < 80


def test_region_with_the_axes_rolled() -> None:
    data = np.random.default_rng(0).random((30, 40, 50))
    viewer, layer = viewer_with(data)
    viewer.dims.order = (1, 2, 0)
    viewer.dims.set_current_step(1, 7)
    look_at(viewer, (20, 15), 10)
    plane = region(viewer, layer)
    shown = plane.index.view(layer.data)
    assert shown.shape == plane.index.size
    assert plane.index.size[0] == 11  # rows on screen are the last axis
    assert_array_equal(plane.read(), shown)


def test_region_at_a_level_and_at_full_resolution() -> None:
    fine = np.random.default_rng(0).random((2, 400, 600))
    viewer, layer = viewer_with(
        [fine, fine[:, ::2, ::2], fine[:, ::4, ::4]], multiscale=True, scale=(1, 3, 3)
    )
    layer._data_level = 2
    look_at(viewer, (3 * 200, 3 * 300), 3 * 100)
    coarse = region(viewer, layer)
    assert coarse.level == 2
    assert coarse.index.index == (0, slice(38, 63), slice(56, 95))
    full = region(viewer, layer, level=0)
    assert full.level == 0
    assert full.index.index == (0, slice(150, 251), slice(225, 376))
    assert_array_equal(full.read(), fine[0, 150:251, 225:376])
    assert full.index.shape == (2, 400, 600)
    assert_allclose(full.placement.scale, (1, 3, 3))


def test_nothing_in_view_is_told() -> None:
    viewer, layer = viewer_with(np.zeros((200, 300)))
    look_at(viewer, (5000, 0), 100)
    with pytest.raises(InvalidImageError, match="Nothing of the image 'data' is in view"):
        region(viewer, layer)


def test_region_of_a_plane_that_is_too_large_is_an_image_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(LARGE_VARIABLE, str(200 * 300 - 1))
    data = np.arange(2 * 200 * 300).reshape(2, 200, 300)
    viewer, layer = viewer_with(data, scale=(1, 2, 2), translate=(0, 5, 5), rotate=(0, 0, 20))
    viewer.dims.set_current_step(0, 1)
    with pytest.raises(InvalidImageError, match="take the visible region"):
        displayed_plane(layer, viewer.dims)
    look_at(viewer, tuple(layer.data_to_world((1, 100, 150))[1:]), 40)
    plane = region(viewer, layer)
    height, width = plane.index.size
    assert plane.index.shape == (2, height, width)
    assert plane.index.whole
    pixels = plane.read()
    row, column = divmod(int(pixels[0, 0]) - data[1, 0, 0], 300)
    assert_array_equal(pixels, data[1, row : row + height, column : column + width])
    results = ResultLayers(viewer)
    result = results.add(layer, plane, prediction((height, width)), 0.5)
    assert_allclose(result.data_to_world((1, 3, 4)), layer.data_to_world((1, row + 3, column + 4)))
    look_at(viewer, tuple(layer.data_to_world((1, 120, 170))[1:]), 40)
    other = region(viewer, layer)
    assert other.index.shape == plane.index.shape
    assert results.add(layer, other, prediction((height, width)), 0.5) is not result


@pytest.fixture
def stack() -> tuple[ViewerModel, Image, ResultLayers]:
    viewer, layer = viewer_with(np.zeros((3, 200, 300)))
    viewer.dims.set_current_step(0, 0)
    return viewer, layer, ResultLayers(viewer)


def test_region_changes_only_its_own_pixels(stack: tuple) -> None:
    viewer, image, results = stack
    whole = prediction((200, 300))
    layer = results.add(image, displayed_plane(image, viewer.dims), whole, 0.5)
    look_at(viewer, (100, 150), 40)
    part = region(viewer, image)
    detail = prediction(part.index.size, seed=1)
    assert results.add(image, part, detail, 0.5) is layer
    expected = whole.labels(0.5)
    expected[part.index.index[1:]] = detail.labels(0.5)
    assert_array_equal(layer.data[0], expected)
    results.set_threshold(layer, 0.8)
    expected = whole.labels(0.8)
    expected[part.index.index[1:]] = detail.labels(0.8)
    assert_array_equal(layer.data[0], expected)
    assert not layer.data[1:].any()


def test_regions_overlap_and_the_latest_wins_also_when_rolled(stack: tuple) -> None:
    viewer, image, results = stack
    look_at(viewer, (100, 150), 40)
    first = region(viewer, image)
    one = prediction(first.index.size)
    layer = results.add(image, first, one, 0.5)
    viewer.dims.order = (0, 2, 1)
    look_at(viewer, (160, 110), 40)
    second = region(viewer, image)
    two = prediction(second.index.size, seed=1)
    assert results.add(image, second, two, 0.5) is layer
    for threshold in (0.7, 0.3):
        results.set_threshold(layer, threshold)
        expected = np.zeros((200, 300), np.uint16)
        expected[first.index.index[1:]] = one.labels(threshold)
        expected[second.index.index[1:]] = two.labels(threshold).T
        assert_array_equal(layer.data[0], expected)


def test_whole_plane_replaces_its_regions(stack: tuple) -> None:
    viewer, image, results = stack
    look_at(viewer, (100, 150), 40)
    part = region(viewer, image)
    layer = results.add(image, part, prediction(part.index.size), 0.5)
    whole = prediction((200, 300), seed=1)
    assert results.add(image, displayed_plane(image, viewer.dims), whole, 0.5) is layer
    results.set_threshold(layer, 0.6)
    assert_array_equal(layer.data[0], whole.labels(0.6))


def test_painted_pixels_count_only_where_the_region_is(stack: tuple) -> None:
    viewer, image, results = stack
    whole = prediction((200, 300))
    layer = results.add(image, displayed_plane(image, viewer.dims), whole, 0.5)
    layer.paint((0, 20, 20), 7)
    look_at(viewer, (100, 150), 40)
    part = region(viewer, image)
    assert results.add(image, part, prediction(part.index.size, seed=1), 0.5) is layer
    results.set_threshold(layer, 0.6)
    assert layer.data[0, 20, 20] == 7
    # Painting in the region, in what it ceded, or erasing, keeps a new result out of it.
    layer.data_setitem((np.array([0]), np.array([100]), np.array([150])), 5)
    before = layer.data.copy()
    other = results.add(image, part, prediction(part.index.size, seed=2), 0.5)
    assert other is not layer
    assert_array_equal(layer.data, before)


def test_pixels_painted_where_nothing_was_predicted_keep_a_region_out(stack: tuple) -> None:
    viewer, image, results = stack
    look_at(viewer, (100, 150), 40)
    part = region(viewer, image)
    layer = results.add(image, part, prediction(part.index.size), 0.5)
    layer.data_setitem((np.array([0]), np.array([10]), np.array([10])), 5)
    look_at(viewer, (12, 12), 40)
    corner = region(viewer, image)
    assert results.add(image, corner, prediction(corner.index.size), 0.5) is not layer
    results.set_threshold(layer, 0.9)
    assert layer.data[0, 10, 10] == 5
