"""The palette of Pascal VOC: a colour for each of 256 ids."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def voc_palette() -> NDArray[np.uint8]:
    """Colours of the ids 0 to 255, shape (256, 3).

    Three bits of the id after three go to the colours, the lowest ones to their highest bits, as
    the benchmark's own code does (VOC development kit, ``VOCcolormap``). 0 is black.
    """
    ids = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((ids >> channel) & 1) << (7 - bit)).astype(np.uint8)
        ids = ids >> 3
    return palette
