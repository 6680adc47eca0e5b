"""Biological scenes: structures in fluorescence, in transmitted light, and in stained sections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy import ndimage

from clsclip.training.scenes.plate import Structure, centred_in, typical_diameter
from clsclip.training.scenes.structures import (
    SIMPLE,
    CellParts,
    cells,
    nuclei,
    sheet,
    tissue,
    vessels,
)
from clsclip.training.scenes.textures import Field, fractal_noise, smooth_noise, softened
from clsclip.training.scenes.wording import Annotations, article, counted, listed
from clsclip.training.words import spellings

WORDS: Final = (
    "nucleus", "cell", "filament", "vessel", "membrane", "spot", "bacterium", "tissue",
    "crystal", "bubble", "pollen",
)  # fmt: skip
"""Class words of microscopy."""

_NOUNS: Final = {
    "bacterium": ("bacterium", "bacteria"),
    "pollen": ("pollen grain", "pollen grains"),
}
"""Singular and plural in captions, where they are not the usual ones."""

_COUNTABLE: Final = frozenset({"nucleus", "cell", "bacterium", "crystal", "bubble", "spot"})
"""Words whose objects are told apart well enough to count them."""

FLUORESCENT: Final[tuple[tuple[str, ...], ...]] = (
    ("nucleus",), ("nucleus", "filament"), ("nucleus", "spot"), ("nucleus", "filament", "spot"),
    ("filament",), ("filament", "spot"), ("vessel",), ("vessel", "nucleus"), ("vessel", "spot"),
    ("spot",), ("bacterium",), ("bacterium", "filament"), ("pollen",),
)  # fmt: skip
"""Structures that are labelled together, beside whole cells."""

TRANSMITTED: Final[tuple[tuple[str, ...], ...]] = (
    ("bacterium",), ("filament",), ("filament", "bacterium"), ("vessel",),
    ("crystal",), ("bubble",), ("bubble", "crystal"), ("pollen",), ("pollen", "bubble"),
    ("spot", "filament"),
)  # fmt: skip
"""Structures that are seen together without labels, beside whole cells."""

DYES: Final[dict[str, tuple[float, float, float]]] = {
    "blue": (0.15, 0.35, 1.0),
    "green": (0.15, 1.0, 0.2),
    "red": (1.0, 0.18, 0.12),
    "magenta": (1.0, 0.15, 0.95),
    "cyan": (0.1, 0.95, 1.0),
    "yellow": (1.0, 0.9, 0.1),
}
"""Pseudo-colours of fluorescence channels, RGB."""

GLOW: Final = {"cell": 0.4, "nucleus": 0.7, "spot": 1.0, "filament": 0.75, "membrane": 0.85}
"""Brightness of labelled structures, so that they stand out from those they lie on."""

STAINS: Final = np.array(
    [[0.65, 0.70, 0.29], [0.10, 0.90, 0.35], [0.27, 0.57, 0.78]], dtype=np.float32
)
"""Optical density of haematoxylin, eosin, and the brown diaminobenzidine in red, green, blue."""


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


def biological_scene(rng: np.random.Generator, size: int) -> Annotations:
    """A scene as under a microscope.

    Parameters
    ----------
    rng : numpy Generator
    size : int
        S, side of the image in pixels.

    Returns
    -------
    Annotations
        With a diameter.
    """
    draw: Callable[[np.random.Generator, int], Picture] = (
        _fluorescence, _transmitted, _stained,
    )[int(rng.choice(3, p=[0.45, 0.3, 0.25]))]  # fmt: skip
    picture = draw(rng, size)
    while not picture.structures:
        picture = draw(rng, size)
    masks: dict[str, NDArray[np.bool_]] = {}
    boxes: dict[str, list[tuple[int, int, int, int]]] = {}
    for structure in picture.structures:
        mask = structure.labels > 0
        word = structure.word
        masks[word] = masks[word] | mask if word in masks else mask
        boxes.setdefault(word, []).extend(
            (rows.start, columns.start, rows.stop, columns.stop)
            for rows, columns in filter(None, ndimage.find_objects(structure.labels))
        )
    return Annotations(
        _exposed(picture, rng), masks, boxes, _captions(picture, rng),
        typical_diameter(picture.structures),
    )  # fmt: skip


def _exposed(picture: Picture, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Blurred by optics, unevenly lit, noisy, in eight bits."""
    pixels = picture.pixels
    if rng.random() < 0.5:
        light = smooth_noise(rng, len(pixels), len(pixels), len(pixels) / 1.5)
        pixels = pixels * np.clip(1 + np.float32(0.12) * light, 0.6, 1.08)[..., None]
    bits = (np.clip(pixels, 0, 1) * np.float32(255)).astype(np.uint8)
    image = Image.fromarray(bits if bits.shape[2] == 3 else bits[..., 0])
    sharp = np.asarray(image.filter(_lens(picture.blur)), dtype=np.float32)
    sharp = sharp.reshape(bits.shape)
    noise = rng.standard_normal(bits.shape[:2], dtype=np.float32)
    if rng.random() < 0.5:
        # photons are counted: bright pixels are the noisier ones
        noise *= np.sqrt(sharp.mean(-1) / 255 + np.float32(0.1)) * np.float32(1.5)
    noisy = sharp + np.float32(255 * picture.noise) * noise[..., None]
    exposed = np.clip(noisy + np.float32(0.5), 0, 255).astype(np.uint8)
    return exposed if exposed.shape[2] == 3 else np.repeat(exposed, 3, axis=2)


