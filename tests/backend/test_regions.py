"""Region proposals: what is cut out for them, and prediction inside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clsclip import Predictor
from clsclip.errors import InvalidConfigError
from clsclip.predict.regions import ANY_OBJECT, MARGIN, SMALLEST, frame_around, inside


@pytest.fixture(scope="module")
def predictor(tiny_model: Path) -> Predictor:
    return Predictor(str(tiny_model), device="cpu")


side = st.floats(0, 200)


@given(st.tuples(side, side, side, side))
def test_frame_holds_the_box_in_its_middle(corners: tuple[float, float, float, float]) -> None:
    (top, bottom), (left, right) = sorted(corners[:2]), sorted(corners[2:])
    frame = frame_around((top, left, bottom, right))
    for start, length, low, high in (
        (frame.top, frame.height, top, bottom),
        (frame.left, frame.width, left, right),
    ):
        assert length >= max(SMALLEST, high - low)
        assert start <= low + 1
        assert start + length >= high - 1
        assert abs(start + length / 2 - (low + high) / 2) <= 1


def test_margin_and_pixels_of_a_box() -> None:
    frame = frame_around((40, 40, 60, 80))
    assert (frame.height, frame.width) == (round(20 + 40 * MARGIN), round(40 + 80 * MARGIN))
    assert inside((1.2, 2.0, 3.5, 4.0), (10, 10)) == (slice(1, 4), slice(2, 4))
    assert inside((-5.0, 8.0, 30.0, 99.0), (10, 10)) == (slice(0, 10), slice(8, 10))


def test_vouched_regions_take_the_outline_of_any_object_too(
    predictor: Predictor, rng: np.random.Generator
) -> None:
    image = rng.integers(0, 255, (90, 120, 3), dtype=np.uint8)
    boxes = [(10.0, 20.0, 60.0, 70.0), (30.0, 40.0, 80.0, 120.0)]

    def found(word: str, vouched: bool) -> np.ndarray:
        result = predictor.segment(image, [word], regions={word: boxes}, vouched=vouched)
        return result.probabilities[0]

    either = np.maximum(found("nucleus", False), found(ANY_OBJECT, False))
    difference = found("nucleus", True).astype(int) - either
    assert np.abs(difference).max() <= 1  # rounded once or twice
    assert (either > found("nucleus", False)).any()
    free = predictor.segment(image, ["nucleus"], vouched=True).probabilities
    np.testing.assert_array_equal(free, predictor.segment(image, ["nucleus"]).probabilities)


def test_word_is_looked_for_inside_its_regions_only(
    predictor: Predictor, rng: np.random.Generator
) -> None:
    image = rng.integers(0, 255, (90, 120, 3), dtype=np.uint8)
    boxes = [(10.0, 20.0, 40.0, 50.0), (60.0, 70.0, 90.0, 120.0)]
    result = predictor.segment(image, ["nucleus", "cell"], regions={"nucleus": boxes})
    outside = np.ones((90, 120), dtype=bool)
    outside[10:40, 20:50] = outside[60:90, 70:120] = False
    assert not result.probabilities[0][outside].any()
    assert result.probabilities[0][~outside].all()  # random weights are never sure of 0
    plain = predictor.segment(image, ["cell"])
    np.testing.assert_array_equal(result.probabilities[1], plain.probabilities[0])


def test_regions_are_joined_by_their_maximum(
    predictor: Predictor, rng: np.random.Generator
) -> None:
    image = rng.integers(0, 255, (90, 120, 3), dtype=np.uint8)
    boxes = [(10.0, 20.0, 60.0, 70.0), (30.0, 40.0, 80.0, 90.0)]

    def within(chosen: list[tuple[float, float, float, float]]) -> np.ndarray:
        result = predictor.segment(image, ["nucleus"], regions={"nucleus": chosen})
        return result.probabilities[0]

    joined = np.maximum(within(boxes[:1]), within(boxes[1:]))
    assert np.abs(within(boxes).astype(int) - joined).max() <= 2  # batches round otherwise
    swapped = within(boxes[::-1])
    assert np.abs(within(boxes).astype(int) - swapped).max() <= 2


def test_region_at_the_edge_and_beyond_small_images(
    predictor: Predictor, rng: np.random.Generator
) -> None:
    image = rng.integers(0, 255, (6, 30), dtype=np.uint8)
    result = predictor.segment(image, ["cell"], regions={"cell": [(0.0, 0.0, 6.0, 30.0)]})
    assert result.probabilities.shape == (1, 6, 30)
    assert result.probabilities.all()


@pytest.mark.parametrize(
    "box",
    [
        (10.0, 10.0, 10.0, 30.0),
        (30.0, 10.0, 10.0, 30.0),
        (60.0, 0.0, 70.0, 10.0),
        (-20.0, 0.0, 0.0, 10.0),
        (0.0, float("nan"), 10.0, 10.0),
        (0.0, 0.0, float("inf"), 10.0),
    ],
)
def test_regions_that_show_nothing_are_refused(
    predictor: Predictor, box: tuple[float, float, float, float]
) -> None:
    image = np.zeros((60, 80), np.uint8)
    with pytest.raises(InvalidConfigError, match="shows nothing of the image of 60 x 80"):
        predictor.segment(image, ["cell"], regions={"cell": [box]})


def test_regions_of_words_that_are_not_asked_for_are_refused(predictor: Predictor) -> None:
    image = np.zeros((60, 80), np.uint8)
    with pytest.raises(InvalidConfigError, match="regions for 'dog', which is not among"):
        predictor.segment(image, ["cell"], regions={"dog": [(0.0, 0.0, 9.0, 9.0)]})
