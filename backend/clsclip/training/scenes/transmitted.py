"""Transmitted light: structures darken, refract or bend what comes through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage

from clsclip.training.scenes.picture import Picture, seen, simple
from clsclip.training.scenes.plate import Structure
from clsclip.training.scenes.structures import cells
from clsclip.training.scenes.textures import Field, fractal_noise, softened

TRANSMITTED: Final[tuple[tuple[str, ...], ...]] = (
    ("bacterium",), ("filament",), ("filament", "bacterium"), ("vessel",),
    ("crystal",), ("bubble",), ("bubble", "crystal"), ("pollen",), ("pollen", "bubble"),
    ("spot", "filament"),
)  # fmt: skip
"""Structures that are seen together without labels, beside whole cells."""


@dataclass(frozen=True)
class Appearance:
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


def _appearance(word: str, phase: bool, rng: np.random.Generator) -> Appearance:
    grey = np.ones(1, dtype=np.float32)
    if word == "vessel":
        return Appearance(
            float(rng.uniform(0.3, 0.5)), 0.05, 0.0, np.array([0.45, 1, 0.9], np.float32)
        )
    if word == "pollen":
        warm = np.array([0.35, 0.6, 1.1], np.float32)
        return Appearance(float(rng.uniform(0.4, 0.6)), 0.4, 0.05, warm)
    if word == "bubble":
        return Appearance(-0.08, float(rng.uniform(0.7, 1.0)), 0.05, grey)
    if word == "crystal":
        return Appearance(float(rng.uniform(-0.2, -0.12)), float(rng.uniform(0.6, 0.9)), 0.1, grey)
    if word == "bacterium" and not phase and rng.random() < 0.5:
        gram = [[0.5, 1.0, 0.35], [0.15, 0.9, 0.6]][int(rng.integers(2))]
        return Appearance(float(rng.uniform(0.5, 0.8)), 0.1, 0.0, np.array(gram, np.float32))
    if phase:
        return Appearance(float(rng.uniform(0.25, 0.45)), 0.15, float(rng.uniform(0.3, 0.6)), grey)
    if word in {"cell", "nucleus"}:
        return Appearance(float(rng.uniform(0.06, 0.15)), float(rng.uniform(0.4, 0.7)), 0.15, grey)
    return Appearance(float(rng.uniform(0.3, 0.5)), float(rng.uniform(0.2, 0.5)), 0.15, grey)


def transmitted(rng: np.random.Generator, size: int) -> Picture:
    """Darker structures on an even bright background: brightfield, phase contrast or DIC."""
    if rng.random() < 0.35:
        parts = cells(rng, size)
        structures = seen([parts.cells, parts.nuclei] if rng.random() < 0.7 else [parts.cells])
    else:
        structures = seen(simple(TRANSMITTED[int(rng.integers(len(TRANSMITTED)))], rng, size))
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
        look = _appearance(structure.word, method == "phase contrast", rng)
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
