"""A biological scene before it is annotated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clsclip.training.scenes.plate import Structure
from clsclip.training.scenes.structures import SIMPLE
from clsclip.training.scenes.textures import Field


@dataclass(frozen=True)
class Picture:
    """An image before it is annotated.

    Attributes
    ----------
    pixels : ndarray of float32, shape (S, S, 3) or (S, S, 1)
        RGB, about [0, 1]; grey pictures have one channel only.
    structures : tuple of Structure
    method : str
        How the image was taken: a noun phrase.
    colours : tuple of str
        Colour of each structure, or empty where there is nothing to say about colours.
    blur : float
        Standard deviation of the optical blur in pixels.
    noise : float
        Standard deviation of the camera's noise.
    """

    pixels: Field
    structures: tuple[Structure, ...]
    method: str
    colours: tuple[str, ...]
    blur: float
    noise: float


def simple(words: Sequence[str], rng: np.random.Generator, size: int) -> list[Structure]:
    """A structure for each word, each drawn by itself."""
    return [SIMPLE[word](rng, size) for word in words]


def seen(structures: Sequence[Structure]) -> tuple[Structure, ...]:
    """Those that show anywhere."""
    return tuple(structure for structure in structures if structure.visible)
