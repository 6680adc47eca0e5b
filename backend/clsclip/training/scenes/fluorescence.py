"""Fluorescence: labelled structures glow on a dark background."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from clsclip.training.scenes.picture import Picture, seen, simple
from clsclip.training.scenes.plate import Structure
from clsclip.training.scenes.structures import cells, sheet
from clsclip.training.scenes.textures import smooth_noise, softened

FLUORESCENT: Final[tuple[tuple[str, ...], ...]] = (
    ("nucleus",), ("nucleus", "filament"), ("nucleus", "spot"), ("nucleus", "filament", "spot"),
    ("filament",), ("filament", "spot"), ("vessel",), ("vessel", "nucleus"), ("vessel", "spot"),
    ("spot",), ("bacterium",), ("bacterium", "filament"), ("pollen",),
)  # fmt: skip
"""Structures that are labelled together, beside whole cells."""

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


@dataclass(frozen=True)
class Labelled:
    """What glows in a fluorescence image, and the nuclei that show as holes in it."""

    bright: tuple[Structure, ...]
    dark: tuple[Structure, ...] = ()


def _labelled(rng: np.random.Generator, size: int) -> Labelled:
    chance = rng.random()
    if chance < 0.6:
        return Labelled(seen(simple(FLUORESCENT[int(rng.integers(len(FLUORESCENT)))], rng, size)))
    if chance < 0.8:
        parts = cells(rng, size)
        inside = rng.random()
        # with neither nucleus nor rim, a cell could as well be a nucleus
        rims = (parts.rims,) if inside >= 0.85 or rng.random() < 0.4 else ()
        if inside < 0.65:
            return Labelled(seen([parts.cells, parts.nuclei, *rims]))
        return Labelled(seen([parts.cells, *rims]), seen([parts.nuclei] if inside < 0.85 else []))
    parts = sheet(rng, size)
    # the bodies of the cells stay about as dark as the background, but they are there
    bodies = replace(parts.cells, strength=parts.cells.strength * np.float32(0.25))
    centres = (parts.nuclei,) if rng.random() < 0.5 else ()
    return Labelled(seen([bodies, parts.rims, *centres]))


def fluorescence(rng: np.random.Generator, size: int) -> Picture:
    """Bright structures on a dark background, in grey or in the colours of channels."""
    labelled = _labelled(rng, size)
    while not labelled.bright:  # by chance nothing came to lie in the picture
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
