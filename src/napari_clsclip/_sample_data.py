"""Sample images that need no network: they come with scikit-image.

Each function returns the list of layers that napari's sample-data contribution asks for; the
word to type stands in the display name in the manifest.
"""

from __future__ import annotations

from typing import Any

import skimage.data

LayerDataTuple = tuple[Any, dict[str, Any], str]


def cell() -> list[LayerDataTuple]:
    """Load a phase image of one cell, uint8, 660 x 550."""
    return _layers("cell", "cell")


def tissue() -> list[LayerDataTuple]:
    """Load colon tissue with nuclei stained blue, uint8 RGB, 512 x 512."""
    return _layers("immunohistochemistry", "tissue")


def _layers(function: str, name: str) -> list[LayerDataTuple]:
    return [(getattr(skimage.data, function)(), {"name": name}, "image")]
