"""Noise fields, and the materials and patterns that objects and backgrounds are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Field = NDArray[np.float32]

TABLE: Final = 256
"""Side of the periodic tables of noise; a power of 2, since indices wrap by bit mask."""


def resized(field: Field, height: int, width: int) -> Field:
    """A field at another resolution, bicubic. Shape (height, width)."""
    # Pillow is several times faster here than scipy.ndimage.zoom
    image = Image.fromarray(field).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image, dtype=np.float32)


def softened(field: Field, reach: int) -> Field:
    """A field blurred over about ``reach`` pixels by going through a coarser grid."""
    coarse = np.asarray(Image.fromarray(field).reduce(reach), dtype=np.float32)
    return resized(ndimage.uniform_filter(coarse, 3, mode="nearest"), *field.shape)


def smooth_noise(rng: np.random.Generator, height: int, width: int, grain: float) -> Field:
    """Noise without structure below ``grain`` pixels, about standard normal, shape (H, W)."""
    rows, columns = (max(2, round(length / grain) + 1) for length in (height, width))
    return resized(rng.standard_normal((rows, columns), dtype=np.float32), height, width)


def fractal_noise(
    rng: np.random.Generator, height: int, width: int, *, finest: int = 2, power: float = 1.0
) -> Field:
    """Noise of all scales, as in natural images; zero mean and unit standard deviation.

    Parameters
    ----------
    rng : numpy Generator
    height, width : int
    finest : int
        Smallest scale, in pixels.
    power : float
        How fast the amplitude falls from one octave to the next finer: 0 for white noise, 1 for
        the spectrum of photographs.

    Returns
    -------
    ndarray of float32, shape (H, W)
    """
    side, amplitude = 4, 1.0
    field = rng.standard_normal((side, side), dtype=np.float32)
    while side * finest < max(height, width):
        side, amplitude = 2 * side, amplitude * 2**-power
        detail = rng.standard_normal((side, side), dtype=np.float32)
        field = resized(field, side, side) + np.float32(amplitude) * detail
    full = resized(field, side * finest, side * finest)[:height, :width]
    normal: Field = (full - full.mean()) / (full.std() + np.float32(1e-6))
    return normal


@lru_cache(maxsize=2)
def _noise_table(along: float, across: float) -> Field:
    """Periodic noise with the given grain along rows and columns, unit deviation."""
    noise = np.random.default_rng(0).standard_normal((TABLE, TABLE), dtype=np.float32)
    smooth: Field = ndimage.gaussian_filter(noise, (along, across), mode="wrap")
    normal: Field = smooth / smooth.std()
    return normal


def _look_up(table: Field, rows: Field, columns: Field) -> Field:
    """The nearest entries at the given places of a table that goes on forever."""
    wrap = TABLE - 1
    found: Field = table[rows.astype(np.intp) & wrap, columns.astype(np.intp) & wrap]
    return found


def _blend(table: Field, rows: Field, columns: Field) -> Field:
    """Like `_look_up`, but bilinear: for tables that are stretched over many pixels."""
    wrap = TABLE - 1
    row, column = rows.astype(np.intp), columns.astype(np.intp)
    down, right = rows - row.astype(np.float32), columns - column.astype(np.float32)
    top, bottom, left, after = row & wrap, (row + 1) & wrap, column & wrap, (column + 1) & wrap
    upper: Field = table[top, left] * (1 - right) + table[top, after] * right
    lower: Field = table[bottom, left] * (1 - right) + table[bottom, after] * right
    return upper + (lower - upper) * down


@dataclass(frozen=True)
class Grid:
    """Turned coordinates of a piece of surface.

    Attributes
    ----------
    u, v : ndarray of float32, shape (H, W)
        In periods of the pattern, positive.
    period : float
        In pixels.
    """

    u: Field
    v: Field
    period: float

    @classmethod
    def turned(
        cls, rng: np.random.Generator, height: int, width: int, period: float, angle: float
    ) -> Grid:
        """Coordinates turned by ``angle`` radians around an arbitrary origin."""
        y = np.arange(height, dtype=np.float32)[:, None] / np.float32(period)
        x = np.arange(width, dtype=np.float32)[None] / np.float32(period)
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        # far from zero, since truncation to integers stands for floor
        origin = rng.uniform(1000, 1200, 2).astype(np.float32)
        return cls(x * cos + y * sin + origin[0], y * cos - x * sin + origin[1], period)

    def streaks(self, length: float) -> Field:
        """Fine fibres along u, about as long as the given number of pixels."""
        scale = 24 / np.float32(length)
        return _look_up(_noise_table(0.7, 12.0), self.v * self.period, self.u * self.period * scale)

    def clouds(self, scale: float = 1.0) -> Field:
        """Soft blots, ``scale`` periods across."""
        k = np.float32(12 / scale)
        return _blend(_noise_table(6.0, 6.0), self.v * k, self.u * k)


def _clipped(values: NDArray[np.floating[Any]]) -> Field:
    """Within [-1, 1], in single precision."""
    clipped: Field = np.clip(values, -1, 1).astype(np.float32, copy=False)
    return clipped


def _edge(wave: Field, period: float) -> Field:
    """A smooth wave in [-1, 1] made square, with flanks of about a pixel."""
    return _clipped(wave * np.float32(max(period / 4, 1.0)))


def _plain(grid: Grid) -> Field:
    return np.zeros_like(grid.u)


def _striped(grid: Grid) -> Field:
    return _edge(np.sin(2 * np.pi * grid.u), grid.period)


def _checkered(grid: Grid) -> Field:
    return _edge(2 * np.sin(np.pi * grid.u) * np.sin(np.pi * grid.v), grid.period)


def _dotted(grid: Grid) -> Field:
    distance = np.hypot(grid.u % 1 - 0.5, grid.v % 1 - 0.5)
    return _clipped((0.3 - distance) * np.float32(grid.period))


def _wooden(grid: Grid) -> Field:
    # growth rings darken slowly and end abruptly; they are stretched along the grain
    along = Grid(grid.u / np.float32(4), grid.v, grid.period)
    rings = (0.8 * grid.v + 0.4 * along.clouds(2.0)) % 1
    return _clipped(0.9 - 1.8 * rings**1.5 + 0.2 * grid.streaks(60))


def _brick(grid: Grid) -> Field:
    row = np.floor(grid.v)
    along = grid.u / 2 + 0.5 * (row % 2)
    joint = np.float32(max(0.14, 1.3 / grid.period))
    mortar = (grid.v - row < joint) | (along % 1 < joint / 2)
    tone = _look_up(_noise_table(0.7, 12.0), 3 * row, 37 * np.floor(along))
    return _clipped(np.where(mortar, np.float32(1), np.minimum(0.3 * tone - 0.6, 0.1)))


def _marble(grid: Grid) -> Field:
    veins = np.abs(np.sin(np.pi * (0.35 * grid.u + 0.45 * grid.clouds(2.5))))
    return _clipped(1.1 - 1.9 * np.sqrt(veins) + 0.15 * grid.clouds(1.0))


def _woven(grid: Grid) -> Field:
    u, v = grid.u % 1 - 0.5, grid.v % 1 - 0.5
    over = (np.floor(grid.u) + np.floor(grid.v)) % 2 < 1
    across, along = np.where(over, u, v), np.where(over, v, u)
    height = 1 - 7 * across**2 - 2.5 * along**2
    return _clipped(np.where(over, height, height - np.float32(0.5)))


def _furry(grid: Grid) -> Field:
    swirl = 7 * grid.clouds(2.0) / np.float32(grid.period)
    combed = Grid(grid.u - swirl, grid.v + swirl, grid.period)
    return _clipped(0.7 * combed.streaks(9) + 0.3 * grid.clouds(1.5))


def _metal(grid: Grid) -> Field:
    sheen = np.sin(2 * np.pi * (0.22 * grid.v + 0.06 * grid.u))
    return _clipped(1.1 * sheen * np.abs(sheen) + 0.14 * grid.streaks(80))


MATERIALS: Final[dict[str, Callable[[Grid], Field]]] = {
    "plain": _plain,
    "striped": _striped,
    "checkered": _checkered,
    "dotted": _dotted,
    "wooden": _wooden,
    "brick": _brick,
    "marble": _marble,
    "woven": _woven,
    "furry": _furry,
    "metal": _metal,
}
"""Patterns from -1 (dark) to 1 (light) by adjective."""

PATTERNS: Final = tuple(name for name in MATERIALS if name != "plain")
"""Adjectives that a person would mention."""
