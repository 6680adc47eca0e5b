"""Attention of a backend's answer, as it is shown. Numpy only, for worker threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clsclip.segmentation import AttentionMaps

_SHOWN: Final = 99.5
"""Percentile of the values that is shown brightest; a few patches often take far more."""

_SAMPLES: Final = 10**6


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
    step = max(1, round((every.size / _SAMPLES) ** 0.5))
    brightest = float(np.percentile(every[:, ::step, ::step], _SHOWN))
    return ShownAttention(every[0], every[1:], brightest or 1.0)
