"""The label layers that hold results: make one, add a plane to it, change its threshold."""

from __future__ import annotations

import colorsys
import importlib
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray

from clsclip.errors import InvalidImageError
from clsclip.segmentation import Segmentation
from napari_clsclip._layers import Plane, PlaneIndex, displayed_index
from napari_clsclip._object_planes import ObjectPlanes
from napari_clsclip._predicted_objects import PredictedObjects
from napari_clsclip._predicted_plane import PredictedPlane

METADATA_KEY: Final = "clsclip"
"""Key of ``layer.metadata`` under which a result says how it was made."""

OPACITY: Final = 0.5

_CLASS_DTYPE: Final = np.dtype(np.uint16)
_OBJECT_DTYPE: Final = np.dtype(np.int32)

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


@dataclass
class _Result:
    """What is remembered about a result layer."""

    image: weakref.ref[Image]
    identity: tuple[Any, ...]
    threshold: float
    planes: dict[tuple[int, ...], tuple[PlaneIndex, PredictedPlane]] = field(default_factory=dict)
    objects: ObjectPlanes | None = None
    """The planes instead of ``planes``, if the layer holds objects."""

    def take(
        self,
        index: PlaneIndex,
        segmentation: Segmentation,
        threshold: float,
        objects: PredictedObjects | None,
    ) -> PredictedPlane | PredictedObjects:
        """Remember a plane; returns what is to be written into it."""
        self.threshold = threshold
        if objects is None:
            predicted = PredictedPlane(segmentation, threshold)
            self.planes[index.position] = (index, predicted)
            return predicted
        if self.objects is None:
            self.objects = ObjectPlanes(threshold, objects.settings)
        self.objects.threshold, self.objects.settings = threshold, objects.settings
        return self.objects.add(index, objects)


