"""Region proposals: what is cut out for them, and prediction inside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from clsclip import Predictor
from clsclip.errors import InvalidConfigError
from clsclip.predict.regions import (
    ANY_OBJECT,
    MARGIN,
    SMALLEST,
    Box,
    frame_around,
    inside,
    share_frames,
    trusted,
)


@pytest.fixture(scope="module")
def predictor(tiny_model: Path) -> Predictor:
    return Predictor(str(tiny_model), device="cpu")


side = st.floats(0, 200)


@given(
    st.tuples(side, side, side, side),
    st.tuples(st.integers(150, 300), st.integers(150, 300)),
    st.floats(1, 100),
)
def test_frame_holds_the_box_and_its_margin(
    corners: tuple[float, float, float, float], shape: tuple[int, int], smallest: float
) -> None:
    (top, bottom), (left, right) = sorted(corners[:2]), sorted(corners[2:])
    box = (top, left, bottom, right)
    assume(top < shape[0] and left < shape[1] and top < bottom and left < right)
    frame = frame_around(box, shape, smallest)
    for start, length, low, high, pixels in (
        (frame.top, frame.height, top, bottom, shape[0]),
        (frame.left, frame.width, left, right, shape[1]),
    ):
        around = MARGIN * (high - low)
        assert length >= max(SMALLEST, round(smallest))
        assert start <= low - around or start == 0
        assert start + length >= high + around or start + length == pixels
        if length > high - low + 2 * around + 2:  # more context: from within the image
            assert start >= 0
            assert start + length <= pixels
        else:
            assert abs(start + length / 2 - (low + high) / 2) <= 1
    rows, columns, trust, distance = trusted(box, shape)
    assert frame.top <= rows.start < rows.stop <= frame.top + frame.height
    assert frame.left <= columns.start < columns.stop <= frame.left + frame.width
    box_rows, box_columns = inside(box, shape)
    within = (
        slice(box_rows.start - rows.start, box_rows.stop - rows.start),
        slice(box_columns.start - columns.start, box_columns.stop - columns.start),
    )
    assert (trust[within] == 1).all()
    assert trust.min() >= 0
    assert trust.max() <= 1
    assert np.isfinite(distance).all()


def test_trust_falls_across_the_margin_only() -> None:
    rows, columns, trust, distance = trusted((40, 40, 60, 80), (100, 200))
    assert (rows, columns) == (slice(37, 63), slice(34, 86))
    assert trust[10, 5] == pytest.approx(1 - 0.5 / 6)  # half a pixel outside, of a margin of six
    assert (np.diff(trust[10, :7]) > 0).all() or trust[10, 6] == trust[10, 5] == 1
    assert trust[13, 20] == 1
    assert distance[13, 26] < 0.1
    assert distance[3, 26] == pytest.approx(0.95, abs=0.01)  # the first row of the box


def test_small_regions_share_their_frames_and_large_ones_do_not() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 480, (3000, 2))
    boxes: list[Box] = [(top, left, top + 12, left + 9) for top, left in corners.tolist()]
    boxes += [(0, 0, 90, 90), (5, 5, 80, 80)]
    frames, places = share_frames(boxes, (500, 500), 75)
    assert len(frames) < 200  # of 3,002
    assert len(set(places[-2:])) == 2
    for box, place in zip(boxes, places, strict=True):
        frame = frames[place]
        rows, columns, _, _ = trusted(box, (500, 500))
        assert frame.top <= rows.start < rows.stop <= frame.top + frame.height
        assert frame.left <= columns.start < columns.stop <= frame.left + frame.width
    assert {(frame.height, frame.width) for frame in frames[:-2]} == {(75, 75)}


def test_margin_and_pixels_of_a_box() -> None:
    frame = frame_around((40, 40, 60, 80), (200, 200))
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
    assert result.probabilities[0][10:40, 20:50].all()  # random weights are never sure of 0
    assert result.probabilities[0][60:90, 70:120].all()
    outside[5:45, 15:55] = outside[55:90, 62:120] = False  # with their margins
    assert not result.probabilities[0][outside].any()
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
    with pytest.raises(InvalidConfigError, match="65536 regions for 'cell'; at most 65535"):
        predictor.segment(image, ["cell"], regions={"cell": [(0.0, 0.0, 9.0, 9.0)] * 65536})
