"""Probabilities and regions as layers of their own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Shapes
from numpy.testing import assert_allclose

from clsclip.segmentation import AttentionMaps, RegionUsed, Segmentation
from napari_clsclip._attention_maps import ShownAttention, shown_attention
from napari_clsclip._extra_layers import ExtraChoice, ExtraLayers
from napari_clsclip._layers import displayed_plane

REGIONS = (
    (RegionUsed((2.0, 3.0, 8.0, 10.0), 0.876, "detector"),),
    (RegionUsed((0.0, 0.0, 16.0, 20.0), None, "tile"), RegionUsed((4.0, 4.0, 6.0, 7.5), 0.2, "x")),
)


def segmentation(seed: int = 0) -> Segmentation:
    values = np.random.default_rng(seed).integers(0, 256, (2, 16, 20), dtype=np.uint8)
    words = ("nucleus", "cell")
    return Segmentation(values, words, "tiny", "v", (1.0, 1.0), 0.1, proposals=REGIONS)


def attention(seed: int = 0) -> ShownAttention:
    values = np.random.default_rng(seed).random((3, 1, 16, 20)).astype(np.float16) * 3
    return shown_attention(AttentionMaps(("nucleus", "cell"), (9,), values[0], values[1:]))


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


@pytest.fixture
def extra(viewer: ViewerModel) -> ExtraLayers:
    return ExtraLayers(viewer)


def corners(layer: Shapes) -> list[list[float]]:
    """Lowest and highest coordinates of each shape."""
    return [[*shape.min(0), *shape.max(0)] for shape in layer.data]


def test_probability_of_each_word_lies_right_above_the_image(
    viewer: ViewerModel, extra: ExtraLayers
) -> None:
    image = viewer.add_image(np.zeros((16, 20)), name="slide", scale=(0.5, 0.25), translate=(1, 2))
    viewer.add_labels(np.zeros((16, 20), int), name="result")
    predicted = segmentation()
    extra.show_probabilities(image, displayed_plane(image, viewer.dims), predicted)
    names = [layer.name for layer in viewer.layers]
    assert names == ["slide", "cell, probability", "nucleus, probability", "result"]
    for word, values in zip(predicted.words, predicted.probabilities, strict=True):
        layer = viewer.layers[f"{word}, probability"]
        assert_allclose(layer.data, values / 255, atol=1e-6)
        assert tuple(layer.contrast_limits) == (0.0, 1.0)
        assert_allclose(layer.data_to_world((3, 4)), image.data_to_world((3, 4)))
        assert layer in extra
    assert image not in extra


def test_probabilities_of_planes_gather(viewer: ViewerModel, extra: ExtraLayers) -> None:
    stack = viewer.add_image(np.zeros((5, 16, 20)))
    for z in (1, 4, 4):
        viewer.dims.set_current_step(0, z)
        extra.show_probabilities(stack, displayed_plane(stack, viewer.dims), segmentation(z))
    assert len(viewer.layers) == 3
    data = viewer.layers["cell, probability"].data
    for z in range(5):
        expected = segmentation(z).probabilities[1] / 255 if z in (1, 4) else np.zeros((16, 20))
        assert_allclose(data[z], expected, atol=1e-6)


def test_regions_are_boxes_with_word_score_and_origin(
    viewer: ViewerModel, extra: ExtraLayers
) -> None:
    image = viewer.add_image(np.zeros((16, 20)), scale=(0.5, 0.25))
    assert extra.show_proposals(image, displayed_plane(image, viewer.dims), segmentation())
    layer = viewer.layers["nucleus, cell, regions"]
    assert layer.shape_type == ["rectangle"] * 3
    expected = [[1.5, 2.5, 7.5, 9.5], [-0.5, -0.5, 15.5, 19.5], [3.5, 3.5, 5.5, 7.0]]
    assert_allclose(corners(layer), expected)
    assert_allclose(layer.scale, image.scale)
    assert layer.features["word"].tolist() == ["nucleus", "cell", "cell"]
    assert layer.features["origin"].tolist() == ["detector", "tile", "x"]
    assert_allclose(layer.features["score"], [0.876, np.nan, 0.2])
    assert list(layer.text.values) == ["0.88", "", "0.20"]
    assert len({tuple(color) for color in layer.edge_color}) == 2


def test_regions_of_planes_gather_and_new_ones_replace_old_ones(
    viewer: ViewerModel, extra: ExtraLayers
) -> None:
    stack = viewer.add_image(np.zeros((5, 16, 20)))
    fewer = replace(segmentation(), proposals=(REGIONS[0], ()))
    for z, predicted in ((1, segmentation()), (4, segmentation()), (1, fewer)):
        viewer.dims.set_current_step(0, z)
        extra.show_proposals(stack, displayed_plane(stack, viewer.dims), predicted)
    assert len(viewer.layers) == 2
    layer = viewer.layers[-1]
    assert [shape[0, 0] for shape in layer.data] == [1, 4, 4, 4]
    assert layer.features["word"].tolist() == ["nucleus", "nucleus", "cell", "cell"]
    assert list(layer.text.values) == ["0.88", "0.88", "", "0.20"]


def test_regions_that_the_user_has_changed_are_left_alone(
    viewer: ViewerModel, extra: ExtraLayers
) -> None:
    image = viewer.add_image(np.zeros((16, 20)))
    plane = displayed_plane(image, viewer.dims)
    extra.show_proposals(image, plane, segmentation())
    first = viewer.layers[-1]
    first.add_rectangles([np.array([[1, 1], [1, 5], [5, 5], [5, 1]])])
    extra.show_proposals(image, plane, segmentation())
    assert len(viewer.layers) == 3
    assert len(first.data) == 4
    extra.show_proposals(image, plane, segmentation())  # the second is as it was written
    assert len(viewer.layers) == 3


def test_without_regions_there_is_no_layer(viewer: ViewerModel, extra: ExtraLayers) -> None:
    image = viewer.add_image(np.zeros((16, 20)))
    plane = displayed_plane(image, viewer.dims)
    assert not extra.show_proposals(image, plane, replace(segmentation(), proposals=()))
    assert not extra.show_proposals(image, plane, replace(segmentation(), proposals=((), ())))
    assert len(viewer.layers) == 1
    extra.show_proposals(image, plane, segmentation())
    assert not extra.show_proposals(image, plane, replace(segmentation(), proposals=((), ())))
    assert len(viewer.layers[-1].data) == 0


def test_attention_is_shown_on_one_scale_with_the_original_hidden(
    viewer: ViewerModel, extra: ExtraLayers
) -> None:
    image = viewer.add_image(np.zeros((16, 20)), name="slide", scale=(0.5, 0.25))
    viewer.add_labels(np.zeros((16, 20), int), name="result")
    plane, maps = displayed_plane(image, viewer.dims), attention()
    extra.show_attention(image, plane, segmentation(), maps)
    names = [layer.name for layer in viewer.layers]
    assert names == [
        "slide", "attention, original [CLS]", "cell, attention", "nucleus, attention", "result",
    ]  # fmt: skip
    shown = (maps.original, maps.replaced[1], maps.replaced[0])
    expected = dict(zip(names[1:4], shown, strict=True))
    every = np.stack(list(expected.values()))
    for name, values in expected.items():
        layer = viewer.layers[name]
        assert_allclose(layer.data, values)
        assert layer.contrast_limits[0] == 0
        assert layer.contrast_limits[1] == pytest.approx(np.percentile(every, 99.5), rel=1e-3)
        assert layer.visible == (name != "attention, original [CLS]")
        assert_allclose(layer.data_to_world((3, 4)), image.data_to_world((3, 4)))
        assert layer in extra


def test_attention_of_planes_gathers_apart_from_probabilities(
    viewer: ViewerModel, extra: ExtraLayers
) -> None:
    stack = viewer.add_image(np.zeros((5, 16, 20)))
    for z in (1, 4, 4):
        viewer.dims.set_current_step(0, z)
        plane = displayed_plane(stack, viewer.dims)
        extra.show_attention(stack, plane, segmentation(z), attention(z))
        extra.show_probabilities(stack, plane, segmentation(z))
    assert len(viewer.layers) == 1 + 3 + 2
    for z in range(5):
        shown = attention(z)
        for name, values in (
            ("nucleus, attention", shown.replaced[0]),
            ("attention, original [CLS]", shown.original),
        ):
            expected = values if z in (1, 4) else np.zeros((16, 20))
            assert_allclose(viewer.layers[name].data[z], expected)


def test_what_cannot_be_shown_is_said(viewer: ViewerModel, extra: ExtraLayers) -> None:
    image = viewer.add_image(np.zeros((16, 20)))
    plane, found = displayed_plane(image, viewer.dims), replace(segmentation(), proposals=())
    everything = ExtraChoice(probabilities=True, proposals=True, attention=True)
    note = extra.show(everything, image, plane, found, None)
    assert "No regions to show" in note
    assert "No attention to show: words do not replace the [CLS] in the model 'tiny'." in note
    assert len(viewer.layers) == 3
    assert not extra.show(ExtraChoice(), image, plane, found, None)
    assert "click its eye" in extra.show(
        ExtraChoice(attention=True), image, plane, found, attention()
    )
    assert len(viewer.layers) == 6


def test_even_the_attention_to_nothing_has_a_scale() -> None:
    nothing = np.zeros((1, 4, 5), np.float16)
    assert shown_attention(AttentionMaps(("a",), (0,), nothing, nothing[None])).brightest == 1.0


def test_removed_image_and_removed_layers(viewer: ViewerModel, extra: ExtraLayers) -> None:
    image = viewer.add_image(np.zeros((16, 20)))
    assert isinstance(image, Image)
    plane = displayed_plane(image, viewer.dims)
    viewer.layers.clear()
    for _ in range(2):
        extra.show_probabilities(image, plane, segmentation())
        extra.show_proposals(image, plane, segmentation())
        assert len(viewer.layers) == 3
        viewer.layers.clear()
