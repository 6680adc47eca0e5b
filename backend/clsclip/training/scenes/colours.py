"""Named colours, each a range of hue, saturation and value that no other colour touches."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Colour:
    """A range of colours of one name.

    Attributes
    ----------
    hue : (float, float)
        Degrees; may go below 0.
    saturation, value : (float, float)
        In [0, 1].
    shade : float
        Factor by which it may be darkened and still deserve its name.
    tint : float
        Part by which it may be mixed with white and still deserve its name.
    """

    hue: tuple[float, float]
    saturation: tuple[float, float]
    value: tuple[float, float]
    shade: float
    tint: float

    def draw(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """One colour of the range: RGB in [0, 1], shape (3,)."""
        hue = rng.uniform(*self.hue) / 360 % 1.0
        saturation, value = rng.uniform(*self.saturation), rng.uniform(*self.value)
        return np.array(colorsys.hsv_to_rgb(hue, saturation, value), dtype=np.float32)


COLOURS: Final[dict[str, Colour]] = {
    "red": Colour((-8, 7), (0.78, 1.0), (0.65, 0.97), 0.55, 0.08),
    "green": Colour((95, 145), (0.5, 1.0), (0.4, 0.8), 0.5, 0.35),
    "blue": Colour((212, 238), (0.68, 1.0), (0.55, 0.97), 0.5, 0.35),
    "yellow": Colour((50, 59), (0.75, 1.0), (0.9, 1.0), 0.78, 0.5),
    "orange": Colour((23, 33), (0.82, 1.0), (0.92, 1.0), 0.82, 0.4),
    "purple": Colour((270, 287), (0.55, 0.95), (0.45, 0.75), 0.55, 0.35),
    "pink": Colour((322, 345), (0.32, 0.55), (0.95, 1.0), 0.8, 0.4),
    "brown": Colour((18, 30), (0.55, 0.78), (0.34, 0.5), 0.6, 0.25),
    "white": Colour((0, 360), (0.0, 0.04), (0.94, 1.0), 0.74, 0.0),
    "black": Colour((0, 360), (0.0, 0.2), (0.03, 0.12), 1.0, 0.28),
    "grey": Colour((0, 360), (0.0, 0.06), (0.42, 0.6), 0.7, 0.3),
    "cyan": Colour((178, 190), (0.65, 1.0), (0.8, 1.0), 0.65, 0.5),
}
"""By name."""


def vary(
    rgb: NDArray[np.float32], colour: Colour, pattern: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Darken and lighten a colour within what its name allows.

    Parameters
    ----------
    rgb : ndarray of float32, shape (3,)
        In [0, 1].
    colour : Colour
        Whose limits hold.
    pattern : ndarray of float32, shape (H, W)
        From -1 (darkest) over 0 (``rgb`` itself) to 1 (lightest).

    Returns
    -------
    ndarray of float32, shape (H, W, 3), in [0, 1]
    """
    dark = 1 + (1 - colour.shade) * np.minimum(pattern, 0)
    light = colour.tint * np.maximum(pattern, 0)
    # the two never differ from (1, 0) at the same pixel, so one linear form covers both
    varied = rgb * (dark - light)[..., None] + light[..., None]
    return varied.astype(np.float32, copy=False)
