"""Object scenes: coloured, textured shapes on all kinds of backgrounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from clsclip.training.scenes.colours import COLOURS, vary
from clsclip.training.scenes.shapes import SHAPES, draw_shape
from clsclip.training.scenes.textures import (
    MATERIALS,
    PATTERNS,
    Field,
    Grid,
    fractal_noise,
    smooth_noise,
)
from clsclip.training.scenes.wording import Annotations, article, counted, listed
from clsclip.words import plural

WORDS: Final = (
    *SHAPES,
    *(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES),
    *(f"{pattern} {shape}" for pattern in PATTERNS for shape in SHAPES),
    *(f"{colour} object" for colour in COLOURS),
    *(f"{pattern} object" for pattern in PATTERNS),
)
"""Class words: shapes, then shapes and objects with a colour or a pattern."""

SURFACES: Final = tuple(name for name in PATTERNS if name not in {"dotted", "checkered"})
"""Patterns of backgrounds: those that are not themselves full of circles or squares."""

CONTRAST: Final = 0.3
"""Least distance in RGB, each in [0, 1], of an object's colour from what it lies on."""

VISIBLE: Final = 0.65
"""Least part of an object that others and the image's edge leave visible."""

SMALLEST_AREA: Final = 60
"""Least visible pixels of an object."""

BIG: Final = 0.42
"""Diameter per image side from which on an object is large whatever the others are."""

SMALL: Final = 0.16
"""Diameter per image side up to which an object is small whatever the others are."""

CLEARLY: Final = 1.8
"""Ratio of diameters from which on one object of a shape is large and the other one small."""


@dataclass(frozen=True)
class Kind:
    """What an object is, in words."""

    shape: str
    colour: str
    pattern: str

    @property
    def words(self) -> tuple[str, ...]:
        """All class words that apply."""
        words = (self.shape, f"{self.colour} {self.shape}", f"{self.colour} object")
        if self.pattern == "plain":
            return words
        return (*words, f"{self.pattern} {self.shape}", f"{self.pattern} object")

    def describe(self, colour: bool, pattern: bool) -> str:
        """Noun phrase with or without the two adjectives."""
        parts = [self.colour] if colour else []
        if pattern and self.pattern != "plain":
            parts.append(self.pattern)
        return " ".join([*parts, self.shape])


@dataclass(frozen=True)
class Background:
    """What objects lie on: RGB in [0, 1], shape (S, S, 3), and a noun phrase."""

    pixels: Field
    phrase: str


@dataclass(frozen=True)
class Placed:
    """An object of a scene.

    Attributes
    ----------
    kind : Kind
    diameter : float
        In pixels.
    area : int
        Pixels that it would cover in an endless image by itself.
    window : (slice, slice)
        Rows and columns of the image that hold it.
    """

    kind: Kind
    diameter: float
    area: int
    window: tuple[slice, slice]

    @property
    def centre(self) -> tuple[float, float]:
        """Row and column."""
        rows, columns = self.window
        return (rows.start + rows.stop) / 2, (columns.start + columns.stop) / 2


def object_scene(rng: np.random.Generator, size: int) -> Annotations:
    """A scene of one to six objects.

    Parameters
    ----------
    rng : numpy Generator
    size : int
        S, side of the image in pixels.

    Returns
    -------
    Annotations
        Without a diameter.
    """
    background = _background(rng, size)
    painter = _Painter(background.pixels, rng)
    wanted = int(rng.choice(6, p=[0.2, 0.24, 0.22, 0.16, 0.1, 0.08])) + 1
    attempts = 6 * wanted
    while len(painter.placed) < wanted and (attempts > 0 or not painter.placed):
        attempts -= 1
        painter.try_object(wanted)
    objects = painter.placed
    layers = [painter.owner == number for number in range(1, len(objects) + 1)]
    masks: dict[str, NDArray[np.bool_]] = {}
    boxes: dict[str, list[tuple[int, int, int, int]]] = {}
    for item, layer in zip(objects, layers, strict=True):
        box = _tight_box(layer, item.window)
        for word in item.kind.words:
            masks[word] = masks[word] | layer if word in masks else layer
            boxes.setdefault(word, []).append(box)
    image = _photographed(painter.pixels, rng)
    return Annotations(image, masks, boxes, _captions(objects, background.phrase, size, rng))


