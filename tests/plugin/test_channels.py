"""Channels become colours, and the result lies where the image does, whatever axis they are on."""

from __future__ import annotations

import dask.array
import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels
from numpy.testing import assert_allclose, assert_array_equal

from clsclip.errors import InvalidImageError
from clsclip.segmentation import Segmentation
from napari_clsclip._channels import from_layers, guessed_channel_axis, with_channels
from napari_clsclip._layers import Plane, displayed_plane
from napari_clsclip._plane_choice import EveryPlane
from napari_clsclip._results import ResultLayers

RED, GREEN, BLUE = 2, 0, 3
COLORS = (RED, GREEN, BLUE)


def stack_with_channels(axis: int) -> tuple[ViewerModel, Image]:
    """A (Z, H, W) = (3, 8, 10) image with 4 channels along an axis, seen in its (H, W) planes."""
    data = np.random.default_rng(0).integers(0, 1000, (3, 8, 10, 4)).astype(np.uint16)
    viewer = ViewerModel()
    scale = np.insert(np.array([5.0, 0.5, 0.25]), axis, 1.0)
    translate = np.insert(np.array([20.0, 3.0, 4.0]), axis, 0.0)
    layer = viewer.add_image(
        np.moveaxis(data, -1, axis), rgb=False, scale=scale, translate=translate,
        contrast_limits=(100, 900),
    )  # fmt: skip
    z, y, x = (k for k in range(4) if k != axis)
    viewer.dims.order = (*sorted((axis, z)), y, x)
    viewer.dims.set_current_step((z, axis), (1, 3))
    return viewer, layer


def channel(layer: Image, axis: int, k: int) -> np.ndarray:
    """One channel of the plane on screen, z = 1."""
    return np.take(np.asarray(layer.data), k, axis)[1]


def prediction(shape: tuple[int, ...]) -> Segmentation:
    values = np.random.default_rng(1).integers(0, 256, (1, *shape), dtype=np.uint8)
    return Segmentation(values, ("nucleus",), "tiny", "v", (1.0,), 0.1)


def shown(layer: Labels) -> np.ndarray:
    """What napari draws of a label layer."""
    return layer._slice.image.raw


@pytest.mark.parametrize("axis", [0, 1, 3])
def test_three_channels_are_read_as_colours(axis: int) -> None:
    viewer, layer = stack_with_channels(axis)
    plane = with_channels(displayed_plane(layer, viewer.dims), axis, COLORS)
    expected = np.stack([channel(layer, axis, k) for k in COLORS], axis=-1)
    assert_array_equal(plane.read(), expected)
    assert plane.contrast_limits == (100, 900)
    assert len(EveryPlane(plane)) == 3


@pytest.mark.parametrize("axis", [0, 1, 3])
def test_result_lies_where_the_image_does_for_every_channel(axis: int) -> None:
    viewer, layer = stack_with_channels(axis)
    plane = with_channels(displayed_plane(layer, viewer.dims), axis, COLORS)
    predicted, steps = prediction((8, 10)), viewer.dims.nsteps
    result = ResultLayers(viewer).add(layer, plane, predicted, 0.5)
    assert viewer.dims.nsteps == steps
    assert result.data.size == 3 * 8 * 10
    z = next(k for k in range(4) if k != axis)
    for position in range(3):
        for k in range(4):
            viewer.dims.set_current_step((z, axis), (position, k))
            expected = predicted.labels(0.5) if position == 1 else np.zeros((8, 10))
            assert_array_equal(shown(result), expected)
    world = layer.data_to_world(np.insert([1, 2, 3], axis, 0))
    own = np.insert([1, 2, 3], axis, 0) if axis else np.array([1, 2, 3])
    on_screen = [k - 4 for k in viewer.dims.displayed]
    assert_allclose(
        np.take(result.data_to_world(own), [k + result.ndim for k in on_screen]),
        np.take(world, on_screen),
    )


def test_leading_channels_of_a_plain_image_go_away() -> None:
    viewer = ViewerModel()
    data = np.arange(4 * 8 * 10).reshape(4, 8, 10)
    layer = viewer.add_image(data, scale=(1, 2, 2))
    plane = with_channels(displayed_plane(layer, viewer.dims), 0, (1, None, 3))
    result = ResultLayers(viewer).add(layer, plane, prediction((8, 10)), 0.5)
    assert result.data.shape == (8, 10)
    assert result.ndim == 2


def test_sheared_and_moved_leading_channels() -> None:
    viewer = ViewerModel()
    layer = viewer.add_image(
        np.zeros((4, 3, 8, 10)), scale=(1, 5, 2, 2), translate=(0, 7, 8, 9),
        shear=(0, 0, 0, 0.2, 0.3, 0.4), axis_labels=("c", "z", "y", "x"),
    )  # fmt: skip
    plane = with_channels(displayed_plane(layer, viewer.dims), 0, COLORS)
    result = ResultLayers(viewer).add(layer, plane, prediction((8, 10)), 0.5)
    assert result.axis_labels == ("z", "y", "x")
    assert_allclose(result.data_to_world((1, 2, 3)), layer.data_to_world((0, 1, 2, 3))[1:])


