"""Regions without a network: tiles, drawn boxes, duplicates, spellings."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clsclip.errors import InvalidConfigError, InvalidWordError
from clsclip.predict.regions import check_regions
from clsclip.regions.drawn import boxes_around
from clsclip.regions.region import Region
from clsclip.regions.suppression import suppress
from clsclip.regions.tiles import Tiles
from clsclip.regions.vocabulary import Vocabulary

SHAPE = (100, 200)


def black(rows: int, columns: int) -> np.ndarray:
    return np.zeros((rows, columns, 3), np.float32)


@settings(deadline=None)
@given(st.tuples(st.integers(1, 500), st.integers(1, 500)), st.floats(0.2, 4))
def test_tiles_cover_every_pixel_and_stay_inside(shape: tuple[int, int], zoom: float) -> None:
    regions = Tiles(zoom, image_size=64).propose(black(*shape), "cell")
    covered = np.zeros(shape, bool)
    for region in regions:
        top, left, bottom, right = region.box
        assert 0 <= top < bottom <= shape[0] + 1e-9
        assert 0 <= left < right <= shape[1] + 1e-9
        covered[int(top) : round(bottom), int(left) : round(right)] = True
    assert covered.all()
    assert {(region.word, region.score, region.origin) for region in regions} == {
        ("cell", 1.0, "tile")
    }


def test_neighbouring_tiles_share_a_quarter() -> None:
    regions = Tiles(2.0, image_size=352).propose(black(512, 300), "cell")
    assert {(r.box[2] - r.box[0], r.box[3] - r.box[1]) for r in regions} == {(176, 176)}
    columns = sorted({region.box[1::2] for region in regions})
    assert len(columns) == 2
    assert len(regions) == 8
    for (_, right), (left, _) in itertools.pairwise(columns):
        assert right - left >= 0.25 * 176
    assert Tiles(0.5).propose(black(90, 100), "cell") == [
        Region("cell", 1.0, (0.0, 0.0, 90.0, 100.0), "tile")
    ]


@pytest.mark.parametrize("wrong", [{"zoom": 0}, {"image_size": 0}, {"zoom": float("nan")}])
def test_impossible_tiles_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidConfigError, match="above 0"):
        Tiles(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("vertices", "box"),
    [
        # napari's rectangle around the pixels 10..19 and 20..39
        ([(9.5, 19.5), (9.5, 39.5), (19.5, 39.5), (19.5, 19.5)], (10, 20, 20, 40)),
        # rotated by 45 degrees
        ([(29.5, 49.5), (39.5, 59.5), (49.5, 49.5), (39.5, 39.5)], (30, 40, 50, 60)),
        # a triangle, in any order of its vertices
        ([(60, 10), (20, 15), (40, 90)], (20.5, 10.5, 60.5, 90.5)),
        # partly outside on two sides, and around the image
        ([(-30, -20), (-30, 9.5), (9.5, 9.5), (9.5, -20)], (0, 0, 10, 10)),
        ([(-5, -5), (-5, 999), (999, 999), (999, -5)], (0, 0, 100, 200)),
        ([(99, 150), (300, 250)], (99.5, 150.5, 100, 200)),
    ],
)
def test_shapes_become_upright_boxes_inside_the_image(
    vertices: list[tuple[float, float]], box: tuple[float, float, float, float]
) -> None:
    drawn = boxes_around([np.array(vertices)], SHAPE)
    assert drawn.boxes == (box,)
    assert drawn.dropped == ()
    assert drawn.knows("細胞核")
    assert drawn.propose(black(*SHAPE), "細胞核") == [Region("細胞核", 1.0, box, "drawn")]


def test_shapes_that_show_nothing_are_dropped_with_their_reasons() -> None:
    square = np.array([(0, 0), (0, 10), (10, 10), (10, 0)], float)
    shapes = np.stack(
        [square + 20, square + np.array((0, 199.5)), square - 10.5, square * 0 + 5, square * (0, 1),
         square * np.nan, square + np.inf, square + np.array((150, 0))]
    )  # fmt: skip
    drawn = boxes_around(shapes, SHAPE)
    assert drawn.boxes == ((20.5, 20.5, 30.5, 30.5),)
    assert drawn.dropped_because == (
        "3 outside the image, 2 with coordinates that are not finite, 2 without an area"
    )


coordinates = st.floats(-1e6, 1e6) | st.sampled_from([-0.5, 99.5, 199.5, float("nan")])


@given(st.lists(st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=6), max_size=5))
def test_every_drawn_box_can_be_segmented(shapes: list[list[tuple[float, float]]]) -> None:
    drawn = boxes_around([np.array(vertices) for vertices in shapes], SHAPE)
    assert len(drawn.boxes) + len(drawn.dropped) == len(shapes)
    check_regions({"cell": drawn.boxes}, ["cell"], SHAPE)  # raises for boxes that show nothing


def test_wrong_arrays_and_images_are_refused() -> None:
    assert boxes_around(np.empty((0, 4, 2)), SHAPE).boxes == ()
    for vertices in (np.zeros((4, 3)), np.zeros(4), np.zeros((0, 2))):
        with pytest.raises(InvalidConfigError, match="Drawn shape 0"):
            boxes_around([vertices], SHAPE)
    drawn = boxes_around([np.array([(1, 1), (5, 5)])], SHAPE)
    with pytest.raises(InvalidConfigError, match="100 x 200"):
        drawn.propose(black(200, 100), "cell")


def test_of_overlapping_regions_of_a_word_the_best_is_kept() -> None:
    first = Region("cat", 0.5, (0, 0, 10, 10))
    better = Region("cat", 0.9, (0, 0, 10, 9))
    other_word = Region("dog", 0.4, (0, 0, 10, 10))
    half = Region("cat", 0.3, (0, 0, 10, 5))
    regions = [half, first, other_word, better]
    assert suppress(regions) == [better, other_word, half]
    assert suppress(regions, iou=1.0) == [better, first, other_word, half]
    assert suppress(regions, iou=0.3) == [better, other_word]
    assert suppress(regions, limit=1) == [better]
    assert suppress([]) == []
    twins = [Region("cat", 0.5, (0, 0, 10, 10 + k / 10), "tile") for k in range(3)]
    assert suppress(twins) == twins[:1]


def test_three_thousand_proposals_are_quick(rng: np.random.Generator) -> None:
    corners = rng.uniform(0, 2000, (3000, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 60, (3000, 2))], axis=1)
    scores = rng.uniform(size=3000).tolist()
    regions = [
        Region("nucleus", score, (box[0], box[1], box[2], box[3]))
        for score, box in zip(scores, boxes.tolist(), strict=True)
    ]
    suppress(regions[:10])  # imports torchvision
    started = time.process_time()
    kept = suppress(regions, iou=0.5)
    assert time.process_time() - started < 1.0
    assert 1000 < len(kept) < 3000
    assert [region.score for region in kept] == sorted((r.score for r in kept), reverse=True)
    assert all(_iou(*pair) <= 0.5 for pair in itertools.combinations(kept[:150], 2))
    gone = [region for region in regions if region not in set(kept)]
    for region in gone[:20]:
        assert any(r.score > region.score and _iou(r, region) > 0.5 for r in kept)


def _iou(a: Region, b: Region) -> float:
    low, high = np.maximum(a.box[:2], b.box[:2]), np.minimum(a.box[2:], b.box[2:])
    shared = float(np.prod(np.clip(high - low, 0, None)))
    areas = [(r.box[2] - r.box[0]) * (r.box[3] - r.box[1]) for r in (a, b)]
    return shared / (sum(areas) - shared)


@pytest.mark.parametrize(
    ("typed", "index"),
    [("cat", 0), (" CATS ", 0), ("a cat.", 0), ("Teddy-Bears", 1), ("teddy bear", 1),
     ("butterflies", 2), ("the bus", 3), ("buses", 3), ("mouse traps", 4), ("ｃａｔ", 0),  # noqa: RUF001
     ("Straße", 5), ("STRASSE", 5), ("核", 6)],
)  # fmt: skip
def test_spellings_of_a_class_word_are_understood(typed: str, index: int) -> None:
    words = ["Cat", "teddy_bear", "butterfly", "bus", "mouse trap", "straße", "核"]
    vocabulary = Vocabulary(words)
    assert typed in vocabulary
    assert vocabulary.index(typed) == index


@pytest.mark.parametrize(
    ("typed", "index"),
    [("nuclei", 0), ("the cell nuclei", 0), ("Erythrocytes", 1), ("RBC", 1),
     ("man", 2)],
)  # fmt: skip
def test_what_means_the_same_is_understood(typed: str, index: int) -> None:
    vocabulary = Vocabulary(["nucleus", "red blood cell", "man", "person"])
    assert vocabulary.index(typed) == index
    assert "woman" not in Vocabulary(["man", "crocodile"])
    assert "crocodile head" not in Vocabulary(["man", "crocodile"])


@pytest.mark.parametrize("typed", ["dog", "cat food", "", ".", "細胞核", "ca", "s"])
def test_other_words_are_not_known(typed: str) -> None:
    vocabulary = Vocabulary(["cat", "teddy bear"])
    assert typed not in vocabulary
    with pytest.raises(InvalidWordError, match="only: cat, teddy bear"):
        vocabulary.index(typed)