class _Painter:
    """Puts objects on a background one after the other, so that all remain visible."""

    def __init__(self, pixels: Field, rng: np.random.Generator) -> None:
        self.pixels = pixels
        self.owner = np.zeros(pixels.shape[:2], dtype=np.uint8)
        self.placed: list[Placed] = []
        self._visible: list[int] = []
        self._rng = rng
        self._shadows = bool(rng.random() < 0.35)
        self._light = float(rng.uniform(0, 2 * np.pi))
        self._lit = bool(rng.random() < 0.5)

    def _draw_kind(self) -> Kind:
        if self.placed and self._rng.random() < 0.3:
            return self.placed[-1].kind
        shape, colour = str(self._rng.choice(list(SHAPES))), str(self._rng.choice(list(COLOURS)))
        if self.placed and self._rng.random() < 0.15:
            shape = self.placed[-1].kind.shape
        plain = self._rng.random() < 0.45
        return Kind(shape, colour, "plain" if plain else str(self._rng.choice(PATTERNS)))

    def try_object(self, wanted: int) -> None:
        """Draw an object and keep it if nothing speaks against its place."""
        rng, size = self._rng, len(self.owner)
        kind = self._draw_kind()
        # a pattern needs some room to be seen
        least = max(SHAPES[kind.shape].smallest, 12 if kind.pattern == "plain" else 36)
        most = (180 if wanted <= 2 else 120) / 256
        low = np.log(max(least, 0.05 * size))
        diameter = float(np.exp(rng.uniform(low, max(low, np.log(most * size)))))
        cover = draw_shape(SHAPES[kind.shape], diameter, rng)
        height, width = cover.shape
        overhang = 0.15 if rng.random() < 0.15 else 0.0
        top = round(rng.uniform(-overhang * height, max(size - (1 - overhang) * height, 0)))
        left = round(rng.uniform(-overhang * width, max(size - (1 - overhang) * width, 0)))
        window = (
            slice(max(top, 0), min(top + height, size)),
            slice(max(left, 0), min(left + width, size)),
        )
        inside = (
            slice(window[0].start - top, window[0].stop - top),
            slice(window[1].start - left, window[1].stop - left),
        )
        mask = cover[inside] >= 0.5
        item = Placed(kind, diameter, int(np.count_nonzero(cover >= 0.5)), window)
        rgb = COLOURS[kind.colour].draw(rng)
        if self._fits(item, mask) and self._stands_out(rgb, window):
            self._paint(item, rgb, cover[inside], mask)

    def _fits(self, item: Placed, mask: NDArray[np.bool_]) -> bool:
        if np.count_nonzero(mask) < max(VISIBLE * item.area, SMALLEST_AREA):
            return False
        hidden = np.bincount(self.owner[item.window][mask], minlength=len(self.placed) + 1)[1:]
        return all(
            visible - gone >= max(VISIBLE * other.area, SMALLEST_AREA)
            for other, visible, gone in zip(self.placed, self._visible, hidden, strict=True)
        )

    def _stands_out(self, rgb: Field, window: tuple[slice, slice]) -> bool:
        # every third pixel of the window will do, but each object in it counts by itself
        below, pixels = self.owner[window][::3, ::3], self.pixels[window][::3, ::3]
        return all(
            float(np.linalg.norm(pixels[below == number].mean(0) - rgb)) >= CONTRAST
            for number in np.unique(below)
        )

    def _paint(self, item: Placed, rgb: Field, cover: Field, mask: NDArray[np.bool_]) -> None:
        rng, (height, width) = self._rng, cover.shape
        if self._shadows:
            self._cast_shadow(item, cover)
        if item.kind.pattern == "plain":
            surface = np.broadcast_to(rgb, (height, width, 3))
        else:
            period = float(np.clip(item.diameter * rng.uniform(0.11, 0.24), 5, 34))
            grid = Grid.turned(rng, height, width, period, rng.uniform(0, np.pi))
            pattern = MATERIALS[item.kind.pattern](grid)
            surface = vary(rgb, COLOURS[item.kind.colour], pattern)
        if self._lit:
            surface = surface * self._shading(height, width)[..., None]
        below = self.pixels[item.window]
        below += cover[..., None] * (surface - below)
        owner = self.owner[item.window]
        hidden = np.bincount(owner[mask], minlength=len(self.placed) + 1)[1:]
        self._visible = [a - int(b) for a, b in zip(self._visible, hidden, strict=True)]
        self.placed.append(item)
        self._visible.append(int(np.count_nonzero(mask)))
        owner[mask] = len(self.placed)

    def _shading(self, height: int, width: int) -> Field:
        """Light from one side: factors around 0.95, shape (H, W)."""
        y = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * np.float32(np.sin(self._light))
        x = np.linspace(-1, 1, width, dtype=np.float32)[None] * np.float32(np.cos(self._light))
        factor: Field = np.clip(np.float32(0.96) + np.float32(0.12) * (x + y), 0.78, 1.08)
        return factor

    def _cast_shadow(self, item: Placed, cover: Field) -> None:
        reach = max(2, round(item.diameter * 0.07))
        rows, columns = item.window
        dy, dx = (-round(reach * f(self._light)) for f in (np.sin, np.cos))
        top, left = rows.start + dy - 2 * reach, columns.start + dx - 2 * reach
        padded = np.pad((255 * cover).astype(np.uint8), 2 * reach)
        soft = np.asarray(Image.fromarray(padded).filter(ImageFilter.BoxBlur(reach)))
        size = len(self.owner)
        y0, y1 = max(top, 0), min(top + len(soft), size)
        x0, x1 = max(left, 0), min(left + soft.shape[1], size)
        shadow = soft[y0 - top : y1 - top, x0 - left : x1 - left].astype(np.float32)
        # objects keep their colour: a dark one of them would no longer be what it is called
        shadow *= self.owner[y0:y1, x0:x1] == 0
        self.pixels[y0:y1, x0:x1] *= 1 - np.float32(0.4 / 255) * shadow[..., None]


