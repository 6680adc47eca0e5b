"""How a result layer looks: its colours, its table, what it says about itself."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray

from clsclip.config import InstanceSettings
from napari_clsclip._layers import Plane
from napari_clsclip._placement import Placement
from napari_clsclip._predicted_objects import PredictedObjects, Table
from napari_clsclip._predicted_plane import PredictedPlane

METADATA_KEY: Final = "clsclip"
"""Key of ``layer.metadata`` under which a result says how it was made."""

OPACITY: Final = 0.5

_FIRST_COLORS: Final = (
    "#1df26a",
    "#ff3ea5",
    "#ffd60a",
    "#00c8ff",
    "#ff7a1a",
    "#9d7bff",
    "#ff4d4d",
    "#00e0c0",
)


def new_layer(
    labels: NDArray[Any] | Sequence[Any],
    placement: Placement,
    words: tuple[str, ...],
    objects: Table | None,
) -> Labels:
    """Make a label layer that lies where the image does.

    Parameters
    ----------
    labels : ndarray of int, or sequence of arrays of int
        Class ids, or ids of objects, of the whole image; or several resolution levels of it.
    placement : Placement
        Where the pixels of the image lie in the world.
    words : tuple of str
    objects : Table, optional
        Table of the objects, if the layer holds their ids.
    """
    features: Table
    if objects is None:
        colors = [*enumerate(class_colors(len(words)), 1), (None, "white"), (0, "transparent")]
        colormap = DirectLabelColormap(color_dict=dict(colors))
        features = {"index": np.arange(1, len(words) + 1), "class": np.array(words)}
    else:
        colormap = None  # napari's own, in which neighbouring ids differ
        features = objects
    return Labels(
        labels,
        name=", ".join(words),
        **placement.arguments(),
        opacity=OPACITY,
        colormap=colormap,
        features=features,
    )


def metadata(
    plane: Plane, predicted: PredictedPlane | PredictedObjects, threshold: float
) -> dict[str, Any]:
    """How a layer was made, in plain types, so that it can be written as JSON."""
    found = predicted.segmentation
    objects = predicted.settings if isinstance(predicted, PredictedObjects) else None
    return {
        **about_labels(found.words, found.model, threshold, plane.image, objects),
        "model_version": found.model_version,
        "zooms": list(found.zooms),
    }


def about_labels(
    words: Sequence[str],
    model: str,
    threshold: float,
    image: str,
    objects: InstanceSettings | None,
) -> dict[str, Any]:
    """What is known of all labels that the plugin shows, also of those read from a file."""
    about = {"words": list(words), "model": model, "threshold": threshold, "image": image}
    if objects is None:
        return {**about, "classes": dict(enumerate(words, start=1))}
    return {**about, "objects": objects.model_dump()}


def class_colors(count: int) -> list[Any]:
    """Choose colours that differ from each other and stand out on grey and on stained tissue.

    Returns
    -------
    list of ``count`` str or tuple of 3 float in [0, 1]
    """
    colors: list[Any] = list(_FIRST_COLORS[:count])
    for k in range(len(colors), count):
        hue = (k * 0.618034) % 1.0  # the golden ratio spreads any number of hues evenly
        colors.append(colorsys.hsv_to_rgb(hue, 0.55 + 0.3 * (k % 2), 1.0 - 0.2 * (k % 3)))
    return colors
