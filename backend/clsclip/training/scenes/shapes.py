"""Outlines of named shapes, and their anti-aliased drawing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Points = NDArray[np.float64]
"""Shape (n, 2): x to the right, y down."""

SUPERSAMPLING: Final = 4


@dataclass(frozen=True)
class Outline:
    """A closed polygon with an optional hole, in a frame of about [-1, 1]."""

    rim: Points
    hole: Points | None = None


@dataclass(frozen=True)
class Shape:
    """A kind of shape.

    Attributes
    ----------
    outline : function of a random generator
        One specimen, upright.
    turn : float
        Largest angle, in degrees, by which it may be turned and keep its name.
    smallest : float
        Diameter, in pixels, from which on it is told apart from its likes.
    """

    outline: Callable[[np.random.Generator], Outline]
    turn: float = 180.0
    smallest: float = 16.0


def _arc(
    start: float, stop: float, n: int, radius: float = 1.0, x: float = 0.0, y: float = 0.0
) -> Points:
    """Points on a circle around (x, y) from one angle to another, in degrees."""
    angles = np.radians(np.linspace(start, stop, n))
    return np.column_stack([x + radius * np.cos(angles), y + radius * np.sin(angles)])


def _polygon(*points: tuple[float, float]) -> Outline:
    return Outline(np.array(points, dtype=np.float64))


def _regular(n: int) -> Callable[[np.random.Generator], Outline]:
    return lambda rng: Outline(_arc(-90, 270, n + 1)[:-1])


def _rosette(radii: NDArray[np.float64]) -> Points:
    """A closed outline with the given radii at equal angles."""
    angles = np.linspace(-np.pi / 2, 1.5 * np.pi, len(radii), endpoint=False)
    return np.column_stack([radii * np.cos(angles), radii * np.sin(angles)])


def _circle(rng: np.random.Generator) -> Outline:
    return Outline(_arc(0, 360, 64))


def _ellipse(rng: np.random.Generator) -> Outline:
    return Outline(_arc(0, 360, 64) * [1.0, rng.uniform(0.42, 0.66)])


def _square(rng: np.random.Generator) -> Outline:
    return _polygon((-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85))


def _rectangle(rng: np.random.Generator) -> Outline:
    h = rng.uniform(0.3, 0.58)
    rectangle = _polygon((-1, -h), (1, -h), (1, h), (-1, h))
    return rectangle if rng.random() < 0.5 else Outline(rectangle.rim[:, ::-1])


def _star(rng: np.random.Generator) -> Outline:
    tips, inner = int(rng.choice([5, 5, 5, 6, 7])), rng.uniform(0.38, 0.5)
    return Outline(_rosette(np.where(np.arange(2 * tips) % 2, inner, 1.0)))


def _cross(rng: np.random.Generator) -> Outline:
    a = rng.uniform(0.22, 0.36)
    return _polygon(
        (-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a),
        (a, 1), (-a, 1), (-a, a), (-1, a), (-1, -a), (-a, -a),
    )  # fmt: skip


def _ring(rng: np.random.Generator) -> Outline:
    return Outline(_arc(0, 360, 64), _arc(0, 360, 64, rng.uniform(0.48, 0.72)))


def _crescent(rng: np.random.Generator) -> Outline:
    # the inner arc belongs to a circle through the two horns, shifted sideways
    horn, shift = 50.0, rng.uniform(0.28, 0.42)
    x, y = np.cos(np.radians(horn)), np.sin(np.radians(horn))
    radius, reach = np.hypot(x - shift, y), np.degrees(np.arctan2(y, x - shift))
    outer = _arc(horn, 360 - horn, 48)
    inner = _arc(360 - reach, reach, 48, radius, x=shift)
    return Outline(np.concatenate([outer, inner]))


def _heart(rng: np.random.Generator) -> Outline:
    t = np.linspace(0, 2 * np.pi, 64)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return Outline(np.column_stack([x, -y - 2.5]) / 16)


def _arrow(rng: np.random.Generator) -> Outline:
    shaft, head, neck = rng.uniform(0.14, 0.24), rng.uniform(0.5, 0.66), rng.uniform(-0.05, 0.25)
    return _polygon(
        (-1, -shaft), (neck, -shaft), (neck, -head), (1, 0), (neck, head), (neck, shaft),
        (-1, shaft),
    )  # fmt: skip


def _diamond(rng: np.random.Generator) -> Outline:
    w = rng.uniform(0.55, 0.75)
    return _polygon((0, -1), (w, 0), (0, 1), (-w, 0))


def _semicircle(rng: np.random.Generator) -> Outline:
    return Outline(_arc(180, 360, 40, y=0.45))


def _drop(rng: np.random.Generator) -> Outline:
    # a circle and its two tangents from the tip
    round_part = _arc(-32, 212, 40, 0.62, y=0.36)
    return Outline(np.concatenate([round_part, [[0.0, -1.0]]]))


def _gear(rng: np.random.Generator) -> Outline:
    teeth, root = int(rng.integers(8, 13)), rng.uniform(0.74, 0.8)
    radii = np.tile([1.0, 1.0, root, root], teeth)
    return Outline(_rosette(radii), _arc(0, 360, 40, rng.uniform(0.25, 0.4)))


def _flower(rng: np.random.Generator) -> Outline:
    petals, angles = int(rng.integers(5, 8)), np.linspace(0, 2 * np.pi, 112, endpoint=False)
    lobes = np.sqrt(np.abs(np.cos(petals * angles / 2)))
    return Outline(_rosette(0.45 + 0.55 * lobes))


def _trapezoid(rng: np.random.Generator) -> Outline:
    top, h = rng.uniform(0.4, 0.55), rng.uniform(0.5, 0.7)
    return _polygon((-top, -h), (top, -h), (1, h), (-1, h))


SHAPES: Final[dict[str, Shape]] = {
    "circle": Shape(_circle, smallest=12),
    "ellipse": Shape(_ellipse),
    "square": Shape(_square, turn=18, smallest=12),
    "rectangle": Shape(_rectangle, turn=40),
    "triangle": Shape(_regular(3), smallest=14),
    "pentagon": Shape(_regular(5), turn=36, smallest=32),
    "hexagon": Shape(_regular(6), smallest=40),
    "octagon": Shape(_regular(8), smallest=52),
    "star": Shape(_star),
    "cross": Shape(_cross, turn=20),
    "ring": Shape(_ring),
    "crescent": Shape(_crescent, smallest=20),
    "heart": Shape(_heart, turn=40),
    "arrow": Shape(_arrow, smallest=20),
    "diamond": Shape(_diamond, turn=14),
    "semicircle": Shape(_semicircle, smallest=20),
    "drop": Shape(_drop, turn=60, smallest=20),
    "gear": Shape(_gear, smallest=36),
    "flower": Shape(_flower, smallest=28),
    "trapezoid": Shape(_trapezoid, turn=25, smallest=24),
}
"""By name."""


def draw_shape(shape: Shape, diameter: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """One specimen, turned at random.

    Parameters
    ----------
    shape : Shape
    diameter : float
        In pixels.
    rng : numpy Generator

    Returns
    -------
    ndarray of float32, shape (H, W)
        Part of every pixel that is covered, in [0, 1]; no larger than needed.
    """
    outline, angle = shape.outline(rng), np.radians(rng.uniform(-shape.turn, shape.turn))
    cos, sin = np.cos(angle), np.sin(angle)
    scale = SUPERSAMPLING * diameter / 2
    turned = scale * outline.rim @ np.array([[cos, sin], [-sin, cos]])
    low = turned.min(0)
    width, height = (np.ceil(np.ptp(turned, axis=0) / SUPERSAMPLING).astype(int) + 1).tolist()
    image = Image.new("L", (SUPERSAMPLING * width, SUPERSAMPLING * height))
    pen = ImageDraw.Draw(image)
    pen.polygon((turned - low).ravel().tolist(), fill=255)
    if outline.hole is not None:
        hole = scale * outline.hole @ np.array([[cos, sin], [-sin, cos]])
        pen.polygon((hole - low).ravel().tolist(), fill=0)
    return np.asarray(image.reduce(SUPERSAMPLING), dtype=np.float32) / np.float32(255)
