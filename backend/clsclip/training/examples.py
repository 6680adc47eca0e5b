"""What training and evaluation read: annotated images, and sets of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Example:
    """One annotated image.

    Attributes
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        RGB.
    masks : mapping of str to ndarray of bool, shape (H, W)
        Complete masks of words.
    present : frozenset of str
        Words that are in the image, with or without a mask.
    ignore : ndarray of bool, shape (H, W), or None
        Pixels for which no mask is vouched for.
    diameter : float or None
        Median diameter of the objects in pixels, where objects are told apart and the scale of
        an image means nothing (microscopy).
    boxes : mapping of str to ndarray of float32, shape (n, 4)
        Box of every object of a word: top, left, bottom, right in pixels, the last two exclusive.
    objects : mapping of str to ndarray of int, shape (H, W)
        Ids of the single objects of a word, 0 = background, where they are told apart.
    captions : tuple of str
        Sentences that are true of the whole image.
    exact : bool
        Whether words name colours and shapes that training must not change: a circle that is
        stretched is none, and a red object without its colour neither.
    """

    image: NDArray[np.uint8]
    masks: Mapping[str, NDArray[np.bool_]]
    present: frozenset[str]
    ignore: NDArray[np.bool_] | None = None
    diameter: float | None = None
    boxes: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    objects: Mapping[str, NDArray[np.integer[Any]]] = field(default_factory=dict)
    captions: tuple[str, ...] = ()
    exact: bool = False


class Source(Protocol):
    """A set of examples of one origin."""

    @property
    def words(self) -> tuple[str, ...]:
        """Class words."""
        ...

    @property
    def masked(self) -> bool:
        """Whether examples have masks, or words only."""
        ...

    @property
    def photographs(self) -> bool:
        """Whether the images are photographs, in which any everyday object may turn up."""
        ...

    @property
    def uncertain(self) -> frozenset[str]:
        """Words that may be there without being annotated: never used as absent words."""
        ...

    @property
    def everywhere(self) -> frozenset[str]:
        """Own words that images of other sources may show too, such as "circle"."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

    def draw(self, rng: np.random.Generator) -> Example:
        """A random example."""
        ...