def _lens(blur: float) -> ImageFilter.Filter:
    """A Gaussian filter; where it hardly reaches beyond the next pixel, a fast one."""
    if blur > 0.7:
        return ImageFilter.GaussianBlur(blur)
    side = np.exp(-0.5 / blur**2)
    weights = np.outer([side, 1, side], [side, 1, side]).ravel()
    return ImageFilter.Kernel((3, 3), weights.tolist(), float(weights.sum()))


def _simple(words: Sequence[str], rng: np.random.Generator, size: int) -> list[Structure]:
    return [SIMPLE[word](rng, size) for word in words]


def _seen(structures: Sequence[Structure]) -> tuple[Structure, ...]:
    return tuple(structure for structure in structures if structure.visible)


@dataclass(frozen=True)
class Labelled:
    """What glows in a fluorescence image, and the nuclei that show as holes in it."""

    bright: tuple[Structure, ...]
    dark: tuple[Structure, ...] = ()


def _labelled(rng: np.random.Generator, size: int) -> Labelled:
    chance = rng.random()
    if chance < 0.6:
        return Labelled(_seen(_simple(FLUORESCENT[int(rng.integers(len(FLUORESCENT)))], rng, size)))
    if chance < 0.8:
        parts = cells(rng, size)
        inside = rng.random()
        # with neither nucleus nor rim, a cell could as well be a nucleus
        rims = (parts.rims,) if inside >= 0.85 or rng.random() < 0.4 else ()
        if inside < 0.65:
            return Labelled(_seen([parts.cells, parts.nuclei, *rims]))
        return Labelled(_seen([parts.cells, *rims]), _seen([parts.nuclei] if inside < 0.85 else []))
    parts = sheet(rng, size)
    # the bodies of the cells stay about as dark as the background, but they are there
    bodies = replace(parts.cells, strength=parts.cells.strength * np.float32(0.25))
    centres = (parts.nuclei,) if rng.random() < 0.5 else ()
    return Labelled(_seen([bodies, parts.rims, *centres]))


def _fluorescence(rng: np.random.Generator, size: int) -> Picture:
    """Bright structures on a dark background, in grey or in the colours of channels."""
    labelled = _labelled(rng, size)
    structures = labelled.bright
    style = rng.random()
    names: list[str] = []
    if style < 0.45:
        tints = [np.ones(1, dtype=np.float32)] * len(structures)
    else:
        names = [str(n) for n in rng.choice(list(DYES), len(structures), replace=False)]
        if style < 0.6:
            names = names[:1] * len(structures)
        tints = [np.array(DYES[name], dtype=np.float32) for name in names]
    gain = float(rng.uniform(0.55, 1.15))
    light = np.full((size, size, len(tints[0])), rng.uniform(0.0, 0.1), dtype=np.float32)
    for structure, tint in zip(structures, tints, strict=True):
        glow = np.float32(gain * GLOW.get(structure.word, 0.8))
        if structure.word == "nucleus" and any(s.word == "spot" for s in structures):
            glow *= np.float32(0.6)
        strength = structure.strength
        if structure.word == "cell":
            for hole in labelled.dark:
                strength = strength * (1 - np.float32(0.75) * hole.cover)
        light += (glow * strength)[..., None] * tint
    if labelled.dark:
        structures, names = (*structures, *labelled.dark), []
    if rng.random() < 0.4:
        haze = softened(light.max(-1), 16)
        light += np.float32(rng.uniform(0.05, 0.25)) * haze[..., None] * tints[0]
    if rng.random() < 0.25:
        # light from other depths: too faint and too soft to be anything
        out_of_focus = np.maximum(smooth_noise(rng, size, size, size / 9), 0)
        light += np.float32(0.04) * out_of_focus[..., None] * tints[0]
    thin = any(structure.diameter < 12 for structure in structures)
    return Picture(
        light, structures, "fluorescence", tuple(names),
        float(rng.uniform(0.3, 0.8 if thin else 1.5)), float(rng.uniform(0.008, 0.05)),
    )  # fmt: skip


