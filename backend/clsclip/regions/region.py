"""What every generator of region proposals hands out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Region:
    """One region proposal (R_i, C_i) of an image.

    Attributes
    ----------
    word : str
        C_i, the class word.
    score : float
        Confidence, 0 to 1.
    box : tuple of float
        R_i: top, left, bottom, right in image pixels, the last two exclusive.
    """

    word: str
    score: float
    box: tuple[float, float, float, float]
