"""Mean IoU over classes and foreground-background IoU, as section 5 of the paper defines them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass
class Overlap:
    """Pixels in the intersection and in the union of predictions and truth."""

    intersection: int = 0
    union: int = 0

    def add(self, predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Overlap:
        """Count one image; returns the counts of that image alone."""
        here = Overlap(int((predicted & truth).sum()), int((predicted | truth).sum()))
        self.intersection += here.intersection
        self.union += here.union
        return here

    @property
    def iou(self) -> float:
        """Intersection over union; 1 where both are empty, since nothing was wrong."""
        return self.intersection / self.union if self.union else 1.0


@dataclass
class Scores:
    """Counts over a test set, per class word.

    mIoU is the mean over the classes of (sum of intersections / sum of unions over all images
    of that class); a class without any union is left out. FB-IoU is the mean of the IoU of all
    foreground and of all background, classes ignored. Ignored pixels count nowhere.
    """

    classes: dict[str, Overlap] = field(default_factory=dict)
    foreground: Overlap = field(default_factory=Overlap)
    background: Overlap = field(default_factory=Overlap)
    images: dict[str, list[float]] = field(default_factory=dict)

    def add(
        self,
        word: str,
        predicted: NDArray[np.bool_],
        truth: NDArray[np.bool_],
        ignore: NDArray[np.bool_] | None = None,
    ) -> None:
        """Count the masks of one word in one image.

        Parameters
        ----------
        word : str
        predicted, truth : ndarray of bool, shape (H, W)
        ignore : ndarray of bool, shape (H, W), optional
            Pixels that do not count.
        """
        if ignore is not None:
            predicted, truth = predicted[~ignore], truth[~ignore]
        here = self.classes.setdefault(word, Overlap()).add(predicted, truth)
        self.images.setdefault(word, []).append(here.iou)
        self.foreground.add(predicted, truth)
        self.background.add(~predicted, ~truth)

    @property
    def per_class(self) -> dict[str, float]:
        """IoU of each class, in [0, 1]."""
        return {word: overlap.iou for word, overlap in self.classes.items() if overlap.union}

    @property
    def miou(self) -> float:
        """Mean IoU over the classes, in [0, 1]; NaN if no class has any pixel."""
        values = list(self.per_class.values())
        return float(np.mean(values)) if values else float("nan")

    @property
    def fb_iou(self) -> float:
        """Foreground-background IoU, in [0, 1]."""
        return (self.foreground.iou + self.background.iou) / 2

    @property
    def image_mean(self) -> dict[str, float]:
        """Mean of the IoU of single images, per class, in [0, 1]."""
        return {word: float(np.mean(values)) for word, values in self.images.items()}
