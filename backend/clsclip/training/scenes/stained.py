"""Stained sections: dyes absorb what the slide lets through."""

from __future__ import annotations

from typing import Final

import numpy as np

from clsclip.training.scenes.picture import Picture, seen
from clsclip.training.scenes.plate import Structure, centred_in
from clsclip.training.scenes.structures import CellParts, nuclei, sheet, tissue, vessels
from clsclip.training.scenes.textures import Field, fractal_noise, smooth_noise

STAINS: Final = np.array(
    [[0.65, 0.70, 0.29], [0.10, 0.90, 0.35], [0.27, 0.57, 0.78]], dtype=np.float32
)
"""Optical density of haematoxylin, eosin, and the brown diaminobenzidine in red, green, blue."""

LABELLED: Final = {"nucleus": 0.2, "membrane": 0.2, "vessel": 0.2, "cytoplasm": 0.4}
"""What the brown label is bound to, and how often; most antibodies bind outside of nuclei."""


def stained_section(rng: np.random.Generator, size: int) -> Picture:
    """Sections on a bright slide: haematoxylin and eosin, or blue nuclei with a brown label."""
    region = tissue(rng, size)
    inside = region.labels > 0
    brown: Structure | None = None
    clouds: Field | None = None
    brown_nuclei = np.zeros(256, dtype=bool)
    eosin = bool(rng.random() < 0.55)
    parts: list[Structure] = [region]
    label = "nucleus" if eosin else str(rng.choice(list(LABELLED), p=list(LABELLED.values())))
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
        elif label == "cytoplasm":
            clouds = _clouds(rng, size) * region.cover
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
    if clouds is not None:  # a nucleus keeps most of it out
        dab += depth * clouds * (1 - np.float32(rng.uniform(0.5, 1.0)) * stained.cover)
    stains = np.stack([blue, np.float32(rng.uniform(*eosin_depth)) * matrix, dab], axis=-1)
    density = stains @ STAINS
    slide = rng.uniform(0.9, 0.98) * rng.uniform([0.98, 0.98, 0.96], 1.02)
    pixels = slide.astype(np.float32) * np.exp(-density)
    return Picture(
        pixels, seen(parts), "H&E" if eosin else "immunohistochemistry", (),
        float(rng.uniform(0.3, 0.9)), float(rng.uniform(0.004, 0.02)),
    )  # fmt: skip


def _clouds(rng: np.random.Generator, size: int) -> Field:
    """Amount of a label that fills the cytoplasm of many cells: blotches that name no object."""
    coarse = smooth_noise(rng, size, size, size / float(np.exp(rng.uniform(np.log(3), np.log(16)))))
    fine = fractal_noise(rng, size, size, power=float(rng.uniform(0.4, 1.0)))
    level, steepness = float(rng.uniform(-0.5, 0.9)), float(rng.uniform(1.5, 5))
    filled = 1 / (1 + np.exp(-steepness * (coarse - level)))
    grain = np.clip(1 + float(rng.uniform(0.1, 0.4)) * fine, 0.2, 1.8)
    return np.asarray(filled * grain, dtype=np.float32)
