"""A detector that overlooks what is small: closer looks, and what becomes of the boxes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.measure import label, regionprops
from skimage.transform import resize

from clsclip.errors import CancelledError
from clsclip.regions import closer
from clsclip.regions.closer import propose_closer
from clsclip.regions.region import Region

SIZE = 128
SEEN = 8  # network pixels across below which the detector sees nothing

Image = NDArray[np.float32]


@pytest.fixture
def looks() -> list[tuple[int, ...]]:
    """Shapes of what was looked at."""
    return []


@pytest.fixture
def propose(looks: list[tuple[int, ...]]) -> Callable[[Image], list[Region]]:
    """A detector of bright things: it brings the longer side to ``SIZE``, as the networks do."""

    def bright(rgb: Image) -> list[Region]:
        looks.append(rgb.shape[:2])
        scale = SIZE / max(rgb.shape[:2])
        shape = [round(scale * length) for length in rgb.shape[:2]]
        small = resize(rgb[..., 0], shape, order=1, anti_aliasing=scale < 1)
        return [
            Region("disk", 0.9, (top / scale, left / scale, bottom / scale, right / scale))
            for each in regionprops(label(small > 0.5))
            for top, left, bottom, right in [each.bbox]
            if min(bottom - top, right - left) >= SEEN
        ]

    return bright


def scene(shape: tuple[int, int], squares: list[tuple[int, int, int, int]]) -> Image:
    image = np.zeros((*shape, 3), np.float32)
    for top, left, bottom, right in squares:
        image[top:bottom, left:right] = 1
    return image


def assert_boxes(
    found: list[Region], expected: list[tuple[int, int, int, int]], within: float
) -> None:
    """Each box once, no other one."""
    boxes = np.array([region.box for region in found])
    assert len(boxes) == len(expected)
    away = np.abs(boxes[:, None] - np.array(expected)).max(2)
    assert (away.min(0) <= within).all()


def grid(step: int, side: int, rows: int, columns: int) -> list[tuple[int, int, int, int]]:
    return [
        (step * i, step * j, step * i + side, step * j + side)
        for i in range(rows) for j in range(columns)
    ]  # fmt: skip


def test_the_looks_at_parts_can_be_ended(
    propose: Callable[[Image], list[Region]], looks: list[tuple[int, ...]]
) -> None:
    def third_look() -> None:
        if len(looks) == 3:
            raise CancelledError("Enough.")

    with pytest.raises(CancelledError):
        propose_closer(
            scene((470, 650), grid(46, 22, 10, 14)), propose, SIZE, checkpoint=third_look
        )
    assert len(looks) == 3


def test_small_objects_of_a_large_image_are_found_once_each(
    propose: Callable[[Image], list[Region]], looks: list[tuple[int, ...]]
) -> None:
    squares = grid(46, 22, 10, 14)  # also on every edge between windows
    image = scene((470, 650), squares)
    assert len(propose(image)) == 0  # four network pixels each
    looks.clear()
    found = propose_closer(image, propose, SIZE)
    assert_boxes(found, squares, 2)
    assert looks[0] == (470, 650)
    assert {max(shape) for shape in looks[1:]} == {SIZE}


def test_the_look_is_as_close_as_the_objects_need(
    propose: Callable[[Image], list[Region]], looks: list[tuple[int, ...]]
) -> None:
    squares = grid(90, 52, 6, 6)  # 12 network pixels at first
    found = propose_closer(scene((550, 550), squares), propose, SIZE)
    assert_boxes(found, squares, 5)
    zoomed = {max(shape) for shape in looks[1:]}
    assert min(zoomed) > 1.4 * SIZE  # less than every pixel


def test_what_is_too_large_for_a_window_stays(propose: Callable[[Image], list[Region]]) -> None:
    small = grid(60, 30, 1, 8)
    large = (100, 100, 460, 440)
    found = propose_closer(scene((500, 500), [*small, large]), propose, SIZE)
    assert_boxes(found, [*small, large], 4)


@pytest.mark.parametrize(
    ("shape", "squares"),
    [
        ((100, 90), grid(30, 10, 3, 3)),  # no pixels that were not seen
        ((600, 600), [(100, 100, 300, 300)]),  # nothing is small
        ((200, 200), []),  # nothing is there
    ],
)
def test_one_look_is_enough(
    propose: Callable[[Image], list[Region]], looks: list[tuple[int, ...]],
    shape: tuple[int, int], squares: list[tuple[int, int, int, int]],
) -> None:  # fmt: skip
    found = propose_closer(scene(shape, squares), propose, SIZE)
    assert looks == [shape]
    assert found == propose(scene(shape, squares))


def test_an_image_of_too_many_windows_is_looked_at_less_closely(
    propose: Callable[[Image], list[Region]], looks: list[tuple[int, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    image = scene((600, 600), [])
    propose_closer(image, propose, SIZE)
    assert len(looks) > 20
    monkeypatch.setattr(closer, "MOST_WINDOWS", 9)
    looks.clear()
    assert propose_closer(image, propose, SIZE) == []
    assert 5 < len(looks) <= 10
    monkeypatch.setattr(closer, "MOST_WINDOWS", 1)
    looks.clear()
    assert propose_closer(image, propose, SIZE) == []
    assert len(looks) == 1


@pytest.mark.parametrize("side", [24, 27, 29, 30, 31, 32, 33, 36])
def test_nothing_is_lost_between_windows(
    propose: Callable[[Image], list[Region]], side: int
) -> None:
    small = [(2, left, 12, left + 10) for left in range(0, 250, 20)]
    for left in range(0, 360, 11):
        image = scene((60, 400), [*small, (20, left, 20 + side, left + side)])
        found = propose_closer(image, propose, SIZE)
        boxes = np.array([region.box for region in found])
        away = np.abs(boxes - (20, left, 20 + side, left + side)).max(1)
        assert away.min() <= 3
