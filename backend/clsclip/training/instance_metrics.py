"""Precision, recall and F1 of objects, matched one to one with the true ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

MATCH_IOU: Final = 0.5
"""IoU above which a predicted and a true object match. Above a half, no object can match two."""

SMALL_DIAMETER: Final = 15.0
"""Pixels across below which an object counts as small."""


@dataclass
class ObjectCounts:
    """True, predicted and matched objects, summed over images."""

    true: int = 0
    predicted: int = 0
    matched: int = 0

    def add(self, true: int, predicted: int, matched: int) -> None:
        """Count more objects."""
        self.true += true
        self.predicted += predicted
        self.matched += matched

    @property
    def precision(self) -> float:
        """Part of the predicted objects that match; 1 without any, since nothing was wrong."""
        return self.matched / self.predicted if self.predicted else 1.0

    @property
    def recall(self) -> float:
        """Part of the true objects that were found; 1 without any, since nothing was missed."""
        return self.matched / self.true if self.true else 1.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, in [0, 1]; 1 without any objects."""
        both = self.true + self.predicted
        return 2 * self.matched / both if both else 1.0


@dataclass
class ObjectScores:
    """Counts of all objects and of the small ones over a set of images.

    Small true objects are less than ``SMALL_DIAMETER`` across. The predicted objects that stand
    against them are those that match one, and those that match nothing and are small themselves;
    so a small prediction that matches a larger object is neither right nor wrong.
    """

    everything: ObjectCounts = field(default_factory=ObjectCounts)
    small: ObjectCounts = field(default_factory=ObjectCounts)

    def add(self, predicted: NDArray[np.integer[Any]], truth: NDArray[np.integer[Any]]) -> None:
        """Count one image.

        Parameters
        ----------
        predicted, truth : ndarray of int, shape (H, W)
            Ids of objects, at least 0; 0 is background.
        """
        predicted_ids, predicted_areas = _areas(predicted)
        true_ids, true_areas = _areas(truth)
        pairs = match_objects(predicted, truth)
        predicted_small = equivalent_diameter(predicted_areas) < SMALL_DIAMETER
        true_small = equivalent_diameter(true_areas) < SMALL_DIAMETER
        unmatched = ~np.isin(predicted_ids, pairs[:, 0])
        hits = int(np.isin(true_ids[true_small], pairs[:, 1]).sum())
        self.everything.add(len(true_ids), len(predicted_ids), len(pairs))
        self.small.add(int(true_small.sum()), hits + int((unmatched & predicted_small).sum()), hits)


def match_objects(
    predicted: NDArray[np.integer[Any]], truth: NDArray[np.integer[Any]]
) -> NDArray[np.int64]:
    """Pairs of objects with an IoU above ``MATCH_IOU``.

    Parameters
    ----------
    predicted, truth : ndarray of int, shape (H, W)
        Ids of objects, at least 0; 0 is background.

    Returns
    -------
    ndarray of int64, shape (n, 2)
        Predicted and true id; no id is in two pairs.
    """
    predicted_ids, predicted_areas = _areas(predicted)
    true_ids, true_areas = _areas(truth)
    both = (predicted > 0) & (truth > 0)
    pairs, common = np.unique(
        np.stack([predicted[both], truth[both]]).astype(np.int64), axis=1, return_counts=True
    )
    union = (
        predicted_areas[np.searchsorted(predicted_ids, pairs[0])]
        + true_areas[np.searchsorted(true_ids, pairs[1])]
        - common
    )
    return pairs[:, common > MATCH_IOU * union].T


def equivalent_diameter(area: NDArray[np.int64]) -> NDArray[np.float64]:
    """Diameter of the disc of an area, in pixels."""
    diameter: NDArray[np.float64] = np.sqrt(4.0 * area / np.pi)
    return diameter


def _areas(labels: NDArray[np.integer[Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids of the objects, ascending, and their areas in pixels."""
    ids, areas = np.unique(labels[labels > 0], return_counts=True)
    return ids.astype(np.int64), areas.astype(np.int64)
