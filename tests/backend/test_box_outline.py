"""Objects in boxes that a person vouches for, where the model sees none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage.data import coins
from skimage.draw import ellipse
from torch import Tensor

from clsclip import Predictor
from clsclip.predict.box_outline import outline_unseen
from clsclip.predict.regions import Box, Frame, frame_around

COIN = (15.0, 250.0, 75.0, 300.0)
"""Box of the upper right coin of scikit-image's picture, which has an even background around."""


def iou(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    return float((first & second).sum() / (first | second).sum())


def scene(mask: NDArray[np.bool_]) -> Tensor:
    """A reddish thing on greenish ground, both of uneven colour."""
    rng = np.random.default_rng(0)
    colours = np.where(mask[..., None], (0.7, 0.3, 0.2), (0.3, 0.5, 0.3))
    colours = np.clip(colours + rng.normal(0, 0.05, colours.shape), 0, 1)
    return torch.from_numpy(colours.astype(np.float32)).permute(2, 0, 1)[None]


def outline(pixels: Tensor, box: Box, others: Sequence[Box] = ()) -> tuple[Tensor, Frame]:
    frame = frame_around(box, (pixels.shape[2], pixels.shape[3]))
    before = torch.zeros(frame.height, frame.width)
    return outline_unseen(
        pixels, box, frame, before, word=before, threshold=0.5, others=others
    ), frame


def in_image(found: Tensor, frame: Frame, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """A frame's plane in the image that it was cut from."""
    whole = np.zeros(shape, dtype=bool)
    top, left = max(frame.top, 0), max(frame.left, 0)
    part = found[top - frame.top :, left - frame.left :].numpy() >= 0.5
    part = part[: shape[0] - top, : shape[1] - left]
    whole[top : top + part.shape[0], left : left + part.shape[1]] = part
    return whole


@pytest.fixture
def triangle() -> NDArray[np.bool_]:
    """Fills half of its box, and leaves the corners of an ellipse in it empty."""
    rows, columns = np.ogrid[:120, :150]
    mask: NDArray[np.bool_] = (rows >= 30) & (rows < 90) & (abs(columns - 70) * 2 < rows - 30)
    return mask


def test_what_differs_from_its_surroundings_is_outlined(triangle: NDArray[np.bool_]) -> None:
    found, frame = outline(scene(triangle), (30.0, 40.5, 90.0, 100.0))
    assert iou(in_image(found, frame, triangle.shape), triangle) > 0.95


def test_it_is_outlined_at_an_edge_of_the_image(triangle: NDArray[np.bool_]) -> None:
    cut = triangle[:70, 60:]
    found, frame = outline(scene(cut), (25.5, -20.0, 75.0, 32.0))
    assert iou(in_image(found, frame, cut.shape), cut) > 0.93


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_low_contrast_is_enough(triangle: NDArray[np.bool_], scale: float) -> None:
    found, frame = outline(0.3 + scale * (scene(triangle) - 0.3), (28.0, 38.0, 92.0, 102.0))
    assert iou(in_image(found, frame, triangle.shape), triangle) > 0.9


def test_a_large_object_is_looked_at_with_fewer_pixels() -> None:
    mask = np.zeros((1500, 1400), dtype=bool)
    mask[ellipse(700, 700, 500, 300)] = True
    found, frame = outline(scene(mask), (195.0, 395.0, 1205.0, 1005.0))
    assert iou(in_image(found, frame, mask.shape), mask) > 0.97


def test_what_the_model_sees_is_kept(triangle: NDArray[np.bool_]) -> None:
    pixels, box = scene(triangle), (30.0, 40.5, 90.0, 100.0)
    frame = frame_around(box, triangle.shape)
    seen = torch.zeros(frame.height, frame.width)
    seen[15:60, 15:60] = 0.9
    assert outline_unseen(pixels, box, frame, seen, word=seen, threshold=0.5) is seen


def test_an_object_that_is_not_the_word_is_not_what_the_model_sees(
    triangle: NDArray[np.bool_],
) -> None:
    box = (30.0, 40.5, 90.0, 100.0)
    frame = frame_around(box, triangle.shape)
    some = torch.full((frame.height, frame.width), 0.9)
    nothing = torch.zeros_like(some)
    found = outline_unseen(scene(triangle), box, frame, some, word=nothing, threshold=0.5)
    assert iou(in_image(found, frame, triangle.shape), triangle) > 0.95


def worm(thickness: float) -> NDArray[np.bool_]:
    """From corner to corner of its box, of which it fills little."""
    rows, columns = np.ogrid[:160, :160]
    inside = (rows >= 30) & (rows < 130) & (columns >= 30) & (columns < 130)
    mask: NDArray[np.bool_] = inside & (abs(rows - columns) < thickness)
    return mask


def test_a_thin_object_that_the_model_sees_is_kept() -> None:
    box, mask = (30.0, 30.0, 130.0, 130.0), worm(4)
    assert mask[30:130, 30:130].mean() < 0.08
    frame = frame_around(box, mask.shape)
    seen = torch.zeros(frame.height, frame.width)
    seen[30 - frame.top : 130 - frame.top, 30 - frame.left : 130 - frame.left] = torch.from_numpy(
        mask[30:130, 30:130].astype(np.float32)
    )
    assert outline_unseen(scene(mask), box, frame, seen, word=seen, threshold=0.5) is seen
    seen[60:] = 0  # a part of it that ends far from the sides of the box is not the object
    assert outline_unseen(scene(mask), box, frame, seen, word=seen, threshold=0.5) is not seen


def test_a_thin_object_that_the_model_does_not_see_is_outlined() -> None:
    mask = worm(6)
    found, frame = outline(scene(mask), (30.0, 30.0, 130.0, 130.0))
    assert iou(in_image(found, frame, mask.shape), mask) > 0.9


@pytest.mark.parametrize("gap", [1, 3, 8])
def test_neighbours_in_boxes_are_not_taken_for_background(gap: int) -> None:
    mask = np.zeros((200, 200), dtype=bool)
    step, radius = 40 + gap, 20
    middles = [
        (100, 100),
        (100 - step, 100),
        (100 + step, 100),
        (100, 100 - step),
        (100, 100 + step),
    ]
    for row, column in middles:
        mask[ellipse(row, column, radius, radius)] = True
    loose = radius + 3.0
    boxes = [(r - loose, c - loose, r + loose, c + loose) for r, c in middles]
    found, frame = outline(scene(mask), boxes[0], boxes)
    truth = np.zeros_like(mask)
    truth[ellipse(100, 100, radius, radius)] = True
    assert iou(in_image(found, frame, mask.shape), truth) > 0.9


@pytest.mark.parametrize("box", [(0.0, 0.0, 60.0, 80.0), (-9.0, -5.0, 70.0, 90.0)])
def test_without_surroundings_it_is_an_ellipse(box: Box) -> None:
    found, frame = outline(torch.rand(1, 3, 60, 80), box)
    expected = np.zeros((60, 80), dtype=bool)
    middle, radii = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), (
        (box[2] - box[0]) / 2, (box[3] - box[1]) / 2
    )  # fmt: skip
    expected[ellipse(*(m - 0.5 for m in middle), *radii, shape=(60, 80))] = True
    assert iou(in_image(found, frame, (60, 80)), expected) > 0.98


def test_no_box_that_reaches_into_the_image_stays_empty() -> None:
    rng = np.random.default_rng(0)
    boxes = [(3.2, 3.4, 3.6, 3.8), (11.6, 3.0, 12.0, 9.0), (-90.0, -90.0, 2.0, 2.0)]
    for _ in range(300):
        top, left = rng.uniform(-8, 11.5, 2)
        boxes.append((top, left, max(top, 0) + rng.uniform(1, 9), max(left, 0) + rng.uniform(1, 9)))
    for pixels in (torch.rand(1, 3, 12, 12), torch.full((1, 3, 12, 12), 0.5)):
        for box in boxes:
            found, frame = outline(pixels, box)
            assert in_image(found, frame, (12, 12)).any(), box


def test_a_flat_image_gives_an_ellipse() -> None:
    found, frame = outline(torch.full((1, 3, 60, 60), 0.5), (10.0, 10.0, 50.0, 40.0))
    assert in_image(found, frame, (60, 60)).sum() == pytest.approx(np.pi * 20 * 15, rel=0.03)


def test_a_coin_is_outlined_for_a_word_that_mini_does_not_know() -> None:
    image = coins()
    truth = np.zeros(image.shape, dtype=bool)
    truth[ellipse(43.5, 275.5, 28, 24)] = True
    mini = Predictor("mini")
    result = mini.segment(image, ["coin"], regions="auto", drawn=[COIN])
    assert iou(result.probabilities[0] >= 128, truth) > 0.85
    assert (
        "did not see the word in it: the outline there is drawn from colours"
        in result.region_reasons[0]
    )
    both = mini.segment(image, ["coin"], regions="auto", drawn=[COIN, (130.0, 90.0, 180.0, 145.0)])
    assert "did not see the word in 2 of them" in both.region_reasons[0]
    unvouched = mini.segment(image, ["coin"], regions={"coin": [COIN]})
    assert iou(unvouched.probabilities[0] >= 128, truth) < 0.5
    again = mini.segment(image, ["coin"], regions={"coin": [COIN]}, vouched=True)
    np.testing.assert_array_equal(again.probabilities, result.probabilities)
