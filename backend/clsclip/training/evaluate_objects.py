"""Measure single objects: those of the watershed, of connected pieces, and of the true mask."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from clsclip.config import Settings
from clsclip.errors import InvalidConfigError
from clsclip.instances import InstanceOptions, find_instances, segmented_instances
from clsclip.segmentation import Segmentation
from clsclip.training.examples import Source
from clsclip.training.instance_metrics import ObjectCounts, ObjectScores


class CountFigures(Settings):
    """Objects that match one to one at an IoU above 0.5, summed over images."""

    true: int
    predicted: int
    matched: int
    precision: float = Field(description="In [0, 1]; 1 without predicted objects.")
    recall: float = Field(description="In [0, 1]; 1 without true objects.")
    f1: float = Field(description="In [0, 1]; 1 without any objects.")


class ObjectFigures(Settings):
    """Figures of all objects, and of those less than 15 pixels across."""

    everything: CountFigures
    small: CountFigures


class ObjectEvaluation:
    """Compares ways to single objects with the true ones.

    ``instances`` are those of :func:`clsclip.instances.segmented_instances`, ``connected
    components`` the pieces of the predicted mask. ``whole image, ...`` are the same of plain
    ClsCLIP, which looks at the whole image once and zooms in on nothing. ``true mask parted`` is
    what the watershed makes of the mask of the true objects: what it costs when the mask is right.
    """

    def __init__(self, options: InstanceOptions) -> None:
        self._options = options
        self._scores = {
            name: ObjectScores()
            for name in (
                "instances", "connected components", "whole image, instances",
                "whole image, connected components", "true mask parted",
            )
        }  # fmt: skip

    def add(
        self,
        result: Segmentation,
        whole: Segmentation,
        threshold: float,
        truth: NDArray[np.integer[Any]] | None,
    ) -> None:
        """Count one image.

        Parameters
        ----------
        result, whole : Segmentation
            Of one word: as it was asked for, and by one look at the whole image.
        threshold : float, in (0, 1]
        truth : ndarray of int, shape (H, W), or None
            Ids of the true objects, 0 = background; None: there are none.
        """
        true = np.zeros(result.probabilities.shape[1:], np.uint8) if truth is None else truth
        ways: list[NDArray[np.integer[Any]]] = []
        for seen in (result, whole):
            ways.append(segmented_instances(seen, threshold, self._options)[0])
            ways.append(ndimage.label(seen.labels(threshold))[0])
        ways.append(find_instances((true > 0).astype(np.float32), options=self._options))
        for scores, found in zip(self._scores.values(), ways, strict=True):
            scores.add(found, true)

    def figures(self) -> dict[str, ObjectFigures]:
        """Figures of each way."""
        return {
            name: ObjectFigures(
                everything=_figures(scores.everything), small=_figures(scores.small)
            )
            for name, scores in self._scores.items()
        }


def require_objects(source: Source, origin: str) -> None:
    """Check that annotations tell single objects apart.

    Parameters
    ----------
    source : Source
    origin : str
        What the user calls it.

    Raises
    ------
    InvalidConfigError
        If its examples have masks without ids, or all label images have one id for many pieces.
    """
    pieces = 0
    for index in range(len(source)):
        example = source[index]
        if example.masks.keys() - example.objects.keys():
            raise InvalidConfigError(
                f"'{origin}' has masks of words, not of single objects. --instances needs label "
                "images with one value per object: images/ and labels/."
            )
        for labels in example.objects.values():
            if len(np.unique(labels[labels > 0])) > 1:
                return
            pieces = max(pieces, int(ndimage.label(labels)[1]))
    if pieces > 1:
        raise InvalidConfigError(
            f"The label images of '{origin}' have one value for all objects. --instances needs "
            "one value per object (1, 2, 3, ...); leave it out to measure the masks."
        )


def _figures(counts: ObjectCounts) -> CountFigures:
    return CountFigures(
        true=counts.true, predicted=counts.predicted, matched=counts.matched,
        precision=counts.precision, recall=counts.recall, f1=counts.f1,
    )  # fmt: skip