@dataclass(frozen=True)
class Look:
    """How transmitted light shows a structure.

    Attributes
    ----------
    body, edge, halo : float
        Darkness of the inside and of the border, brightness around it.
    tint : ndarray of float32, shape (3,) or (1,)
        How much of the darkness red, green and blue get.
    """

    body: float
    edge: float
    halo: float
    tint: Field


def _look(word: str, phase: bool, rng: np.random.Generator) -> Look:
    grey = np.ones(1, dtype=np.float32)
    if word == "vessel":
        return Look(float(rng.uniform(0.3, 0.5)), 0.05, 0.0, np.array([0.45, 1, 0.9], np.float32))
    if word == "pollen":
        warm = np.array([0.35, 0.6, 1.1], np.float32)
        return Look(float(rng.uniform(0.4, 0.6)), 0.4, 0.05, warm)
    if word == "bubble":
        return Look(-0.08, float(rng.uniform(0.7, 1.0)), 0.05, grey)
    if word == "crystal":
        return Look(float(rng.uniform(-0.2, -0.12)), float(rng.uniform(0.6, 0.9)), 0.1, grey)
    if word == "bacterium" and not phase and rng.random() < 0.5:
        gram = [[0.5, 1.0, 0.35], [0.15, 0.9, 0.6]][int(rng.integers(2))]
        return Look(float(rng.uniform(0.5, 0.8)), 0.1, 0.0, np.array(gram, np.float32))
    if phase:
        return Look(float(rng.uniform(0.25, 0.45)), 0.15, float(rng.uniform(0.3, 0.6)), grey)
    if word in {"cell", "nucleus"}:
        return Look(float(rng.uniform(0.06, 0.15)), float(rng.uniform(0.4, 0.7)), 0.15, grey)
    return Look(float(rng.uniform(0.3, 0.5)), float(rng.uniform(0.2, 0.5)), 0.15, grey)


def _transmitted(rng: np.random.Generator, size: int) -> Picture:
    """Darker structures on an even bright background: brightfield, phase contrast or DIC."""
    if rng.random() < 0.35:
        parts = cells(rng, size)
        structures = _seen([parts.cells, parts.nuclei] if rng.random() < 0.7 else [parts.cells])
    else:
        structures = _seen(_simple(TRANSMITTED[int(rng.integers(len(TRANSMITTED)))], rng, size))
    words = {structure.word for structure in structures}
    # what is known by its colour or by its dark rim is shown in plain brightfield only
    method = "brightfield"
    if not words & {"vessel", "pollen", "bubble", "crystal"}:
        method = str(rng.choice(["brightfield", "phase contrast", "DIC"]))
    light = float(rng.uniform(0.6, 0.92) if method == "brightfield" else rng.uniform(0.42, 0.6))
    warmth = np.ones(1, dtype=np.float32)
    if method == "brightfield" and rng.random() < 0.6:
        warmth = rng.uniform([0.95, 0.9, 0.72], [1.05, 1.0, 1.0]).astype(np.float32)
    if "vessel" in words:
        light, warmth = 0.8, rng.uniform([1, 0.6, 0.35], [1.1, 0.85, 0.75]).astype(np.float32)
    pixels = np.full((size, size, len(warmth)), light, dtype=np.float32) * warmth
    pixels += np.float32(0.012) * fractal_noise(rng, size, size)[..., None]
    angle = rng.uniform(0, 2 * np.pi)
    for structure in structures:
        if method == "DIC":
            pixels += _relief(structure, angle)[..., None]
            continue
        look = _look(structure.word, method == "phase contrast", rng)
        reach = int(np.clip(structure.diameter / 10, 2, 6))
        soft = softened(structure.cover, reach)
        dark = look.body * structure.strength + look.edge * structure.cover * (1 - soft)
        halo = look.halo * np.maximum(soft - structure.cover, 0)
        pixels = pixels * (1 - dark[..., None] * look.tint) + np.float32(light) * halo[..., None]
        if structure.word == "bubble":
            # a bubble is a lens: light gathers in its middle
            pixels += np.float32(0.5) * (np.maximum(soft, 0.8) - np.float32(0.8))[..., None]
    return Picture(
        pixels, structures, method, (), float(rng.uniform(0.3, 0.8)),
        float(rng.uniform(0.005, 0.025)),
    )  # fmt: skip


