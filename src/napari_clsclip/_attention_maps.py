"""Attention of a backend's answer, as it is shown. Numpy only, for worker threads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clsclip.segmentation import AttentionMaps, brightest_attention


@dataclass(frozen=True)
class ShownAttention:
    """Maps of one plane, for one layer of the visual encoder.

    Attributes
    ----------
    original : ndarray of float32, shape (H, W)
        With the [CLS] of CLIP itself; see :class:`clsclip.segmentation.AttentionMaps`.
    replaced : ndarray of float32, shape (K, H, W)
        With the [CLS] of each word.
    brightest : float
        Above 0; of all maps, so that they can be compared.
    """

    original: NDArray[np.float32]
    replaced: NDArray[np.float32]
    brightest: float


def shown_attention(maps: AttentionMaps) -> ShownAttention:
    """What is shown of the last layer of an answer; takes a moment for a large plane."""
    every = np.concatenate([maps.original[-1:], maps.replaced[:, -1]]).astype(np.float32)
    return ShownAttention(every[0], every[1:], brightest_attention(every))
