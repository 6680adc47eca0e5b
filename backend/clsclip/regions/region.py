"""What a generator of region proposals is, and what it hands out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from clsclip.predict.regions import Box

Origin = Literal["detector", "open vocabulary", "tile", "drawn"]
"""Kind of generator that a region comes from."""

Checkpoint = Callable[[], None]
"""Called between the looks at an image; what it raises ends them."""


def go_on() -> None:
    """The :data:`Checkpoint` of a caller who waits for all looks."""


@dataclass(frozen=True)
class Region:
    """One region proposal (R_i, C_i) of an image.

    Attributes
    ----------
    word : str
        C_i, the class word: the detector's own spelling where it has a vocabulary, else the word
        that was asked for.
    score : float
        Confidence, 0 to 1.
    box : Box
        R_i: top, left, bottom, right in image pixels, the last two exclusive.
    origin : str
        What proposed it.
    """

    word: str
    score: float
    box: Box
    origin: Origin = "detector"


class RegionGenerator(Protocol):
    """Proposes where in an image to look for a word, zoomed in (section 3.4).

    "I do not know this word" and "there is none in this image" are different answers: the first
    one sends the question on to another generator, the second one does not.
    """

    @property
    def name(self) -> str:
        """What a person calls it, to be read after "the": "detector 'cells.onnx'"."""

    def knows(self, word: str) -> bool:
        """Whether :meth:`propose` can be asked for this word. Does not look at any image."""

    def propose(
        self, rgb: NDArray[np.float32], word: str, checkpoint: Checkpoint = go_on
    ) -> list[Region]:
        """Regions that may show the word.

        Parameters
        ----------
        rgb : ndarray of float32, shape (H, W, 3)
            RGB in [0, 1].
        word : str
            As the user typed it.
        checkpoint : callable
            Called before every look but the first, where a generator takes several.

        Returns
        -------
        list of Region
            Highest score first, boxes inside the image. Empty where the generator knows the word
            and sees none of it.

        Raises
        ------
        InvalidWordError
            If the generator does not know the word.
        """
