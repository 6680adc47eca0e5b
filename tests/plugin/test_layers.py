"""The plane that is read must be the plane that napari shows, and go back to where it was."""

from __future__ import annotations

import dask.array
import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels
from numpy.testing import assert_allclose, assert_array_equal

from clsclip.errors import InvalidImageError
from napari_clsclip import _layers
from napari_clsclip._large_settings import LARGE_VARIABLE
from napari_clsclip._layers import displayed_index, displayed_plane


def shown_by_napari(layer: Image) -> np.ndarray:
    """What napari draws, before contrast and colour map."""
    return layer._slice.image.raw


def viewer_with(data: object, **kwargs: object) -> tuple[ViewerModel, Image]:
    viewer = ViewerModel()
    layer = viewer.add_image(data, **kwargs)
    assert isinstance(layer, Image)
    return viewer, layer


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1), (0, 2, 1), (2, 1, 0)])
def test_plane_is_what_napari_shows_however_the_axes_are_rolled(order: tuple[int, ...]) -> None:
    viewer, layer = viewer_with(np.arange(4 * 5 * 6).reshape(4, 5, 6))
    viewer.dims.order = order
    viewer.dims.set_current_step(order[0], 2)
    plane = displayed_plane(layer, viewer.dims)
    assert_array_equal(plane.read(), shown_by_napari(layer))
    assert plane.index.displayed == order[1:]
    assert plane.index.position == (2,)
    assert plane.index.hidden == order[:1]


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 1, 0)])
def test_view_writes_the_plane_back_where_it_was_read(order: tuple[int, ...]) -> None:
    data = np.arange(4 * 5 * 6, dtype=np.uint16).reshape(4, 5, 6) + 1
    viewer, layer = viewer_with(data)
    viewer.dims.order = order
    viewer.dims.set_current_step(order[0], 3)
    plane = displayed_plane(layer, viewer.dims)
    labels = plane.blank_labels()
    plane.index.view(labels)[...] = plane.read()
    assert_array_equal(labels[labels > 0], data[labels > 0])
    assert np.count_nonzero(labels) == plane.read().size


def test_rolled_rgb_stack_keeps_its_colours_last() -> None:
    data = np.random.default_rng(0).integers(0, 255, (4, 5, 6, 3), dtype=np.uint8)
    viewer, layer = viewer_with(data, rgb=True)
    viewer.dims.order = (0, 2, 1)
    viewer.dims.set_current_step(0, 1)
    plane = displayed_plane(layer, viewer.dims)
    assert_array_equal(plane.read(), data[1].swapaxes(0, 1))
    assert_array_equal(plane.read(), shown_by_napari(layer))
    assert plane.rgb
    assert plane.index.shape == (4, 5, 6)


@pytest.mark.parametrize("channels", [3, 4])
def test_2d_colour_image_is_read_with_all_channels(channels: int) -> None:
    data = np.zeros((7, 8, channels), dtype=np.uint8)
    viewer, layer = viewer_with(data, rgb=True)
    assert displayed_plane(layer, viewer.dims).read().shape == (7, 8, channels)


def test_layer_with_fewer_axes_than_the_viewer() -> None:
    viewer, layer = viewer_with(np.arange(20.0).reshape(4, 5))
    viewer.add_image(np.zeros((3, 6, 4, 5)))
    viewer.dims.order = (0, 1, 3, 2)
    plane = displayed_plane(layer, viewer.dims)
    assert_array_equal(plane.read(), layer.data.T)
    assert_array_equal(plane.read(), shown_by_napari(layer))


@pytest.mark.parametrize(
    ("scale", "translate"), [((2.0, 0.5, 0.5), (10.0, 3.0, 4.0)), ((0.3, 1.0, 1.0), (-5.0, 0, 0))]
)
@pytest.mark.parametrize("step", [0, 1, 4])
def test_sliders_are_read_in_world_units(
    scale: tuple[float, ...], translate: tuple[float, ...], step: int
) -> None:
    viewer, layer = viewer_with(
        np.arange(5 * 3 * 4).reshape(5, 3, 4), scale=scale, translate=translate
    )
    viewer.dims.set_current_step(0, step)
    plane = displayed_plane(layer, viewer.dims)
    assert plane.index.position == (step,)
    assert_array_equal(plane.read(), shown_by_napari(layer))


