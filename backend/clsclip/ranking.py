"""What to correct next: how much a model expects to learn from an image (ours).

An image is worth correcting where the model expects to be wrong, and where it shows something
that neither accepted images nor those that come before it in the list show. Numpy only.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from clsclip.config import DEFAULT_THRESHOLD

NOTHING: Final = 0.1
"""Probability below which a pixel counts as certain background: over a large background, what is
next to nothing would add up to more than the objects."""

LEAST_PART: Final = 1e-4
"""Part of the image that must be probable for a word to count as found."""

UNLIKE: Final = 0.5
"""Novelty from which on an image is said to be unlike those that are known."""

K = TypeVar("K", bound=Hashable)


def expected_iou(
    probabilities: NDArray[np.uint8], threshold: float = DEFAULT_THRESHOLD
) -> float | None:
    """IoU of a mask with the truth that a model expects, if its probabilities are right.

    Every pixel of the mask belongs to the truth with its probability, and so does every pixel
    outside: expected intersection over expected union.

    Parameters
    ----------
    probabilities : ndarray of uint8, shape (H, W)
        0 to 255 for probabilities 0 to 1.
    threshold : float
        Of the mask.

    Returns
    -------
    float or None
        In [0, 1]; None where the word is next to nowhere.
    """
    return expected_iou_of_counts(probability_counts(probabilities), threshold)


def probability_counts(probabilities: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How many pixels have each of the probabilities 0 to 255, shape (256,)."""
    return np.bincount(probabilities.ravel(), minlength=256).astype(np.int64)


def expected_iou_of_counts(
    counts: NDArray[np.int64], threshold: float = DEFAULT_THRESHOLD
) -> float | None:
    """Like :func:`expected_iou`, of an image that is not held: from the counts of its parts.

    Parameters
    ----------
    counts : ndarray of int, shape (256,)
        Sum of :func:`probability_counts` over all parts.
    threshold : float
    """
    levels = np.arange(256) / 255
    weights = np.where(levels < NOTHING, 0.0, levels) * counts
    inside = np.arange(256) >= round(255 * threshold)
    union = float(counts[inside].sum() + weights[~inside].sum())
    if union < LEAST_PART * float(counts.sum()):
        return None
    return float(weights[inside].sum()) / union


@dataclass(frozen=True)
class Candidate(Generic[K]):
    """An image that might be corrected next.

    Attributes
    ----------
    key : hashable
        Tells it from others.
    expected : tuple of float or None
        Expected IoU of each word; None where it was not found.
    embedding : ndarray of float, shape (D,)
        Of unit length; near ones look alike.
    """

    key: K
    expected: tuple[float | None, ...]
    embedding: NDArray[np.floating[Any]]

    @property
    def doubt(self) -> float:
        """How wrong the model expects to be, in [0, 1].

        A word that was found nowhere counts half: the model is sure, and may overlook it.
        """
        return float(np.mean([0.5 if each is None else 1 - each for each in self.expected]))


@dataclass(frozen=True)
class Ranked(Generic[K]):
    """A candidate in its place of the list.

    Attributes
    ----------
    candidate : Candidate
    gain : float
        Doubt times novelty, in [0, 1].
    novelty : float
        In [0, 1]: 0 for an image like a known one; 1 where nothing is known.
    """

    candidate: Candidate[K]
    gain: float
    novelty: float

    def reason(self, words: Sequence[str]) -> str:
        """Why it stands there, in a sentence."""
        missing = [w for w, e in zip(words, self.candidate.expected, strict=True) if e is None]
        found = [
            f"{word} {value:.2f}"
            for word, value in zip(words, self.candidate.expected, strict=True)
            if value is not None
        ]
        parts = [f"expected IoU of {', '.join(found)}"] if found else []
        parts += [f"found no {', no '.join(missing)}"] if missing else []
        known = "unlike" if self.novelty >= UNLIKE else "like"
        return f"The model: {'; '.join(parts)}. It looks {known} what came before."


def rank(candidates: Sequence[Candidate[K]], known: NDArray[np.floating[Any]]) -> list[Ranked[K]]:
    """Order images by what correcting them is expected to teach, the best first.

    The next one is always that of the highest doubt times its novelty among what is accepted and
    what stands before it, so that two images of one kind do not follow each other.

    Parameters
    ----------
    candidates : sequence of Candidate
    known : ndarray of float, shape (N, D)
        Embeddings of accepted images; N may be 0.
    """
    if not candidates:
        return []
    embeddings = np.stack([each.embedding for each in candidates]).astype(np.float32)
    doubts = np.array([each.doubt for each in candidates])
    scale = _typical_distance(embeddings)
    nearest = np.full(len(candidates), np.inf, np.float32)
    if len(known):
        nearest = (1 - embeddings @ np.asarray(known, np.float32).T).min(1)
    left = np.ones(len(candidates), bool)
    ranked: list[Ranked[K]] = []
    for _ in candidates:
        distance = np.maximum(nearest, 0)
        novelty = 1 - scale / (scale + distance)  # 1 where nothing is known: infinitely far
        gains = np.where(left, doubts * novelty, -1.0)
        best = int(gains.argmax())
        left[best] = False
        ranked.append(Ranked(candidates[best], float(gains[best]), float(novelty[best])))
        nearest = np.minimum(nearest, 1 - embeddings @ embeddings[best])
    return ranked


def _typical_distance(embeddings: NDArray[np.float32]) -> float:
    """Median cosine distance of an image to the mean of all; never 0."""
    middle = embeddings.mean(0)
    length = float(np.linalg.norm(middle)) or 1.0
    return max(float(np.median(1 - embeddings @ (middle / length))), 1e-6)
