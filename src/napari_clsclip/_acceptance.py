"""What the user accepts: the labels of the plane on screen, as class ids, with their image.

Numpy only: nothing here imports Qt, and napari's objects are only read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clsclip.errors import InvalidImageError
from clsclip.wire_annotations import Correction, Details
from napari_clsclip._layers import Plane, PlaneIndex, displayed_index
from napari_clsclip._result_looks import METADATA_KEY
from napari_clsclip._segment_job import read_plane

if TYPE_CHECKING:
    from napari.components import Dims
    from napari.layers import Labels


@dataclass(frozen=True)
class Acceptance:
    """A plane of labels as it was when the user accepted it; its image is still to be read.

    Attributes
    ----------
    plane : Plane
        Of the image.
    ids : ndarray of int, shape (H, W)
        A copy of the plane of the layer.
    layer : str
        Name of the layer.
    words : tuple of str, length K
    objects : dict of int to int, or None
        Class id of each object, if the ids are those of objects.
    predicted : tuple of PlaneIndex
        See :func:`accept`.
    details : Details
    """

    plane: Plane
    ids: NDArray[Any]
    layer: str
    words: tuple[str, ...]
    objects: dict[int, int] | None
    predicted: tuple[PlaneIndex, ...]
    details: Details

    def correction(self) -> Correction:
        """Read the image and find the class of each pixel. Call it outside the Qt thread.

        Raises
        ------
        InvalidImageError
            If the image cannot be read, or the ids do not fit the words.
        """
        labels = _class_ids(self.ids, self.words, self.objects, self.layer)
        vouched = _vouched(labels, self.plane.index, self.predicted)
        return Correction(read_plane(self.plane), labels, self.words, vouched, self.details)


def accept(
    layer: Labels,
    plane: Plane,
    dims: Dims,
    words: Sequence[str],
    predicted: Sequence[PlaneIndex],
) -> Acceptance:
    """Take what the user sees in a label layer as right.

    Parameters
    ----------
    layer : Labels
        A result, or any other label layer of the image's shape.
    plane : Plane
        The whole plane of the image that is on screen, at the resolution of the labels.
    dims : Dims
        The viewer's axes.
    words : sequence of str
        Class words of a layer that is no result; a result knows its own.
    predicted : sequence of PlaneIndex
        What was segmented of the plane: itself, or regions of it. If it is regions only, the user
        vouches for them and for what is painted outside of them.

    Raises
    ------
    InvalidImageError
        If the layer does not fit the image, or cannot have been corrected.
    """
    if layer.multiscale:
        raise InvalidImageError(
            f"'{layer.name}' has resolution levels, and napari cannot paint in such labels. Zoom "
            "in, segment the visible region, correct that, and accept it."
        )
    index = displayed_index(layer, dims)
    if index.shape != plane.index.shape or index.index != plane.index.index:
        raise InvalidImageError(
            f"The labels '{layer.name}' {index.shape} do not lie on the pixels of "
            f"'{plane.image}' {plane.index.shape} that are on screen. Choose the image that they "
            "belong to (in the Segment tab), at the resolution at which it was segmented."
        )
    return acceptance_of(layer, np.array(plane.index.view(layer.data)), plane, words, predicted)


def acceptance_of(
    layer: Labels,
    ids: NDArray[Any],
    plane: Plane,
    words: Sequence[str],
    predicted: Sequence[PlaneIndex] = (),
) -> Acceptance:
    """Take a plane of a label layer as right, also one that is not on screen.

    Parameters
    ----------
    layer : Labels
        Says of what words and objects its ids are.
    ids : ndarray of int, shape (H, W)
        Of that plane; not copied.
    plane, words, predicted
        See :func:`accept`.
    """
    made = layer.metadata.get(METADATA_KEY, {})
    own = tuple(made.get("words", words))
    where = plane.placement
    shown = list(plane.index.displayed)
    return Acceptance(
        plane,
        ids,
        str(layer.name),
        own,
        _classes_of_objects(layer, own) if "objects" in made else None,
        tuple(predicted),
        Details(
            source=plane.image,
            origin="widget",
            position=plane.index.position,
            model=str(made.get("model", "")),
            model_version=str(made.get("model_version", "")),
            contrast_limits=plane.contrast_limits,
            scale=(float(where.scale[shown[0]]), float(where.scale[shown[1]])),
            unit=str(where.units[shown[1]]),
        ),
    )


def _classes_of_objects(layer: Labels, words: tuple[str, ...]) -> dict[int, int]:
    """Class id of each object, by the layer's table."""
    known = {word: k for k, word in enumerate(words, start=1)}
    rows = zip(layer.features["index"], layer.features["class"], strict=True)
    return {int(number): known[word] for number, word in rows if word in known}


def _class_ids(
    ids: NDArray[Any], words: tuple[str, ...], objects: dict[int, int] | None, name: str
) -> NDArray[np.uint16]:
    if objects is None and len(words) == 1:
        return np.asarray(ids != 0, dtype=np.uint16)
    if objects is None:
        highest = int(ids.max(initial=0))
        if highest > len(words):
            raise InvalidImageError(
                f"'{name}' holds the label {highest}, but there are {len(words)} words: "
                f"{', '.join(words)}. Paint with 1 for the first word, 2 for the second, and so on."
            )
        return np.asarray(ids, dtype=np.uint16)
    present, inverse = np.unique(ids, return_inverse=True)
    only = 1 if len(words) == 1 else 0
    classes = [0 if i == 0 else objects.get(int(i), only) for i in present]
    unknown = [int(i) for i, k in zip(present, classes, strict=True) if i and not k]
    if unknown:
        raise InvalidImageError(
            f"The painted object {unknown[0]} of '{name}' has no word: it could be any of "
            f"{', '.join(words)}. Paint it with the id of an object of its word, or erase it."
        )
    return np.array(classes, dtype=np.uint16)[inverse.ravel()].reshape(ids.shape)


def _vouched(
    labels: NDArray[np.uint16], index: PlaneIndex, predicted: Sequence[PlaneIndex]
) -> NDArray[np.bool_] | None:
    if not predicted or any(region.covers(index) for region in predicted):
        return None
    vouched: NDArray[np.bool_] = labels != 0
    for region in predicted:
        area = index.overlap(region)
        if area is not None:
            vouched[area] = True
    return vouched