def test_layers_in_different_units() -> None:
    viewer, first = viewer_with(np.zeros((10, 4, 4)), units="um", scale=(1.0, 1.0, 1.0))
    second = viewer.add_image(
        np.arange(10 * 4 * 4).reshape(10, 4, 4), units="nm", scale=(1000.0, 1000.0, 1000.0)
    )
    viewer.dims.set_current_step(0, 7)
    for layer in (first, second):
        assert_array_equal(displayed_plane(layer, viewer.dims).read(), shown_by_napari(layer))


def test_rotated_in_the_plane() -> None:
    rotation = np.eye(3)
    rotation[1:, 1:] = [[0.0, -1.0], [1.0, 0.0]]
    viewer, layer = viewer_with(np.arange(4 * 5 * 6).reshape(4, 5, 6), rotate=rotation)
    viewer.dims.set_current_step(0, 3)
    plane = displayed_plane(layer, viewer.dims)
    assert_array_equal(plane.read(), shown_by_napari(layer))
    assert_allclose(plane.placement.rotate, rotation, atol=1e-12)


def test_only_the_plane_of_a_lazy_stack_is_computed() -> None:
    computed: list[int] = []

    def load(block_info: dict | None = None) -> np.ndarray:
        z = block_info[None]["chunk-location"][0]
        computed.append(z)
        return np.full((1, 6, 7), z, dtype=np.uint16)

    stack = dask.array.map_blocks(
        load, chunks=((1,) * 50, (6,), (7,)), dtype=np.uint16, meta=np.empty((0, 0, 0), np.uint16)
    )
    viewer, layer = viewer_with(stack, contrast_limits=(0, 50), cache=False)
    viewer.dims.set_current_step(0, 31)
    computed.clear()
    plane = displayed_plane(layer, viewer.dims)
    assert computed == []
    assert_array_equal(plane.read(), np.full((6, 7), 31))
    assert computed == [31]


def test_multiscale_takes_the_level_on_screen_and_its_pixel_size() -> None:
    fine = np.arange(8 * 16 * 24).reshape(8, 16, 24)
    viewer, layer = viewer_with(
        [fine, fine[:, ::2, ::2], fine[::2, ::4, ::4]],
        multiscale=True,
        scale=(3.0, 0.5, 0.5),
        contrast_limits=(0, 100),
    )
    viewer.dims.set_current_step(0, 6)
    layer.locked_data_level = 2
    plane = displayed_plane(layer, viewer.dims)
    assert (plane.level, plane.index.position, plane.index.shape) == (2, (3,), (4, 4, 6))
    assert_array_equal(plane.read(), fine[6, ::4, ::4])
    assert_array_equal(plane.read(), shown_by_napari(layer))
    assert_allclose(plane.placement.scale, (6.0, 2.0, 2.0))


def test_placement_makes_labels_lie_on_the_image() -> None:
    affine = np.array([[1.0, 0.1, 5.0], [0.0, 1.2, -3.0], [0.0, 0.0, 1.0]])
    viewer, layer = viewer_with(
        np.zeros((6, 7)),
        scale=(0.5, 2.0),
        translate=(1.0, 2.0),
        rotate=30,
        shear=[0.2],
        affine=affine,
        units=("um", "um"),
        axis_labels=("y", "x"),
    )
    where = displayed_plane(layer, viewer.dims).placement
    labels = Labels(
        np.zeros((6, 7), np.uint16),
        scale=where.scale,
        translate=where.translate,
        rotate=where.rotate,
        shear=where.shear,
        affine=where.affine,
        units=where.units,
        axis_labels=where.axis_labels,
    )
    for corner in [(0, 0), (5, 0), (0, 6), (5, 6)]:
        assert_allclose(labels.data_to_world(corner), layer.data_to_world(corner))
    assert labels.units == layer.units
    assert labels.axis_labels == ("y", "x")


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("bool", "uint8"), ("uint8", "uint8"), (">u2", "uint16"), ("int32", "int32"),
     ("float16", "float16"), ("float64", "float64")],
)  # fmt: skip
def test_dtypes(dtype: str, expected: str) -> None:
    data = (np.arange(12).reshape(3, 4) % 2).astype(dtype)
    viewer, layer = viewer_with(data)
    read = displayed_plane(layer, viewer.dims).read()
    assert read.dtype == np.dtype(expected)
    assert read.dtype.isnative
    assert_array_equal(read, data.astype(expected))


