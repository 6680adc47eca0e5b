"""Where results go, and that nothing the user painted is ever overwritten."""

from __future__ import annotations

import json

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels
from numpy.testing import assert_allclose, assert_array_equal

from clsclip.segmentation import Segmentation
from napari_clsclip._layers import displayed_plane
from napari_clsclip._result_looks import OPACITY, class_colors
from napari_clsclip._results import ResultLayers


def segmentation(
    shape: tuple[int, int], words: tuple[str, ...] = ("nucleus",), seed: int = 0, **changes: str
) -> Segmentation:
    """Random probabilities."""
    rng = np.random.default_rng(seed)
    probabilities = rng.integers(0, 256, (len(words), *shape), dtype=np.uint8)
    about = {"model": "tiny", "model_version": "v1", **changes}
    return Segmentation(probabilities, words, zooms=(1.5,) * len(words), seconds=0.1, **about)


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


@pytest.fixture
def results(viewer: ViewerModel) -> ResultLayers:
    return ResultLayers(viewer)


@pytest.fixture
def stack(viewer: ViewerModel) -> Image:
    """Six planes of 8 x 10 pixels; the plane on screen is number 2."""
    image = viewer.add_image(np.zeros((6, 8, 10)), name="stack", scale=(4.0, 0.5, 0.5))
    viewer.dims.set_current_step(0, 2)
    return image


def test_new_layer_says_what_it_is(viewer: ViewerModel, results: ResultLayers) -> None:
    image = viewer.add_image(
        np.zeros((8, 10)), name="slide", scale=(0.5, 0.25), translate=(3, 4), rotate=10,
        units=("um", "um"), axis_labels=("y", "x"),
    )  # fmt: skip
    predicted = segmentation((8, 10), ("nucleus", "cell"))
    layer = results.add(image, displayed_plane(image, viewer.dims), predicted, 0.6)
    assert viewer.layers.selection.active is layer
    assert layer.name == "nucleus, cell"
    assert layer.data.dtype == np.uint16
    assert_array_equal(layer.data, predicted.labels(0.6))
    assert layer.units == image.units
    assert layer.axis_labels == ("y", "x")
    for corner in ((0, 0), (7, 9)):
        assert_allclose(layer.data_to_world(corner), image.data_to_world(corner))
    assert layer.selected_label == 1
    assert layer.opacity == OPACITY
    about = {
        "words": ["nucleus", "cell"], "model": "tiny", "model_version": "v1", "threshold": 0.6,
        "zooms": [1.5, 1.5], "image": "slide", "classes": {1: "nucleus", 2: "cell"},
    }  # fmt: skip
    assert layer.metadata["clsclip"] == about
    json.dumps(about)


def test_status_bar_names_the_class(viewer: ViewerModel, results: ResultLayers) -> None:
    image = viewer.add_image(np.zeros((8, 10)))
    predicted = segmentation((8, 10), ("nucleus", "cell"))
    layer = results.add(image, displayed_plane(image, viewer.dims), predicted, 0.1)
    row, column = np.argwhere(layer.data == 2)[0]
    assert "class: cell" in str(layer.get_status((row, column))["value"])
    assert layer.features["class"].tolist() == ["nucleus", "cell"]
    assert layer.features["index"].tolist() == [1, 2]


@pytest.mark.parametrize("count", [1, 2, 9, 64])
def test_each_word_has_a_colour_of_its_own(
    viewer: ViewerModel, results: ResultLayers, count: int
) -> None:
    words = tuple(f"word {k}" for k in range(count))
    image = viewer.add_image(np.zeros((8, 10)))
    predicted = segmentation((8, 10), words)
    layer = results.add(image, displayed_plane(image, viewer.dims), predicted, 0.5)
    colors = layer.colormap.map(np.arange(count + 1, dtype=np.uint16))
    assert colors[0, 3] == 0
    assert (colors[1:, 3] == 1).all()
    distances = np.abs(colors[1:, None, :3] - colors[None, 1:, :3]).sum(-1)
    assert (distances[~np.eye(count, dtype=bool)] > 0.04).all()
    assert len(class_colors(count)) == count


