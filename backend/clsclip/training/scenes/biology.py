"""Biological scenes: structures in fluorescence, in transmitted light, and in stained sections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy import ndimage

from clsclip.training.scenes.fluorescence import fluorescence
from clsclip.training.scenes.picture import Picture
from clsclip.training.scenes.plate import Structure, typical_diameter
from clsclip.training.scenes.stained import stained_section
from clsclip.training.scenes.textures import smooth_noise
from clsclip.training.scenes.transmitted import transmitted
from clsclip.training.scenes.wording import Annotations, article, counted, listed
from clsclip.words import spellings

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
        fluorescence, transmitted, stained_section,
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
