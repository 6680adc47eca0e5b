"""The layers of a file that is open for review: image and labels, as the Segment tab shows them."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer
from numpy.typing import NDArray

from clsclip.config import InstanceSettings
from clsclip.errors import InvalidImageError
from clsclip.wire_batch import BatchRequest
from napari_clsclip._acceptance import Acceptance, acceptance_of
from napari_clsclip._foreign_files import opening_reader
from napari_clsclip._image_reading import BUILTIN
from napari_clsclip._layers import PlaneIndex, plane_at
from napari_clsclip._placement import Placement, placement_of
from napari_clsclip._result_looks import METADATA_KEY, about_labels, new_layer
from napari_clsclip._review_files import Reviewed
from napari_clsclip._review_image import ReadImage
from napari_clsclip._undo_history import forget

_TOO_LARGE = (
    "These labels are too large to be corrected here: napari cannot paint in them. They can be "
    "accepted as they are."
)


@dataclass(eq=False)
class ReviewLayers:
    """What was added to the viewer for one file.

    Attributes
    ----------
    others : tuple of Layer
        What napari's reader made of the image file.
    labels : Labels
    image : Image or None
        The one of ``others`` on whose pixels the labels lie; None if none fits.
    note : str
        What the user should know, if anything.
    beside : WeakSet of Layer
        What else was in the viewer then.
    """

    others: tuple[Layer, ...]
    labels: Labels
    image: Image | None
    note: str
    beside: weakref.WeakSet[Layer]

    def close(self, viewer: ViewerModel) -> None:
        """Remove them, as far as they are still there."""
        for layer in (self.labels, *self.others):
            if layer in viewer.layers:
                viewer.layers.remove(layer)

    def acceptances(
        self, request: BatchRequest, ids: NDArray[Any], positions: list[tuple[int, ...]]
    ) -> list[Acceptance]:
        """Planes of the labels as examples to learn from.

        Parameters
        ----------
        request : BatchRequest
            What was labelled, and how.
        ids : ndarray of int, shape of the labels
            What was accepted; not copied.
        positions : list of tuples of int
            Which planes.

        Raises
        ------
        InvalidImageError
            If the image has other axes than the labels, or shows other channels than were labelled.
        """
        image = self.image
        read = image is not None and image.source.reader_plugin is not None  # no copy of a channel
        if request.channels and read:
            raise InvalidImageError(
                f"The labels cannot be kept as an example: they are of the channels "
                f"{request.channels}, and the image shows all of them."
            )
        shape = tuple(ids.shape)
        if image is None or tuple(map(int, image.level_shapes[0])) != shape:
            raise InvalidImageError(
                f"The labels of shape {shape} cannot be kept as an example: the image does not "
                "open with that shape."
            )
        axes = (len(shape) - 2, len(shape) - 1)
        made = []
        for position in positions:
            index = PlaneIndex((*position, slice(None), slice(None)), axes, shape)
            plane = plane_at(image, index, 0)
            made.append(acceptance_of(self.labels, ids[position], plane, request.words))
        return made


def open_layers(
    viewer: ViewerModel,
    reviewed: Reviewed,
    before: ReviewLayers | None,
    exchange: Callable[[Labels, NDArray[Any]], object] | None,
) -> ReviewLayers:
    """Open a file and its labels instead of those of another one.

    Parameters
    ----------
    viewer : ViewerModel
    reviewed : Reviewed
    before : ReviewLayers, optional
        Closed once the new image is open, or its layers show the new file: that takes napari a
        small part of the time. Brush and mode are taken over.
    exchange : callable, optional
        Puts an array into a label layer. None: there must be new layers.

    Raises
    ------
    InvalidImageError
        If napari cannot open the image; what was open stays.
    """
    if before is not None and exchange is not None:
        extent = _extent(before.labels)
        layers = _exchanged(viewer, reviewed, before, exchange)
        if layers is not None:
            if extent != _extent(layers.labels):
                viewer.reset_view()
            return layers
    old = () if before is None else (before.labels, *before.others)
    beside = weakref.WeakSet(layer for layer in viewer.layers if layer not in old)
    others = _opened(viewer, reviewed)
    try:
        labels, image, note = _labels(viewer, reviewed, others)
    except BaseException:
        for layer in others:
            viewer.layers.remove(layer)
        raise
    new = ReviewLayers(tuple(others), labels, image, note, beside)
    if before is not None:
        before.close(viewer)
    if labels not in viewer.layers:
        viewer.add_layer(labels)
    viewer.layers.selection.active = labels
    if before is None or _extent(before.labels) != _extent(labels):
        viewer.reset_view()
    if before is not None and reviewed.labels is not None:
        labels.brush_size = before.labels.brush_size
        labels.mode = before.labels.mode
    return new


def _exchanged(
    viewer: ViewerModel,
    reviewed: Reviewed,
    before: ReviewLayers,
    exchange: Callable[[Labels, NDArray[Any]], object],
) -> ReviewLayers | None:
    """Let the layers of one file show another one, if that is all that makes them differ.

    Not if there are layers that came later: results and boxes that belong to the image before. If
    anything fails half way, the layers are removed.
    """
    image, labels = before.image, before.labels
    read, ids = reviewed.image, reviewed.painted
    if image is None or read is None or ids is None or before.others != (image,):
        return None
    mine = {image, labels}
    if not mine <= set(viewer.layers) or set(viewer.layers) - mine - set(before.beside):
        return None
    fresh = _image_of(read, reviewed)
    if (
        _kind(fresh) != _kind(image)
        or fresh.multiscale
        or image.multiscale
        or not labels.editable
        or str(labels.mode) == "polygon"  # one may be begun
        or (labels.data.ndim, labels.data.dtype) != (ids.ndim, ids.dtype)
        or tuple(fresh.data.shape[: fresh.ndim])[-ids.ndim :] != ids.shape
        or not forget(labels)
    ):
        return None
    try:
        exchange(labels, ids)
        image.data = fresh.data
        if not image.rgb:
            image.contrast_limits_range = fresh.contrast_limits_range
            image.contrast_limits = fresh.contrast_limits
        image.name, image.metadata, image._source = fresh.name, fresh.metadata, fresh.source
        _move(image, _placed(fresh, fresh.ndim))
        _move(labels, _placed(fresh, ids.ndim))
        if reviewed.features is not None:
            labels.features = reviewed.features
            labels.selected_label = 1 + int(max(reviewed.features["index"], default=0))
        labels.metadata = {METADATA_KEY: _about(reviewed)}
        labels.show_selected_label = False  # all that is to be accepted must be seen
        viewer.layers.selection.active = labels
    except BaseException:
        before.close(viewer)
        raise
    return ReviewLayers((image,), labels, image, "", before.beside)


def _image_of(read: ReadImage, reviewed: Reviewed) -> Image:
    """The layer that ``viewer.open`` would make."""
    layer = Image(read.data, **read.arguments)
    source = {"path": reviewed.file.file, "reader_plugin": read.reader}
    layer._source = layer.source.model_copy(update=source)
    return layer


def _move(layer: Image | Labels, placement: Placement) -> None:
    """Place a layer; napari takes its time for every assignment."""
    now = placement_of(layer, np.ones(layer.ndim)).arguments()
    for name, value in placement.arguments().items():
        if not np.array_equal(now[name], value):
            setattr(layer, name, value)


def _kind(image: Image) -> tuple[Any, ...]:
    return image.ndim, image.rgb, image.axis_labels, image.units


def _opened(viewer: ViewerModel, reviewed: Reviewed) -> list[Layer]:
    if reviewed.image is not None:
        return [viewer.add_layer(_image_of(reviewed.image, reviewed))]
    file = Path(reviewed.file.file)
    try:
        return list(viewer.open(str(file), stack=False, plugin=opening_reader(file)))
    except Exception as error:  # readers are other people's code
        raise InvalidImageError(f"'{file}' cannot be opened ({error}).") from error


def _labels(
    viewer: ViewerModel, reviewed: Reviewed, others: list[Layer]
) -> tuple[Labels, Image | None, str]:
    request, ids = reviewed.batch.request, reviewed.painted
    images = [layer for layer in others if isinstance(layer, Image)]
    if ids is None:
        return _from_zarr(viewer, Path(reviewed.file.labels), others), None, _TOO_LARGE
    image = next((each for each in images if _tail(each, ids.ndim) == ids.shape), None)
    note = ""
    if image is None:
        opened = " and ".join(str(tuple(each.level_shapes[0])) for each in images) or "no image"
        note = (
            f"The labels have the shape {ids.shape}, but napari opens the image as {opened}: they "
            "may not lie on it, and cannot be kept as an example."
        )
    lies_on = Labels(np.zeros((1,) * ids.ndim, np.uint8)) if image is None else image
    layer = new_layer(ids, _placed(lies_on, ids.ndim), request.words, reviewed.features)
    layer.metadata[METADATA_KEY] = _about(reviewed)
    return layer, image, note


def _placed(layer: Image | Labels, ndim: int) -> Placement:
    """Where labels of so many axes lie on a layer."""
    return placement_of(layer, np.ones(layer.ndim)).last_axes(ndim)


def _about(reviewed: Reviewed) -> dict[str, Any]:
    """What is known of the labels."""
    request = reviewed.batch.request
    objects = InstanceSettings(
        instances=True, min_area=request.min_area, min_certainty=request.min_certainty
    )
    return about_labels(
        request.words,
        request.model,
        request.threshold,
        Path(reviewed.file.file).name,
        objects if request.instances else None,
    )


def _from_zarr(viewer: ViewerModel, folder: Path, others: list[Layer]) -> Labels:
    """Labels that are read as they come into view; nobody can paint in them."""
    try:
        added = viewer.open(str(folder), stack=False, layer_type="labels", plugin=BUILTIN)
    except Exception as error:
        raise InvalidImageError(f"'{folder}' cannot be opened ({error}).") from error
    others += added[1:]
    layer: Labels = added[0]
    layer.editable = False
    return layer


def _tail(image: Image, ndim: int) -> tuple[int, ...]:
    return tuple(map(int, image.level_shapes[0][-ndim:]))


def _extent(layer: Labels) -> tuple[tuple[int, ...], tuple[float, ...]]:
    return tuple(map(int, layer.level_shapes[0])), tuple(map(float, layer.scale))
