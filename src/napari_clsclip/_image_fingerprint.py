"""A cheap way to tell whether an image is the one that some labels were painted on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

_WINDOW: Final = 1024
_SAMPLES: Final = 64


def fingerprint(source: Any, index: Sequence[int | None]) -> str:
    """Hash a few pixels of one plane; of a lazy image, nothing but that plane's middle is read.

    Call it outside the Qt thread.

    Parameters
    ----------
    source : array
        Any kind with ``shape``, ``dtype`` and basic slicing.
    index : sequence of int or None
        Which plane: the position along each axis, None along the two (or three, with colours) of
        the plane.

    Returns
    -------
    str
        Hexadecimal.
    """
    part: list[int | slice] = []
    for position, length in zip(index, source.shape, strict=True):
        if position is not None:
            part.append(position)
            continue
        size = min(int(length), _WINDOW)
        start = (int(length) - size) // 2
        part.append(slice(start, start + size, max(1, size // _SAMPLES)))
    pixels = np.ascontiguousarray(source[tuple(part)])
    about = f"{tuple(map(int, source.shape))} {source.dtype} {tuple(index)}"
    return hashlib.blake2b(about.encode() + pixels.tobytes(), digest_size=16).hexdigest()