def _background(rng: np.random.Generator, size: int) -> Background:
    """One of six kinds of background."""
    name = str(rng.choice(list(COLOURS)))
    colour = COLOURS[name]
    rgb = colour.draw(rng)
    kind = str(
        rng.choice(
            ["flat", "gradient", "noise", "surface", "natural", "horizon"],
            p=[0.2, 0.12, 0.13, 0.2, 0.2, 0.15],
        )
    )
    if kind == "flat":
        return Background(np.full((size, size, 3), rgb, np.float32), article(f"{name} background"))
    if kind == "gradient":
        y, x = np.linspace(-1, 1, size, dtype=np.float32) * rng.uniform(-0.5, 0.5, (2, 1))
        slope = (y[:, None] + x[None]).astype(np.float32)
        return Background(vary(rgb, colour, 2 * slope), article(f"{name} background"))
    if kind == "noise":
        field = smooth_noise(rng, size, size, size * float(rng.uniform(0.06, 0.3)))
        return Background(
            vary(rgb, colour, np.clip(field * 0.6, -1, 1)), article(f"{name} background")
        )
    if kind == "surface":
        pattern = str(rng.choice(SURFACES))
        period = float(rng.uniform(0.04, 0.16)) * size
        field = MATERIALS[pattern](
            Grid.turned(rng, size, size, period, rng.choice([0.0, np.pi / 2, rng.uniform(0, 3)]))
        )
        pixels = vary(rgb, colour, np.float32(rng.uniform(0.5, 1)) * field)
        return Background(pixels, article(f"{name} {pattern} background"))
    if kind == "natural":
        return Background(_natural(rng, size, size), "a textured background")
    split = int(size * rng.uniform(0.3, 0.7))
    sky = np.clip(_natural(rng, split, size, contrast=0.05), 0, 1)
    ground = _natural(rng, size - split, size)
    return Background(np.concatenate([sky, ground]), "a textured background")


