"""Numbered objects on a plate: drawing, placing and telling them apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from clsclip.training.scenes.textures import Field

Points = NDArray[np.float64]
"""Shape (n, 2): x to the right, y down, in pixels."""

_ROUND: Final = np.linspace(0, 2 * np.pi, 36, endpoint=False)
_ORDERS: Final = np.arange(2, 6)[:, None]

MOST: Final = 250
"""Most objects of one structure: their numbers must fit into a byte."""


@dataclass(frozen=True)
class Structure:
    """All objects of one word in an image of side S.

    Attributes
    ----------
    word : str
    labels : ndarray of uint8, shape (S, S)
        Number of the object that covers most of a pixel, 0 for none.
    cover : ndarray of float32, shape (S, S)
        Part of every pixel that is covered, in [0, 1].
    strength : ndarray of float32, shape (S, S)
        ``cover`` times texture and the brightness of each object; around 0.8 inside.
    diameter : float
        Typical size of one object in pixels.
    """

    word: str
    labels: NDArray[np.uint8]
    cover: Field
    strength: Field
    diameter: float

    @cached_property
    def count(self) -> int:
        """Number of objects of which anything is visible."""
        return int(np.count_nonzero(np.bincount(self.labels.ravel())[1:]))

    def textured(self, field: Field, depth: float) -> Structure:
        """With the strength varied by about ``depth`` along a field of unit deviation."""
        factor = np.clip(1 + np.float32(depth) * field, 0.35, 1.6)
        return replace(self, strength=self.strength * factor)

    def within(self, region: NDArray[np.bool_]) -> Structure:
        """Without everything outside of a region."""
        return replace(
            self,
            labels=self.labels * region,
            cover=self.cover * region,
            strength=self.strength * region,
        )

    def kept(self, numbers: NDArray[np.bool_]) -> Structure:
        """Only the objects whose entry is true. ``numbers`` has shape (256,)."""
        # a pixel at the border of two objects goes with the one that covers most of it
        nearby = ndimage.maximum_filter(self.labels, 3)
        return self.within(numbers[np.where(self.labels > 0, self.labels, nearby)])

    @property
    def visible(self) -> bool:
        """Whether there is anything at all."""
        return bool(self.labels.any())


class Plate:
    """Draws numbered objects at twice the resolution.

    Parameters
    ----------
    size : int
        S, side of the final image in pixels.
    """

    def __init__(self, size: int) -> None:
        self._image = Image.new("L", (2 * size, 2 * size))
        self._pen = ImageDraw.Draw(self._image)

    def polygon(self, points: Points, number: int) -> None:
        """A filled polygon."""
        self._pen.polygon((2 * points).ravel().tolist(), fill=number)

    def disc(self, x: float, y: float, radius: float, number: int) -> None:
        """A filled circle."""
        box = (2 * (x - radius), 2 * (y - radius), 2 * (x + radius), 2 * (y + radius))
        self._pen.ellipse(box, fill=number)

    def line(self, points: Points, width: float, number: int) -> None:
        """A line with rounded joints."""
        self._pen.line(
            (2 * points).ravel().tolist(), fill=number, width=max(1, round(2 * width)),
            joint="curve" if width > 2 else None,
        )  # fmt: skip

    def finish(
        self, word: str, diameter: float, rng: np.random.Generator, *, uneven: float = 0.2
    ) -> Structure:
        """Read the drawing at the final resolution.

        Parameters
        ----------
        word : str
        diameter : float
        rng : numpy Generator
        uneven : float
            How much brightness differs from object to object.
        """
        fine = np.asarray(self._image)
        quarters = [fine[i::2, j::2] for i in (0, 1) for j in (0, 1)]
        brightness = np.clip(0.8 + uneven * rng.standard_normal(256), 0.5, 1.1)
        brightness[0] = 0.0
        number, covered = quarters[0], (quarters[0] > 0).astype(np.uint8)
        for quarter in quarters[1:]:
            number = np.maximum(number, quarter)
            covered += quarter > 0
        cover = covered * np.float32(0.25)
        strength: Field = brightness.astype(np.float32)[number] * cover
        return Structure(word, number * (covered >= 2), cover, strength, diameter)


@dataclass(frozen=True)
class Discs:
    """Places of round objects: centres of shape (n, 2), and radii of shape (n,), in pixels."""

    centres: Points
    radii: NDArray[np.float64]


def scatter(
    rng: np.random.Generator, size: int, radius: float, filling: float, spacing: float
) -> Discs:
    """Round places that do not overlap much.

    Parameters
    ----------
    rng : numpy Generator
    size : int
        Side of the image in pixels.
    radius : float
        Mean radius in pixels.
    filling : float
        Wanted part of the image's area.
    spacing : float
        Least distance of two centres, in sums of their radii.
    """
    wanted = int(np.clip(filling * size**2 / (np.pi * radius**2), 1, MOST - 1))
    tries = min(3 * wanted + 4, 400)
    radii = radius * np.clip(1 + 0.2 * rng.standard_normal(tries), 0.6, 1.5)
    centres = rng.uniform(-0.3 * radius, size + 0.3 * radius, (tries, 2))
    x, y = centres.astype(np.float32).T
    reach = (radii * spacing).astype(np.float32)
    away = (x[:, None] - x) ** 2 + (y[:, None] - y) ** 2
    clash = np.packbits(away < (reach[:, None] + reach) ** 2, axis=1, bitorder="little")
    # whole rows as integers: one "and" tells whether a place is still free
    chosen = 0
    kept: list[int] = []
    for i, row in enumerate(clash):
        if len(kept) < wanted and not int.from_bytes(row.tobytes(), "little") & chosen:
            chosen |= 1 << i
            kept.append(i)
    return Discs(centres[kept], radii[kept])


def blobs(
    rng: np.random.Generator, places: Discs, *, aspect: float = 1.0, rough: float = 0.05
) -> NDArray[np.float64]:
    """Outlines of rounded, irregular forms, longer than wide by ``aspect``, at any angle.

    Returns
    -------
    ndarray of float64, shape (n, points, 2)
        x, y in pixels.
    """
    n = len(places.radii)
    waves = rough * rng.standard_normal((n, 4, 1)) / np.sqrt(_ORDERS - 1)
    phases = rng.uniform(0, 2 * np.pi, (n, 4, 1))
    wobble = (waves * np.cos(_ORDERS * _ROUND + phases)).sum(1)
    radii = places.radii[:, None] * (1 + wobble)
    turns, stretch = rng.uniform(0, np.pi, (n, 1)), aspect**0.5
    x, y = radii * np.cos(_ROUND) * stretch, radii * np.sin(_ROUND) / stretch
    cos, sin = np.cos(turns), np.sin(turns)
    outlines: NDArray[np.float64] = np.stack([x * cos - y * sin, x * sin + y * cos], axis=2)
    return outlines + places.centres[:, None]


def centred_in(structure: Structure, region: NDArray[np.bool_]) -> Structure:
    """Only the objects that lie in a region with their whole area."""
    inside = np.bincount(structure.labels[region], minlength=256)
    kept = inside == np.bincount(structure.labels.ravel(), minlength=256)
    kept[0] = True
    return structure.kept(kept)


def typical_diameter(structures: Sequence[Structure]) -> float:
    """Size in pixels between those of the structures: each counts once, however many objects."""
    # by single objects, a hundred puncta would set the scale for a few nuclei
    return float(np.exp(np.mean([np.log(structure.diameter) for structure in structures])))
