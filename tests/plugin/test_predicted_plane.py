"""A new threshold must never touch a pixel that the user has painted."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from clsclip.segmentation import Segmentation
from napari_clsclip._predicted_plane import PredictedPlane


@pytest.fixture
def segmentation() -> Segmentation:
    """Probabilities of two words over 4 x 6 pixels: rising and falling from 0 to 1."""
    rising = np.tile(np.linspace(0, 255, 6).astype(np.uint8), (4, 1))
    return Segmentation(
        np.stack([rising, rising[:, ::-1]]), ("a", "b"), "tiny", "v", (1.0, 1.0), 0.1
    )


@pytest.fixture
def plane(segmentation: Segmentation) -> tuple[PredictedPlane, np.ndarray]:
    predicted = PredictedPlane(segmentation, 0.5)
    labels = np.zeros((4, 6), np.uint16)
    predicted.write_first(labels)
    return predicted, labels


def test_threshold_changes_all_pixels_when_nothing_was_painted(
    plane: tuple[PredictedPlane, np.ndarray], segmentation: Segmentation
) -> None:
    predicted, labels = plane
    assert_array_equal(labels, segmentation.labels(0.5))
    predicted.write(labels, 0.9)
    assert_array_equal(labels, segmentation.labels(0.9))
    assert np.count_nonzero(labels) == 8
    assert not predicted.changes(labels)[0].any()


def test_painted_pixels_stay_through_any_number_of_thresholds(
    plane: tuple[PredictedPlane, np.ndarray], segmentation: Segmentation
) -> None:
    predicted, labels = plane
    labels[0, 0], labels[1, 5] = 7, 0
    for threshold in (0.9, 0.1, 1.0, 0.5):
        predicted.write(labels, threshold)
        expected = segmentation.labels(threshold)
        expected[0, 0], expected[1, 5] = 7, 0
        assert_array_equal(labels, expected)
    assert predicted.changes(labels)[0].any()


def test_painted_pixel_that_agrees_with_a_later_threshold_is_still_painted(
    plane: tuple[PredictedPlane, np.ndarray],
) -> None:
    predicted, labels = plane
    assert labels[2, 3] == 1
    labels[2, 3] = 0  # erased; at 0.9 the prediction is 0 as well
    predicted.write(labels, 0.9)
    predicted.write(labels, 0.5)
    assert labels[2, 3] == 0


def test_painting_twice_in_one_pixel(plane: tuple[PredictedPlane, np.ndarray]) -> None:
    predicted, labels = plane
    labels[0, 0] = 7
    predicted.write(labels, 0.9)
    labels[0, 0] = 8
    predicted.write(labels, 0.3)
    assert labels[0, 0] == 8


def test_undone_painting_follows_the_threshold_again(
    plane: tuple[PredictedPlane, np.ndarray], segmentation: Segmentation
) -> None:
    predicted, labels = plane
    before = labels[0, 0]
    labels[0, 0] = 7
    predicted.write(labels, 0.9)
    labels[0, 0] = before  # what napari's undo writes
    assert not predicted.changes(labels)[0].any()
    predicted.write(labels, 0.3)
    assert_array_equal(labels, segmentation.labels(0.3))


def test_works_on_a_transposed_view(segmentation: Segmentation) -> None:
    predicted = PredictedPlane(segmentation, 0.5)
    labels = np.zeros((6, 4), np.uint16)
    predicted.write_first(labels.T)
    labels[5, 0] = 9
    predicted.write(labels.T, 0.9)
    expected = segmentation.labels(0.9)
    expected[0, 5] = 9
    assert_array_equal(labels.T, expected)
