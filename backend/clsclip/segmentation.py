"""What segmenting an image gives: probabilities, and labels at a threshold. Without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clsclip.config import DEFAULT_THRESHOLD
from clsclip.errors import InvalidConfigError

_SAMPLES: Final = 10**6


@dataclass(frozen=True)
class RegionUsed:
    """A region proposal inside which a word was looked for (R_i of section 3.4).

    Attributes
    ----------
    box : tuple of float
        Top, left, bottom, right in image pixels, the last two exclusive; the upper left corner of
        the first pixel is (0, 0). In coordinates of napari, where that is (-0.5, -0.5), subtract
        0.5.
    score : float or None
        Confidence of a detector, 0 to 1. None where nothing judged the region: a tile, a box that
        a person drew or a caller gave.
    origin : str
        What proposed it: "detector", "open vocabulary", "tile", "drawn" or "given".
    """

    box: tuple[float, float, float, float]
    score: float | None
    origin: str


@dataclass(frozen=True)
class AttentionMaps:
    """Where the [CLS] of the visual encoder looks: its own, and the one of each word (Figure 3).

    Values are attention weights, mean over the heads, in even shares (ours): 1 is what a patch
    would get if the [CLS] looked at all patches alike, and at nothing else. The mean of a map is
    what the [CLS] does not spend on itself. Maps are blended and resized from patches to pixels.

    Attributes
    ----------
    words : tuple of str, length K
    layers : tuple of int, length L
        Layers of the visual encoder, counted from 0.
    original : ndarray of float16, shape (L, H, W)
        With the [CLS] of CLIP itself, which knows no word.
    replaced : ndarray of float16, shape (K, L, H, W)
        With the [CLS] that each word puts into the replaced layers.
    """

    words: tuple[str, ...]
    layers: tuple[int, ...]
    original: NDArray[np.float16]
    replaced: NDArray[np.float16]


@dataclass(frozen=True)
class Segmentation:
    """Result of segmenting one image plane for one or more words.

    Attributes
    ----------
    probabilities : ndarray of uint8, shape (K, H, W)
        Foreground probability of each of the K words, in steps of 1/255: ``q`` stands for
        ``q / 255``.
    words : tuple of str, length K
        The class words; word ``k`` has class id ``k + 1``.
    model : str
        Name of the model as the request gave it.
    model_version : str
        Hash that identifies the weights.
    zooms : tuple of float, length K
        Model pixels per image pixel at which each word was segmented.
    seconds : float
        Time the computation took, without waiting in the queue.
    region_reasons : tuple of str, length K or 0
        For each word, in sentences for the user: where it was looked for, and why there. Empty
        if no region proposals were asked for.
    proposals : tuple of tuple of RegionUsed, length K or 0
        For each word, the regions that it was looked for in; none for a word that was looked for
        in the whole image. Empty if no region proposals were asked for.
    owners : ndarray of uint16, shape (K, H, W), or None
        Where a word has regions of single objects: 0 outside of them, else ``i + 1`` for pixels
        that belong to the region ``proposals[k][i]``. Regions that show the object of another one
        own nothing, nor do those of which a detector is not sure where the whole image was looked
        at too. None if no word has such regions.
    attention : AttentionMaps or None
        Of the same words, if they were asked for and the model has them.
    """

    probabilities: NDArray[np.uint8]
    words: tuple[str, ...]
    model: str
    model_version: str
    zooms: tuple[float, ...]
    seconds: float
    region_reasons: tuple[str, ...] = ()
    proposals: tuple[tuple[RegionUsed, ...], ...] = ()
    owners: NDArray[np.uint16] | None = None
    attention: AttentionMaps | None = None

    def labels(self, threshold: float = DEFAULT_THRESHOLD) -> NDArray[np.uint16]:
        """Class ids at a threshold.

        Parameters
        ----------
        threshold : float, in (0, 1]
            A pixel belongs to its most probable word if that probability is at least this.

        Returns
        -------
        ndarray of uint16, shape (H, W)
            0 is background, ``k + 1`` is word ``k``. Of equally probable words the first wins.
        """
        lowest = lowest_foreground(threshold)
        best = self.probabilities[0]
        ids: NDArray[np.uint16] = (best >= lowest).astype(np.uint16)
        for k, probability in enumerate(self.probabilities[1:], start=2):
            better = (probability > best) & (probability >= lowest)
            ids[better] = k
            best = np.maximum(best, probability)
        return ids


def brightest_attention(maps: NDArray[np.floating[Any]]) -> float:
    """The attention that is shown brightest, so that maps are shown on one scale; above 0.

    A few patches often take far more than all others, so it is the 99.5th percentile.

    Parameters
    ----------
    maps : ndarray, shape (n, H, W)
        As :class:`AttentionMaps` holds them; of large ones, some pixels count.
    """
    step = max(1, round((maps.size / _SAMPLES) ** 0.5))
    return float(np.percentile(maps[:, ::step, ::step].astype(np.float32), 99.5)) or 1.0


def lowest_foreground(threshold: float) -> int:
    """Lowest of the values 1 to 255 that stand for a probability of at least a threshold.

    Parameters
    ----------
    threshold : float, in (0, 1]

    Raises
    ------
    InvalidConfigError
        If it is out of range.
    """
    if not 0.0 < threshold <= 1.0:
        raise InvalidConfigError(f"The threshold is {threshold}; it must be above 0 and at most 1.")
    return max(1, math.ceil(round(threshold * 255, 6)))
