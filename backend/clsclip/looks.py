"""How a plane that is too large to be looked at as a whole is looked at: contrast and zooms.

They are decided once and hold for every part, so that no part differs from its neighbour but by
what it shows. Backend and plugin decide alike: only who looks differs. Nothing here imports torch.
Ours; the paper leaves large images open.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from clsclip.blocks import Region, blocks
from clsclip.config import DEFAULT_THRESHOLD
from clsclip.segmentation import Segmentation, lowest_foreground
from clsclip.zoom import COMPANION, LEAST_STEP, TARGET_DIAMETER, object_diameter

OVERVIEW_SIDE: Final = 512
"""Longest side of the overview."""

SAMPLES: Final = 4
"""Full-resolution samples that are looked at to choose the zoom."""

SAMPLE_SIDE: Final = 512
"""Rows and columns of a sample."""

UNRESOLVED: Final = 1 / 8
"""Part of the width of an overview's objects (or of a sample, if that is less) below which those of
a sample, if they are no specks, say that the overview took many of them for one."""

SPECKS: Final = 0.1
"""Part of a sample up to which what is found in it may be specks."""

Passes = tuple[tuple[float, ...], ...]
"""For each word, the zoom of every look at the plane."""


@dataclass(frozen=True)
class Looks:
    """How an image is looked at, decided once for all its blocks.

    Attributes
    ----------
    contrast_limits : tuple of float
        Values that are black and white.
    passes : tuple of tuple of float, length K
        For each word, model pixels per image pixel of every look at the image, whose mean counts;
        the first one is the word's zoom, the others see it with patches that lie otherwise.
    """

    contrast_limits: tuple[float, float]
    passes: tuple[tuple[float, ...], ...]

    @property
    def zooms(self) -> tuple[float, ...]:
        """The zoom of each word."""
        return tuple(zooms[0] for zooms in self.passes)


def overview_step(shape: tuple[int, int]) -> int:
    """How many pixels of a plane there are along each axis to one of its overview."""
    return -(-max(shape) // OVERVIEW_SIDE)


def choose_passes(
    overview: NDArray[Any],
    step: float,
    shape: tuple[int, int],
    words: int,
    contrast_limits: tuple[float, float],
    look: Callable[[NDArray[Any]], Segmentation],
    read: Callable[[Region], NDArray[Any]],
) -> Passes:
    """Each word's zoom, from an overview and some full-resolution samples.

    The rule of :mod:`clsclip.zoom` is asked about the overview. A word whose objects are
    too small there, or are not found, gets the median of what the rule says about full-resolution
    samples where the overview shows most structure; those that show the word count, if any does.
    So does one whose objects look large, if a sample shows that they are many small ones: an
    overview of every n-th pixel does not resolve them.

    Parameters
    ----------
    overview : ndarray, shape (h, w) or (h, w, channels)
        The plane with fewer pixels.
    step : float
        Pixels of the plane along each axis to one of the overview.
    shape : tuple of int
        Rows and columns of the plane.
    words : int
        Number of words, K.
    contrast_limits : tuple of float
        Values that are black and white.
    look : callable
        Segments an image for the words, each at the zoom that the rule chooses.
    read : callable
        Gives rows and columns of the plane.

    Returns
    -------
    tuple of tuple of float, length K
        See :attr:`Looks.passes`.
    """
    whole = look(overview)
    seen = [_seen_well(whole, k) for k in range(words)]
    zooms = [zoom / step for zoom in whole.zooms]
    parts = _samples(_grey(overview, contrast_limits), step, shape)
    near: list[Segmentation] = []
    if any(seen):
        near = [look(read(parts[0]))]
        seen = [seen[k] and not _unresolved(whole, near[0], k, step) for k in range(words)]
    if not all(seen):
        near += [look(read(part)) for part in parts[len(near) :]]
        for k in range(words):
            if not seen[k]:
                zooms[k] = _zoom_of_samples(near, k)
    return tuple((chosen, chosen * COMPANION) for chosen in zooms)


def _grey(overview: NDArray[Any], contrast_limits: tuple[float, float]) -> NDArray[np.float64]:
    """Brightness as it is shown."""
    colour = overview[..., :3] if overview.ndim == 3 else overview[..., None]
    low, high = contrast_limits
    shown = np.clip((colour.astype(np.float64) - low) / ((high - low) or 1.0), 0.0, 1.0)
    return np.asarray(shown.mean(axis=2), dtype=np.float64)


def _samples(grey: NDArray[np.float64], step: float, shape: tuple[int, int]) -> list[Region]:
    """Full-resolution parts of an image, where its overview varies most, no two overlapping."""
    cut = blocks(shape, SAMPLE_SIDE)
    down, across = (
        np.minimum(np.arange(length) * step // SAMPLE_SIDE, most - 1).astype(np.int64)
        for length, most in zip(grey.shape, cut.grid, strict=True)
    )
    labels = down[:, None] * cut.grid[1] + across
    numbers = np.unique(labels)
    spread = ndimage.standard_deviation(grey, labels, numbers)
    best = numbers[np.argsort(-np.asarray(spread), kind="stable")]
    # whole samples first: those at the right and lower edge may be thin
    full = [n for n in best if min(cut[int(n)].shape) == SAMPLE_SIDE] or list(best)
    # the best ones often lie side by side: of more, take those that are spread down the image
    candidates = np.sort(full[: 4 * SAMPLES])
    chosen = np.linspace(0, len(candidates) - 1, min(SAMPLES, len(candidates))).round()
    return [cut[int(candidates[int(place)])].core for place in chosen]


def _seen_well(overview: Segmentation, k: int) -> bool:
    """Whether an overview shows the objects of a word as large as the network likes them."""
    width = object_diameter(_foreground(overview, k))
    return width is not None and width * overview.zooms[k] * LEAST_STEP >= TARGET_DIAMETER


def _unresolved(overview: Segmentation, sample: Segmentation, k: int, step: float) -> bool:
    """Whether a sample shows that an overview took many objects of a word for one."""
    found = _foreground(sample, k)
    whole, near = object_diameter(_foreground(overview, k)), object_diameter(found)
    if whole is None or near is None or found.mean() <= SPECKS:
        return False
    return near < UNRESOLVED * min(whole * step, SAMPLE_SIDE)


def _zoom_of_samples(samples: Sequence[Segmentation], k: int) -> float:
    """The median zoom of a word, of the samples that show it if any does."""
    showing = [sample for sample in samples if _foreground(sample, k).any()]
    zooms = sorted(sample.zooms[k] for sample in showing or samples)
    return zooms[len(zooms) // 2]


def _foreground(result: Segmentation, k: int) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = result.probabilities[k] >= lowest_foreground(DEFAULT_THRESHOLD)
    return found