def test_a_single_channel_is_grey_and_a_missing_one_black() -> None:
    viewer, layer = stack_with_channels(1)
    plane = displayed_plane(layer, viewer.dims)
    for colors in ((None, GREEN, None), (GREEN, GREEN, GREEN)):
        grey = with_channels(plane, 1, colors)
        assert_array_equal(grey.read(), channel(layer, 1, GREEN))
        assert not grey.rgb
    two = with_channels(plane, 1, (RED, None, BLUE)).read()
    assert_array_equal(two[..., 0], channel(layer, 1, RED))
    assert (two[..., 1] == 100).all()  # what the contrast limits show as black
    assert two.dtype == np.uint16


def test_rolled_plane_of_a_lazy_image_computes_only_the_picked_channels() -> None:
    computed: list[tuple[int, ...]] = []
    data = np.random.default_rng(0).integers(0, 255, (3, 4, 8, 10), dtype=np.uint8)

    def load(block_info: dict) -> np.ndarray:
        z, c = block_info[None]["chunk-location"][:2]
        computed.append((z, c))
        return data[z : z + 1, c : c + 1]

    lazy = dask.array.map_blocks(
        load, chunks=((1,) * 3, (1,) * 4, (8,), (10,)), dtype=np.uint8,
        meta=np.empty((0,) * 4, np.uint8),
    )  # fmt: skip
    viewer = ViewerModel()
    layer = viewer.add_image(lazy, contrast_limits=(0, 255), cache=False)
    viewer.dims.order = (0, 1, 3, 2)
    viewer.dims.set_current_step((0, 1), (2, 0))
    plane = with_channels(displayed_plane(layer, viewer.dims), 1, (3, None, 1))
    computed.clear()
    pixels = plane.read()
    assert sorted(computed) == [(2, 1), (2, 3)]
    assert_array_equal(pixels[..., 0], data[2, 3].T)
    assert_array_equal(pixels[..., 2], data[2, 1].T)
    assert not pixels[..., 1].any()


def test_channels_on_screen_are_refused() -> None:
    viewer = ViewerModel()
    layer = viewer.add_image(np.zeros((8, 10, 4)), rgb=False)
    with pytest.raises(InvalidImageError, match="Roll the axes"):
        with_channels(displayed_plane(layer, viewer.dims), 2, COLORS)


@pytest.mark.parametrize(
    ("colors", "words"), [((None, None, None), "at least one"), ((0, 4, None), "the last one is 3")]
)
def test_channels_that_cannot_be_had_are_named(colors: tuple, words: str) -> None:
    viewer, layer = stack_with_channels(0)
    with pytest.raises(InvalidImageError, match=words):
        with_channels(displayed_plane(layer, viewer.dims), 0, colors)


@pytest.mark.parametrize(
    ("labels", "axis"),
    [(("c", "y", "x"), 0), (("z", "Channel", "x"), 1), (("z", "y", "x"), None), (None, None)],
)
def test_axis_is_guessed_from_its_name(labels: tuple[str, ...] | None, axis: int | None) -> None:
    layer = Image(np.zeros((3, 4, 5)), axis_labels=labels, rgb=False)
    assert guessed_channel_axis(layer) == axis


def test_layers_of_one_shape_are_combined_each_with_its_contrast() -> None:
    viewer = ViewerModel()
    data = np.random.default_rng(0).integers(0, 1000, (3, 2, 8, 10)).astype(np.uint16)
    layers = viewer.add_image(
        data, channel_axis=0, contrast_limits=[(0, 1000), (100, 200), (500, 501)]
    )
    viewer.dims.set_current_step(0, 1)
    plane = displayed_plane(layers[0], viewer.dims)
    combined: Plane = from_layers(plane, layers, (1, None, 0), viewer.dims)
    pixels = combined.read()
    assert pixels.dtype == np.uint8
    assert_allclose(pixels[..., 0], np.clip((data[1, 1] - 100.0) / 100, 0, 1) * 255, atol=0.51)
    assert not pixels[..., 1].any()
    assert_allclose(pixels[..., 2], data[0, 1] / 1000 * 255, atol=0.51)
    assert combined.contrast_limits == (0.0, 255.0)
    grey = from_layers(plane, layers, (None, 2, None), viewer.dims).read()
    assert set(np.unique(grey)) <= {0, 255}


def test_layers_that_do_not_fit_are_refused() -> None:
    viewer = ViewerModel()
    first = viewer.add_image(np.zeros((8, 10)))
    other = viewer.add_image(np.zeros((8, 11)))
    broken = viewer.add_image(np.full((8, 10), np.nan), contrast_limits=(0, 1))
    plane = displayed_plane(first, viewer.dims)
    with pytest.raises(InvalidImageError, match="same shape"):
        from_layers(plane, [first, other], (0, 1, None), viewer.dims)
    with pytest.raises(InvalidImageError, match="NaN"):
        from_layers(plane, [first, broken], (0, 1, None), viewer.dims).read()