def test_contrast_limits_are_those_of_the_layer() -> None:
    viewer, layer = viewer_with(np.arange(12.0).reshape(3, 4), contrast_limits=(2.0, 7.5))
    assert displayed_plane(layer, viewer.dims).contrast_limits == (2.0, 7.5)


def test_read_is_a_copy() -> None:
    viewer, layer = viewer_with(np.zeros((3, 4)))
    displayed_plane(layer, viewer.dims).read()[...] = 1.0
    assert not layer.data.any()


def test_complex_values_are_refused() -> None:
    viewer, layer = viewer_with(np.ones((3, 4)))
    plane = displayed_plane(layer, viewer.dims)
    complex_plane = _layers.Plane(**{**vars(plane), "source": np.ones((3, 4), complex)})
    with pytest.raises(InvalidImageError, match=r"complex128.*numpy\.abs"):
        complex_plane.read()


def test_values_that_are_not_finite_are_counted() -> None:
    data = np.ones((4, 4))
    data[0, :3] = np.nan
    data[1, 0] = np.inf
    viewer, layer = viewer_with(data, contrast_limits=(0, 1))
    plane = displayed_plane(layer, viewer.dims)
    with pytest.raises(InvalidImageError, match=r"3 NaN and 1 infinite.*nan_to_num"):
        plane.read()


def test_infinite_values_in_another_plane_do_not_matter() -> None:
    data = np.ones((2, 4, 4))
    data[1, 0, 0] = np.inf
    viewer, layer = viewer_with(data, contrast_limits=(0, 1))
    assert displayed_plane(layer, viewer.dims).read().sum() == 16


def test_3d_display_is_refused() -> None:
    viewer, layer = viewer_with(np.zeros((3, 4, 5)))
    viewer.dims.ndisplay = 3
    with pytest.raises(InvalidImageError, match="Switch to 2D display"):
        displayed_plane(layer, viewer.dims)


def test_sliders_outside_the_layer_are_refused() -> None:
    viewer, layer = viewer_with(np.zeros((3, 4, 5)))
    viewer.add_image(np.zeros((9, 4, 5)))
    viewer.dims.set_current_step(0, 8)
    assert displayed_index(viewer.layers[1], viewer.dims).position == (8,)
    with pytest.raises(InvalidImageError, match=r"plane 8 of 3.*Move the sliders"):
        displayed_plane(layer, viewer.dims)


def test_empty_image_is_refused() -> None:
    viewer, layer = viewer_with(np.zeros((4, 5)))
    layer._data = np.zeros((0, 5))  # napari itself cannot show such an image
    with pytest.raises(InvalidImageError, match=r"no pixels \(shape \(0, 5\)\)"):
        displayed_plane(layer, viewer.dims)


def test_huge_plane_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LARGE_VARIABLE, "19")
    viewer, layer = viewer_with(np.zeros((4, 5)))
    with pytest.raises(InvalidImageError, match=r"4 x 5 pixels; at most 19 .* block by block"):
        displayed_plane(layer, viewer.dims)


def test_label_stack_that_cannot_exist_is_refused() -> None:
    viewer, layer = viewer_with(np.zeros((3, 4, 5)))
    plane = displayed_plane(layer, viewer.dims)
    index = _layers.PlaneIndex(plane.index.index, plane.index.displayed, (2**40, 2**10, 2**10))
    impossible = _layers.Plane(**{**vars(plane), "index": index})
    with pytest.raises(InvalidImageError, match=r"GiB, more than this machine has"):
        impossible.blank_labels()