def _relief(structure: Structure, angle: float) -> Field:
    """Brightness by slope, as if lit from one side."""
    reach = float(np.clip(structure.diameter / 12, 0.8, 3.0))
    height = ndimage.gaussian_filter(structure.strength, reach, truncate=2.0)
    slope_y, slope_x = np.gradient(height)
    slope = np.float32(np.sin(angle)) * slope_y + np.float32(np.cos(angle)) * slope_x
    depth = 0.5 if structure.word == "nucleus" else 0.8
    return np.float32(depth * reach) * slope + np.float32(0.06) * height


def _stained(rng: np.random.Generator, size: int) -> Picture:
    """Sections on a bright slide: haematoxylin and eosin, or blue nuclei with a brown label."""
    region = tissue(rng, size)
    inside = region.labels > 0
    brown: Structure | None = None
    brown_nuclei = np.zeros(256, dtype=bool)
    eosin = bool(rng.random() < 0.55)
    parts: list[Structure] = [region]
    label = "nucleus" if eosin else str(rng.choice(["nucleus", "membrane", "vessel"]))
    if label == "membrane":
        layer: CellParts = sheet(rng, size)
        brown = layer.rims.within(inside)
        stained = layer.nuclei.within(inside)
        parts += [layer.cells.within(inside), brown, stained]
    else:
        radius = size / 256 * float(np.exp(rng.uniform(np.log(3.2), np.log(13))))
        filling = float(rng.uniform(0.1, 0.3))
        stained = centred_in(nuclei(rng, size, radius=radius, filling=filling), inside)
        parts.append(stained)
        if label == "vessel":
            brown = vessels(rng, size).within(inside)
            parts.append(brown)
        elif not eosin:
            brown_nuclei = rng.random(256) < rng.uniform(0.2, 0.7)
    fibres = fractal_noise(rng, size, size, power=float(rng.uniform(0.3, 0.8)))
    fibres += smooth_noise(rng, size, size, size / 6)
    matrix = region.cover * np.clip(1 + np.float32(0.28) * fibres, 0.5, 2.0)
    depth = np.float32(rng.uniform(0.9, 1.5))
    chromatin = depth * stained.strength
    is_brown = brown_nuclei[stained.labels]
    eosin_depth, blue_depth = (0.35, 0.6), (0.0, 0.15)
    if not eosin:
        eosin_depth, blue_depth = (0.0, 0.0), (0.16, 0.28)
    blue = chromatin * ~is_brown + np.float32(rng.uniform(*blue_depth)) * matrix
    dab = chromatin * is_brown
    if brown is not None:
        dab += depth * brown.strength
    stains = np.stack([blue, np.float32(rng.uniform(*eosin_depth)) * matrix, dab], axis=-1)
    density = stains @ STAINS
    slide = rng.uniform(0.9, 0.98) * rng.uniform([0.98, 0.98, 0.96], 1.02)
    pixels = slide.astype(np.float32) * np.exp(-density)
    return Picture(
        pixels, _seen(parts), "H&E" if eosin else "immunohistochemistry", (),
        float(rng.uniform(0.3, 0.9)), float(rng.uniform(0.004, 0.02)),
    )  # fmt: skip


def _named(structure: Structure, colour: str = "") -> str:
    """Noun phrase for the objects of a structure, with their number where they are few."""
    word = structure.word
    names = _NOUNS.get(word, spellings(word)[:2])
    singular, several = (f"{colour} {name}".strip() for name in names)
    if word == "tissue":
        return "tissue"
    if structure.count <= (5 if word in _COUNTABLE else 1) and word != "membrane":
        return counted(structure.count, singular, several)
    if structure.count > 30 and word in _COUNTABLE:
        return f"many {several}"
    return several


def _captions(picture: Picture, rng: np.random.Generator) -> tuple[str, ...]:
    """One to three true sentences."""
    plain = [_named(structure) for structure in picture.structures]
    if picture.method in {"H&E", "immunohistochemistry"}:
        others = listed(plain[1:]) if len(plain) > 1 else "no nuclei"
        if picture.method == "H&E":
            captions = [
                f"an H&E stained tissue with {others}",
                f"{others} in tissue, haematoxylin and eosin",
            ]
        else:
            captions = [f"{others} in tissue, immunohistochemistry"]
            captions.append(f"a stained tissue section with {others}")
    else:
        things = listed(plain)
        captions = [
            f"{article(picture.method)} image of {things}",
            f"{things}, {picture.method} microscopy",
        ]
    order = rng.permutation(len(captions))[: int(rng.integers(1, len(captions) + 1))]
    chosen = [captions[i] for i in order]
    if picture.colours:
        coloured = [_named(s, c) for s, c in zip(picture.structures, picture.colours, strict=True)]
        chosen.append(f"{listed(coloured)} on a dark background")
    return tuple(chosen)
