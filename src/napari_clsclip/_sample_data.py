"""Sample images that need no network: they come with scikit-image.

Each function returns the list of layers that napari's sample-data contribution asks for; the
word to type stands in the display name in the manifest.
"""

from __future__ import annotations

from typing import Any

import skimage.data

LayerDataTuple = tuple[Any, dict[str, Any], str]


def tissue() -> list[LayerDataTuple]:
    """Load colon tissue with nuclei stained blue, uint8 RGB, 512 x 512."""
    return _layers("immunohistochemistry", "tissue")


def cell() -> list[LayerDataTuple]:
    """Load a phase image of one cell, uint8, 660 x 550."""
    return _layers("cell", "cell")


def retina() -> list[LayerDataTuple]:
    """Load the fundus of an eye, uint8 RGB, 1411 x 1411."""
    return _layers("retina", "retina")


def coins() -> list[LayerDataTuple]:
    """Load a photo of Greek coins from Pompeii, uint8, 303 x 384."""
    return _layers("coins", "coins")


def galaxies() -> list[LayerDataTuple]:
    """Load the Hubble eXtreme Deep Field, uint8 RGB, 872 x 1000."""
    return _layers("hubble_deep_field", "galaxies")


def cat() -> list[LayerDataTuple]:
    """Load a photo of a cat called Chelsea, uint8 RGB, 300 x 451."""
    return _layers("chelsea", "cat")


def coffee() -> list[LayerDataTuple]:
    """Load a photo of a cup of coffee, uint8 RGB, 400 x 600."""
    return _layers("coffee", "coffee")


def astronaut() -> list[LayerDataTuple]:
    """Load a portrait of Eileen Collins, uint8 RGB, 512 x 512."""
    return _layers("astronaut", "astronaut")


def _layers(function: str, name: str) -> list[LayerDataTuple]:
    return [(getattr(skimage.data, function)(), {"name": name}, "image")]
