"""How well a detector finds the objects of annotated images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clsclip.regions.region import Region
from clsclip.regions.yolo import DEFAULT_CONFIDENCE, YoloDetector
from clsclip.training.detection_crops import exact_boxes
from clsclip.training.examples import Source


@dataclass(frozen=True)
class DetectionQuality:
    """Counts of one word, or of several together.

    Attributes
    ----------
    objects : int
        Annotated objects.
    reported : int
        Regions that the detector gave.
    right : int
        Regions that lie on an object of their word, each object counted once.
    """

    objects: int
    reported: int
    right: int

    @property
    def recall(self) -> float:
        """Part of the objects that were found; NaN if there are none."""
        return self.right / self.objects if self.objects else float("nan")

    @property
    def precision(self) -> float:
        """Part of the regions that are right; NaN if there are none."""
        return self.right / self.reported if self.reported else float("nan")


def evaluate_detector(
    detector: YoloDetector,
    source: Source,
    limit: int | None = None,
    *,
    confidence: float = DEFAULT_CONFIDENCE,
    size: int | None = None,
) -> dict[str, DetectionQuality]:
    """Compare a detector with annotated boxes at an intersection over union of 0.5.

    Parameters
    ----------
    detector : YoloDetector
    source : Source
    limit : int, optional
        Images to look at, evenly spread; None: all.
    confidence, size
        As :meth:`YoloDetector.detect` takes them.

    Returns
    -------
    dict of str to DetectionQuality
        By word, for every word that is annotated or was reported.
    """
    objects: Counter[str] = Counter()
    reported: Counter[str] = Counter()
    right: Counter[str] = Counter()
    count = len(source) if limit is None else min(limit, len(source))
    for index in np.linspace(0, len(source) - 1, count).astype(int):
        example = source[int(index)]
        rgb = np.divide(example.image, 255, dtype=np.float32)
        regions = detector.detect(rgb, confidence, size=size)
        words, boxes = exact_boxes(example.boxes)
        objects.update(words)
        reported.update(region.word for region in regions)
        right.update(region.word for region in matched(regions, words, boxes))
    return {
        word: DetectionQuality(objects[word], reported[word], right[word])
        for word in sorted(objects | reported)
    }


def matched(
    regions: Sequence[Region], words: Sequence[str], boxes: NDArray[np.float32], iou: float = 0.5
) -> list[Region]:
    """Regions that lie on an object of their word that no better region has taken.

    Parameters
    ----------
    regions : sequence of Region
        Best first.
    words : sequence of str, length n
    boxes : ndarray of float32, shape (n, 4)
        Top, left, bottom, right of the annotated objects.
    iou : float
        Smallest intersection over union.
    """
    if not words:
        return []
    free, named = np.ones(len(words), dtype=bool), np.array(words)
    right = []
    for region in regions:
        overlap = np.where(free & (named == region.word), box_iou(region.box, boxes), 0.0)
        best = int(overlap.argmax())
        if overlap[best] >= iou:
            free[best] = False
            right.append(region)
    return right


def box_iou(
    box: tuple[float, float, float, float], boxes: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Intersection over union of one box with n others, shape (n,)."""
    one, many = np.array(box, dtype=np.float64), boxes.astype(np.float64)
    low, high = np.maximum(one[:2], many[:, :2]), np.minimum(one[2:], many[:, 2:])
    common = np.maximum(high - low, 0).prod(axis=1)
    areas = (many[:, 2:] - many[:, :2]).prod(axis=1)
    iou: NDArray[np.float64] = common / ((one[2:] - one[:2]).prod() + areas - common + 1e-9)
    return iou