def test_planes_of_a_stack_gather_in_one_layer(
    viewer: ViewerModel, results: ResultLayers, stack: Image
) -> None:
    planes = {z: segmentation((8, 10), seed=z) for z in (2, 5)}
    layers = []
    for z, predicted in planes.items():
        viewer.dims.set_current_step(0, z)
        layers.append(results.add(stack, displayed_plane(stack, viewer.dims), predicted, 0.5))
    assert layers[0] is layers[1]
    assert len(viewer.layers) == 2
    data = layers[0].data
    assert data.shape == (6, 8, 10)
    for z in range(6):
        expected = planes[z].labels(0.5) if z in planes else np.zeros((8, 10))
        assert_array_equal(data[z], expected)


@pytest.mark.parametrize(
    "changes",
    [{"words": ("cell",)}, {"model": "other"}, {"model_version": "v2"}],
    ids=["words", "model", "weights"],
)
def test_another_question_gets_a_layer_of_its_own(
    viewer: ViewerModel, results: ResultLayers, stack: Image, changes: dict
) -> None:
    plane = displayed_plane(stack, viewer.dims)
    first = results.add(stack, plane, segmentation((8, 10)), 0.5)
    second = results.add(stack, plane, segmentation((8, 10), **changes), 0.5)
    assert first is not second
    assert len(viewer.layers) == 3


def test_another_image_or_a_turned_stack_gets_a_layer_of_its_own(
    viewer: ViewerModel, results: ResultLayers, stack: Image
) -> None:
    twin = viewer.add_image(stack.data, name="twin", scale=stack.scale)
    first = results.add(stack, displayed_plane(stack, viewer.dims), segmentation((8, 10)), 0.5)
    second = results.add(twin, displayed_plane(twin, viewer.dims), segmentation((8, 10)), 0.5)
    viewer.dims.order = (1, 0, 2)
    third = results.add(stack, displayed_plane(stack, viewer.dims), segmentation((6, 10)), 0.5)
    assert len({id(layer) for layer in (first, second, third)}) == 3


def test_segmenting_again_overwrites_a_prediction(
    viewer: ViewerModel, results: ResultLayers, stack: Image
) -> None:
    plane = displayed_plane(stack, viewer.dims)
    first = results.add(stack, plane, segmentation((8, 10)), 0.5)
    again = segmentation((8, 10), seed=1)
    assert results.add(stack, plane, again, 0.7) is first
    assert_array_equal(first.data[2], again.labels(0.7))
    assert first.metadata["clsclip"]["threshold"] == 0.7


def test_segmenting_again_never_overwrites_painted_pixels(
    viewer: ViewerModel, results: ResultLayers, stack: Image
) -> None:
    plane = displayed_plane(stack, viewer.dims)
    first = results.add(stack, plane, segmentation((8, 10)), 0.5)
    first.paint((2, 4, 4), 7)
    painted = first.data.copy()
    second = results.add(stack, plane, segmentation((8, 10), seed=1), 0.5)
    assert second is not first
    assert_array_equal(first.data, painted)


def test_pixels_painted_into_a_plane_before_it_is_segmented_are_not_overwritten(
    viewer: ViewerModel, results: ResultLayers, stack: Image
) -> None:
    first = results.add(stack, displayed_plane(stack, viewer.dims), segmentation((8, 10)), 0.5)
    viewer.dims.set_current_step(0, 4)
    first.data_setitem((np.array([4]), np.array([0]), np.array([0])), 3)
    second = results.add(stack, displayed_plane(stack, viewer.dims), segmentation((8, 10)), 0.5)
    assert second is not first
    assert first.data[4].sum() == 3


def test_edits_in_one_plane_do_not_keep_another_plane_out(
    viewer: ViewerModel, results: ResultLayers, stack: Image
) -> None:
    first = results.add(stack, displayed_plane(stack, viewer.dims), segmentation((8, 10)), 0.5)
    first.paint((2, 4, 4), 7)
    viewer.dims.set_current_step(0, 4)
    second = results.add(stack, displayed_plane(stack, viewer.dims), segmentation((8, 10)), 0.5)
    assert second is first


