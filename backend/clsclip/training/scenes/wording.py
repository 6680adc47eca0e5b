"""What scenes say about themselves: annotations, and small pieces of English."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

NUMBERS: Final = ("no", "one", "two", "three", "four", "five", "six")


@dataclass(frozen=True)
class Annotations:
    """An image with everything that is known of it.

    Attributes
    ----------
    image : ndarray of uint8, shape (S, S, 3)
        RGB.
    masks : mapping of str to ndarray of bool, shape (S, S)
    boxes : mapping of str to sequence of (top, left, bottom, right)
        In pixels, the last two exclusive.
    captions : tuple of str
    diameter : float or None
        Median diameter of objects in pixels, for microscopy.
    """

    image: NDArray[np.uint8]
    masks: Mapping[str, NDArray[np.bool_]]
    boxes: Mapping[str, Sequence[tuple[int, int, int, int]]]
    captions: tuple[str, ...]
    diameter: float | None = None


def article(phrase: str) -> str:
    """The phrase with its indefinite article.

    >>> article("orange star"), article("small octagon")
    ('an orange star', 'a small octagon')
    """
    # "H&E" is spelled out when read: "aitch"
    vowel = phrase[0] in "aeioAEIO" or phrase.startswith("H&")
    return f"{'an' if vowel else 'a'} {phrase}"


def counted(number: int, singular: str, plural: str) -> str:
    """A number of things, up to six.

    >>> counted(1, "arrow", "arrows"), counted(3, "cell", "cells")
    ('an arrow', 'three cells')
    """
    return article(singular) if number == 1 else f"{NUMBERS[number]} {plural}"


def listed(phrases: Sequence[str]) -> str:
    """An enumeration.

    >>> listed(["a star", "a ring", "a drop"])
    'a star, a ring and a drop'
    """
    if len(phrases) == 1:
        return phrases[0]
    return f"{', '.join(phrases[:-1])} and {phrases[-1]}"