def _natural(
    rng: np.random.Generator, height: int, width: int, contrast: float | None = None
) -> Field:
    """Noise with the spectrum and the muted colours of photographs, RGB, shape (H, W, 3)."""
    contrast = float(rng.uniform(0.08, 0.22)) if contrast is None else contrast
    light = fractal_noise(rng, height, width, power=float(rng.uniform(0.6, 1.2)))
    hue = smooth_noise(rng, height, width, width / 5)
    base = (rng.uniform(0.2, 0.8) + rng.uniform(-0.15, 0.15, 3)).astype(np.float32)
    tint = rng.uniform(-0.08, 0.08, 3).astype(np.float32)
    gain = np.float32(contrast) * rng.uniform(0.8, 1.2, 3).astype(np.float32)
    pixels: Field = np.clip(base + light[..., None] * gain + hue[..., None] * tint, 0, 1)
    return pixels


def _photographed(pixels: Field, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Eight bits, sometimes with the noise and blur of a camera."""
    if rng.random() < 0.3:
        noise = rng.standard_normal(pixels.shape[:2], dtype=np.float32)
        pixels = pixels + np.float32(rng.uniform(0.005, 0.03)) * noise[..., None]
    image = (np.clip(pixels, 0, 1) * 255 + np.float32(0.5)).astype(np.uint8)
    if rng.random() < 0.2:
        blur = ImageFilter.GaussianBlur(float(rng.uniform(0.3, 0.8)))
        image = np.asarray(Image.fromarray(image).filter(blur))
    return image


def _tight_box(layer: NDArray[np.bool_], window: tuple[slice, slice]) -> tuple[int, int, int, int]:
    piece = layer[window]
    rows, columns = (np.flatnonzero(piece.any(axis)) for axis in (1, 0))
    top, left = window[0].start, window[1].start
    return (
        top + int(rows[0]), left + int(columns[0]),
        top + int(rows[-1]) + 1, left + int(columns[-1]) + 1,
    )  # fmt: skip


def _captions(
    objects: Sequence[Placed], background: str, size: int, rng: np.random.Generator
) -> tuple[str, ...]:
    """One to three true sentences."""
    colour, pattern = bool(rng.random() < 0.8), bool(rng.random() < 0.7)
    template = str(rng.choice(["{} on {}", "a picture of {} on {}", "{} in front of {}"]))
    captions = [template.format(_enumerated(objects, colour, pattern), background)]
    if rng.random() < 0.4:
        captions.append(_enumerated(objects, True, True))
    if len(objects) > 1 and rng.random() < 0.6:
        first, second = rng.choice(len(objects), 2, replace=False)
        relation = _relation(objects[first], objects[second])
        if relation:
            a, b = (_sized(objects[i], objects, size, colour, pattern) for i in (first, second))
            captions.append(f"{article(a)} {relation} {article(b)}")
    return tuple(dict.fromkeys(captions))


def _enumerated(objects: Sequence[Placed], colour: bool, pattern: bool) -> str:
    """All objects, those that are described alike together."""
    groups = Counter(item.kind.describe(colour, pattern) for item in objects)
    return listed([counted(n, name, plural(name)) for name, n in groups.items()])


def _relation(a: Placed, b: Placed) -> str | None:
    """How ``a`` lies to ``b``, if that is beyond doubt."""
    (ay, ax), (by, bx) = a.centre, b.centre
    dy, dx, gap = ay - by, ax - bx, (a.diameter + b.diameter) / 2
    if max(abs(dy), abs(dx)) < gap or min(abs(dy), abs(dx)) > 0.6 * max(abs(dy), abs(dx)):
        return None
    if abs(dy) > abs(dx):
        return "below" if dy > 0 else "above"
    return "to the right of" if dx > 0 else "to the left of"


def _sized(item: Placed, objects: Sequence[Placed], size: int, colour: bool, pattern: bool) -> str:
    """Description with "large" or "small" where that is true by any measure."""
    same = [o.diameter for o in objects if o.kind.shape == item.kind.shape]
    name = item.kind.describe(colour, pattern)
    if item.diameter >= CLEARLY * min(same) or item.diameter >= BIG * size:
        return f"large {name}"
    if item.diameter * CLEARLY <= max(same) or item.diameter <= SMALL * size:
        return f"small {name}"
    return name
