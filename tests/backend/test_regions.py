"""Region proposals: the squares that are cut out, and prediction inside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clsclip import Predictor
from clsclip.errors import InvalidConfigError
from clsclip.predict.regions import MARGIN, inside, square_around


@pytest.fixture(scope="module")
def predictor(tiny_model: Path) -> Predictor:
    return Predictor(str(tiny_model), device="cpu")


side = st.floats(0, 200)


@given(st.tuples(side, side, side, side), st.tuples(st.integers(1, 200), st.integers(1, 200)))
def test_square_holds_the_box_and_stays_in_the_image_where_it_fits(
    corners: tuple[float, float, float, float], shape: tuple[int, int]
) -> None:
    (top, bottom), (left, right) = sorted(corners[:2]), sorted(corners[2:])
    bottom, right = min(bottom, shape[0]), min(right, shape[1])
    top, left = min(top, bottom), min(left, right)
    square = square_around((top, left, bottom, right), shape)
    assert square.side >= max(bottom - top, right - left)
    for start, low, high, length in (
        (square.top, top, bottom, shape[0]),
        (square.left, left, right, shape[1]),
    ):
        assert start <= low + 0.5
        assert start + square.side >= high - 0.5
        if square.side <= length:
            assert 0 <= start <= length - square.side


def test_margin_and_pixels_of_a_box() -> None:
    square = square_around((40, 40, 60, 80), (200, 200))
    assert square.side == round(40 * (1 + 2 * MARGIN))
    assert (square.top + square.side / 2, square.left + square.side / 2) == (50, 60)
    assert inside((1.2, 2.0, 3.5, 4.0), (10, 10)) == (slice(1, 4), slice(2, 4))
    assert inside((-5.0, 8.0, 30.0, 99.0), (10, 10)) == (slice(0, 10), slice(8, 10))


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
