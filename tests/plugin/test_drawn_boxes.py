"""Shapes on the plane on screen become boxes in pixels of the image, and the rest is told."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Shapes
from numpy.testing import assert_allclose

from clsclip.errors import InvalidConfigError
from clsclip.wire import MAX_DRAWN_BOXES, SegmentRequest
from napari_clsclip._drawn_boxes import DrawnBoxes, drawn_boxes
from napari_clsclip._layers import displayed_plane

SQUARE = np.array([[9.5, 19.5], [9.5, 39.5], [29.5, 39.5], [29.5, 19.5]])
"""Around the pixels 10 to 29 and 20 to 39."""
BOX = (10.0, 20.0, 30.0, 40.0)


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


def boxes(viewer: ViewerModel, shapes: Shapes, image: Image) -> DrawnBoxes:
    return drawn_boxes(shapes, image, displayed_plane(image, viewer.dims), viewer.dims)


def flat(viewer: ViewerModel, **options: object) -> Image:
    layer = viewer.add_image(np.zeros((100, 120)), **options)
    assert isinstance(layer, Image)
    return layer


def test_rectangle_is_a_box_of_whole_pixels(viewer: ViewerModel) -> None:
    image, shapes = flat(viewer), viewer.add_shapes([SQUARE], name="boxes")
    found = boxes(viewer, shapes, image)
    assert found == DrawnBoxes((BOX,), "")
    SegmentRequest(words=("cell",), regions="auto", drawn=found.boxes)  # is accepted


def test_turned_shapes_get_the_upright_box_around_them(viewer: ViewerModel) -> None:
    image, s = flat(viewer), np.sqrt(0.5)
    turned = np.array([50.0, 60.0]) + 20 * np.array([[-1, 0], [0, 1], [1, 0], [0, -1]])
    # The diagonal of a square around a disc of radius 20 s; a polygon; an open path.
    shapes = viewer.add_shapes()
    shapes.add([turned], shape_type="rectangle")
    shapes.add([turned], shape_type="ellipse")
    shapes.add([turned[:3]], shape_type="polygon")
    shapes.add([turned[:3]], shape_type="path")
    found = boxes(viewer, shapes, image).boxes
    assert_allclose(found[0], (30.5, 40.5, 70.5, 80.5), atol=1e-4)
    reach = 20 * s
    assert_allclose(found[1], (50.5 - reach, 60.5 - reach, 50.5 + reach, 60.5 + reach), atol=1e-4)
    assert_allclose(found[2], (30.5, 60.5, 70.5, 80.5), atol=1e-4)
    assert_allclose(found[3], found[2])


def test_long_ellipse(viewer: ViewerModel) -> None:
    image = flat(viewer)
    shapes = viewer.add_shapes([SQUARE * (1, 2)], shape_type="ellipse")
    assert_allclose(boxes(viewer, shapes, image).boxes, [(10.0, 39.5, 30.0, 79.5)], atol=1e-4)


def test_image_and_shapes_lie_differently_in_the_world(viewer: ViewerModel) -> None:
    image = flat(viewer, scale=(0.5, 0.25), translate=(3, 4))
    shapes = viewer.add_shapes([SQUARE], scale=(0.1, 0.2), translate=(5, 6))
    low = (np.array([9.5, 19.5]) * (0.1, 0.2) + (2, 2)) / (0.5, 0.25) + 0.5
    high = (np.array([29.5, 39.5]) * (0.1, 0.2) + (2, 2)) / (0.5, 0.25) + 0.5
    assert_allclose(boxes(viewer, shapes, image).boxes, [(*low, *high)], atol=1e-4)


def test_rotated_image(viewer: ViewerModel) -> None:
    image = flat(viewer, rotate=90)
    corners = np.array([image.data_to_world(corner) for corner in SQUARE])
    shapes = viewer.add_shapes([corners], shape_type="polygon")
    assert_allclose(boxes(viewer, shapes, image).boxes, [BOX], atol=1e-4)


def test_layers_in_different_units(viewer: ViewerModel) -> None:
    image = flat(viewer, units="um", scale=(2.0, 2.0))
    shapes = viewer.add_shapes([SQUARE], units="nm", scale=(2000.0, 2000.0))
    assert_allclose(boxes(viewer, shapes, image).boxes, [BOX], atol=1e-3)


def test_multiscale_image_at_a_coarse_level(viewer: ViewerModel) -> None:
    pyramid = [np.zeros((400, 480)), np.zeros((100, 120))]
    image = viewer.add_image(pyramid, multiscale=True)
    image._data_level = 1
    shapes = viewer.add_shapes([SQUARE * 4])
    found = boxes(viewer, shapes, image).boxes
    assert_allclose(found, [BOX], atol=1e-4)


def test_only_shapes_of_the_plane_on_screen(viewer: ViewerModel) -> None:
    image = viewer.add_image(np.zeros((6, 100, 120)), scale=(4.0, 1.0, 1.0))
    on_plane = [np.insert(SQUARE + z, 0, z, axis=1) for z in (1, 2, 2, 5)]
    shapes = viewer.add_shapes(on_plane, name="boxes", scale=(4.0, 1.0, 1.0))
    viewer.dims.set_current_step(0, 2)
    found = boxes(viewer, shapes, image)
    assert_allclose(found.boxes, [np.add(BOX, 2)] * 2)
    assert found.left_out == "Left out of 'boxes': 2 lying on other planes."
    viewer.dims.set_current_step(0, 0)
    with pytest.raises(InvalidConfigError, match="4 lying on other planes"):
        boxes(viewer, shapes, image)


def test_shapes_with_fewer_axes_are_on_every_plane(viewer: ViewerModel) -> None:
    image = viewer.add_image(np.zeros((6, 100, 120)))
    shapes = viewer.add_shapes([SQUARE])
    viewer.dims.set_current_step(0, 3)
    assert_allclose(boxes(viewer, shapes, image).boxes, [BOX])


def test_shapes_with_more_axes_than_the_image(viewer: ViewerModel) -> None:
    image = flat(viewer)
    viewer.add_image(np.zeros((4, 100, 120)))
    shapes = viewer.add_shapes([np.insert(SQUARE, 0, 3, axis=1)])
    viewer.dims.set_current_step(0, 3)
    assert_allclose(boxes(viewer, shapes, image).boxes, [BOX])
    viewer.dims.set_current_step(0, 1)
    with pytest.raises(InvalidConfigError, match="other planes"):
        boxes(viewer, shapes, image)


def test_turned_stack(viewer: ViewerModel) -> None:
    image = viewer.add_image(np.zeros((50, 100, 120)))
    viewer.dims.order = (1, 2, 0)  # rows of the screen are the last axis, columns the first
    viewer.dims.set_current_step(1, 7)
    corners = np.stack([SQUARE[:, 1], np.full(4, 7.0), SQUARE[:, 0]], axis=1)
    shapes = viewer.add_shapes([corners])
    assert_allclose(boxes(viewer, shapes, image).boxes, [BOX], atol=1e-4)


def test_what_reaches_beyond_the_image_is_cut_off_and_what_lies_outside_left_out(
    viewer: ViewerModel,
) -> None:
    image = flat(viewer)
    shapes = viewer.add_shapes(
        [SQUARE - 20, SQUARE + 300, SQUARE + np.array([90, 100])], name="boxes"
    )
    found = boxes(viewer, shapes, image)
    assert_allclose(found.boxes, [(0.0, 0.0, 10.0, 20.0)])
    assert found.left_out == "Left out of 'boxes': 2 lying outside of the image."


def test_lines_and_points_have_no_area(viewer: ViewerModel) -> None:
    image = flat(viewer)
    shapes = viewer.add_shapes([SQUARE], name="boxes")
    shapes.add([np.array([[1.0, 1.0], [50.0, 60.0]])], shape_type="line")
    shapes.add([np.array([[5.0, 1.0], [5.0, 9.0]])], shape_type="path")
    found = boxes(viewer, shapes, image)
    assert found == DrawnBoxes((BOX,), "Left out of 'boxes': 2 with no area.")


def test_nothing_to_send_is_an_error_that_names_the_way_out(viewer: ViewerModel) -> None:
    image, empty = flat(viewer), viewer.add_shapes(name="boxes")
    with pytest.raises(InvalidConfigError, match=r"'boxes' is empty\. Draw rectangles"):
        boxes(viewer, empty, image)
    outside = viewer.add_shapes([SQUARE + 500], name="far")
    with pytest.raises(InvalidConfigError, match=r"'far': 1 lying outside of the image\. None is"):
        boxes(viewer, outside, image)


def test_too_many_boxes_are_refused_before_they_are_sent(viewer: ViewerModel) -> None:
    image = flat(viewer)
    shapes = viewer.add_shapes([SQUARE / 4] * (MAX_DRAWN_BOXES + 1), name="boxes")
    with pytest.raises(InvalidConfigError, match=r"3,001 shapes of 'boxes'.*at most 3,000"):
        boxes(viewer, shapes, image)