def test_threshold_reaches_the_plane_on_screen_first_then_the_others(
    viewer: ViewerModel, results: ResultLayers, stack: Image
) -> None:
    planes = {z: segmentation((8, 10), seed=z) for z in (1, 2, 3)}
    for z, predicted in planes.items():
        viewer.dims.set_current_step(0, z)
        layer = results.add(stack, displayed_plane(stack, viewer.dims), predicted, 0.5)
    viewer.dims.set_current_step(0, 2)
    results.set_threshold(layer, 0.9)
    assert results.threshold(layer) == layer.metadata["clsclip"]["threshold"] == 0.9
    assert_array_equal(layer.data[2], planes[2].labels(0.9))
    assert_array_equal(layer.data[1], planes[1].labels(0.5))
    assert results.update_hidden_plane()
    assert results.update_hidden_plane()
    assert not results.update_hidden_plane()
    for z, predicted in planes.items():
        assert_array_equal(layer.data[z], predicted.labels(0.9))


def test_painted_pixels_survive_the_threshold_and_undo_still_works(
    viewer: ViewerModel, results: ResultLayers
) -> None:
    image = viewer.add_image(np.zeros((30, 30)))
    predicted = segmentation((30, 30))
    layer = results.add(image, displayed_plane(image, viewer.dims), predicted, 0.5)
    layer.paint((15, 15), 7)
    painted = layer.data == 7
    assert painted.sum() > 50
    results.set_threshold(layer, 0.9)
    assert_array_equal(layer.data, np.where(painted, 7, predicted.labels(0.9)))
    layer.undo()
    assert_array_equal(layer.data, np.where(painted, 7, predicted.labels(0.5)))
    layer.undo()
    results.set_threshold(layer, 0.2)
    assert_array_equal(layer.data, predicted.labels(0.2))


def test_threshold_is_about_the_active_result_else_the_latest(
    viewer: ViewerModel, results: ResultLayers
) -> None:
    image = viewer.add_image(np.zeros((8, 10)))
    plane = displayed_plane(image, viewer.dims)
    assert results.current() is None
    first = results.add(image, plane, segmentation((8, 10), ("a",)), 0.5)
    second = results.add(image, plane, segmentation((8, 10), ("b",)), 0.5)
    foreign = viewer.add_labels(np.zeros((8, 10), int))
    assert results.current() is second
    viewer.layers.selection.active = first
    assert results.current() is first
    viewer.layers.remove(second)
    viewer.layers.selection.active = foreign
    assert results.current() is None


def test_layer_in_3d_display_takes_the_threshold_once_it_is_updated(
    viewer: ViewerModel, results: ResultLayers, stack: Image
) -> None:
    predicted = segmentation((8, 10))
    layer = results.add(stack, displayed_plane(stack, viewer.dims), predicted, 0.5)
    viewer.dims.ndisplay = 3
    results.set_threshold(layer, 0.9)
    while results.update_hidden_plane():
        pass
    assert_array_equal(layer.data[2], predicted.labels(0.9))


def test_data_that_the_user_put_into_the_layer_is_left_alone(
    viewer: ViewerModel, results: ResultLayers
) -> None:
    image = viewer.add_image(np.zeros((8, 10)))
    plane = displayed_plane(image, viewer.dims)
    layer = results.add(image, plane, segmentation((8, 10)), 0.5)
    layer.data = np.ones((5, 5), np.uint16)
    results.set_threshold(layer, 0.9)
    assert not results.update_hidden_plane()
    assert (layer.data == 1).all()
    assert results.add(image, plane, segmentation((8, 10)), 0.5) is not layer


def test_result_of_a_removed_image_is_still_shown(
    viewer: ViewerModel, results: ResultLayers
) -> None:
    image = viewer.add_image(np.zeros((8, 10)))
    plane = displayed_plane(image, viewer.dims)
    viewer.layers.remove(image)
    layer = results.add(image, plane, segmentation((8, 10)), 0.5)
    assert isinstance(layer, Labels)
    assert list(viewer.layers) == [layer]


def test_removed_result_is_not_used_again(viewer: ViewerModel, results: ResultLayers) -> None:
    image = viewer.add_image(np.zeros((8, 10)))
    plane = displayed_plane(image, viewer.dims)
    first = results.add(image, plane, segmentation((8, 10)), 0.5)
    viewer.layers.remove(first)
    assert results.current() is None
    second = results.add(image, plane, segmentation((8, 10)), 0.5)
    assert second is not first