class ResultLayers:
    """The result layers of one viewer, with the probabilities behind them.

    The probabilities stay in memory, one byte per pixel and word, as long as the layer lives.

    Parameters
    ----------
    viewer : ViewerModel
        Where new layers go.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._results: weakref.WeakKeyDictionary[Labels, _Result] = weakref.WeakKeyDictionary()
        self._latest: weakref.ref[Labels] | None = None
        threading.Thread(target=_import_ahead, name="clsclip-import", daemon=True).start()

    def add(
        self,
        image: Image,
        plane: Plane,
        segmentation: Segmentation,
        threshold: float,
        objects: PredictedObjects | None = None,
    ) -> Labels:
        """Put a segmentation into a label layer.

        A plane joins the layer of an earlier result if image, words, model and its weights are
        the same, both hold classes or both objects, and the user has changed nothing in that
        plane. Else a new layer is made.

        Parameters
        ----------
        image : Image
            The layer that was segmented; it may have been removed meanwhile.
        plane : Plane
            The plane of ``image`` that was segmented.
        segmentation : Segmentation
            Probabilities of shape (K, H, W) for that plane.
        threshold : float, in (0, 1]
        objects : PredictedObjects, optional
            Single objects of the plane, whose ids the layer is to hold instead of class ids.

        Returns
        -------
        Labels
            The layer that holds the result; the active one.

        Raises
        ------
        InvalidImageError
            If a label array of the image's shape does not fit into memory.
        """
        index = plane.index
        identity = (segmentation.words, segmentation.model, segmentation.model_version,
                    index.shape, index.hidden, plane.level, objects is not None)  # fmt: skip
        layer = self._find(image, index, identity)
        dtype = _CLASS_DTYPE if objects is None else _OBJECT_DTYPE
        labels = layer.data if layer is not None else plane.blank_labels(dtype)
        result = _Result(weakref.ref(image), identity, threshold)
        if layer is not None:
            result = self._results[layer]
        predicted = result.take(index, segmentation, threshold, objects)
        predicted.write_first(index.view(labels))
        if layer is None:
            layer = _new_layer(labels, plane, segmentation.words, result.objects)
            self._results[layer] = result
            self._viewer.add_layer(layer)
        else:
            layer.refresh(extent=False)
            if result.objects is not None:
                layer.features = result.objects.table()
        layer.metadata[METADATA_KEY] = _metadata(plane, segmentation, threshold, objects)
        self._latest = weakref.ref(layer)
        self._viewer.layers.selection.active = layer
        return layer

    def current(self) -> Labels | None:
        """Return the result layer that the threshold is about: the active one, else the latest."""
        active = self._viewer.layers.selection.active
        if isinstance(active, Labels) and active in self._results:
            return active
        latest = None if self._latest is None else self._latest()
        return latest if latest is not None and latest in self._viewer.layers else None

    def threshold(self, layer: Labels) -> float:
        """Return the threshold of a result layer."""
        return self._results[layer].threshold

    def objects(self, layer: Labels) -> ObjectPlanes | None:
        """Return the objects of a result layer; None if it holds classes, or is no result."""
        result = self._results.get(layer)
        return None if result is None else result.objects

    def object_layers(self) -> Iterator[tuple[Labels, ObjectPlanes]]:
        """Go through the result layers with objects that are in the viewer, the latest first."""
        for layer, result in reversed(list(self._results.items())):
            if result.objects is not None and layer in self._viewer.layers:
                yield layer, result.objects

    def set_threshold(self, layer: Labels, threshold: float) -> None:
        """Change the threshold of a result layer; pixels that the user changed stay.

        The plane on screen changes at once, :meth:`update_hidden_plane` does the others. Objects
        are left to :class:`~napari_clsclip._object_updates.ObjectUpdates`.

        Parameters
        ----------
        layer : Labels
            One of this viewer's result layers.
        threshold : float, in (0, 1]
        """
        result = self._results[layer]
        result.threshold = threshold
        if METADATA_KEY in layer.metadata:
            layer.metadata[METADATA_KEY]["threshold"] = threshold
        if result.objects is not None:
            result.objects.threshold = threshold
            return
        try:
            position = displayed_index(layer, self._viewer.dims).position
        except InvalidImageError:
            return  # 3D display, or the sliders stand outside: no plane is on screen
        if position in result.planes:
            self._write(layer, position)
            layer.refresh(extent=False)

    def update_hidden_plane(self) -> bool:
        """Bring one plane that lags behind its layer's threshold up to date.

        Returns
        -------
        bool
            Whether there was one.
        """
        for layer, result in self._results.items():
            for position, (_, predicted) in result.planes.items():
                if predicted.threshold != result.threshold:
                    self._write(layer, position)
                    return True
        return False

    def _write(self, layer: Labels, position: tuple[int, ...]) -> None:
        result = self._results[layer]
        index, predicted = result.planes[position]
        if layer.data.shape == index.shape:
            predicted.write(index.view(layer.data), result.threshold)
        else:  # the user has put other data into the layer
            del result.planes[position]

    def _find(self, image: Image, index: PlaneIndex, identity: tuple[Any, ...]) -> Labels | None:
        """Find a layer that can take the plane without touching pixels of the user."""
        for layer, result in reversed(list(self._results.items())):
            if (
                layer in self._viewer.layers
                and result.image() is image
                and result.identity == identity
                and layer.data.shape == index.shape
                and (result.objects is None or layer.data.dtype == _OBJECT_DTYPE)
                and not _holds_user_pixels(layer, result, index)
            ):
                return layer
        return None


def _import_ahead() -> None:
    """Import what napari would import for the first label layer.

    Otherwise the window would stand still for half a second just when the first result arrives.
    """
    for module in ("pandas", "skimage.color.colorconv"):
        importlib.import_module(module)


def _holds_user_pixels(layer: Labels, result: _Result, index: PlaneIndex) -> bool:
    planes = result.planes if result.objects is None else result.objects.planes
    if index.position not in planes:
        return bool(index.view(layer.data).any())
    known, predicted = planes[index.position]
    return predicted.has_changes(known.view(layer.data))


def _new_layer(
    labels: NDArray[Any], plane: Plane, words: tuple[str, ...], objects: ObjectPlanes | None
) -> Labels:
    where = plane.placement
    features: dict[str, NDArray[Any]]
    if objects is None:
        colors = [*enumerate(class_colors(len(words)), 1), (None, "white"), (0, "transparent")]
        colormap = DirectLabelColormap(color_dict=dict(colors))
        features = {"index": np.arange(1, len(words) + 1), "class": np.array(words)}
    else:
        colormap = None  # napari's own, in which neighbouring ids differ
        features = objects.table()
    return Labels(
        labels,
        name=", ".join(words),
        scale=where.scale,
        translate=where.translate,
        rotate=where.rotate,
        shear=where.shear,
        affine=where.affine,
        units=where.units,
        axis_labels=where.axis_labels,
        opacity=OPACITY,
        colormap=colormap,
        features=features,
    )


def _metadata(
    plane: Plane,
    segmentation: Segmentation,
    threshold: float,
    objects: PredictedObjects | None,
) -> dict[str, Any]:
    """How a layer was made, in plain types, so that it can be written as JSON."""
    about = {
        "words": list(segmentation.words),
        "model": segmentation.model,
        "model_version": segmentation.model_version,
        "threshold": threshold,
        "zooms": list(segmentation.zooms),
        "image": plane.image,
    }
    if objects is None:
        return {**about, "classes": dict(enumerate(segmentation.words, start=1))}
    return {**about, "objects": objects.settings.model_dump()}


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
