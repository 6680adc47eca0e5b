"""The label layers that hold results: make one, add a plane to it, change its threshold."""

from __future__ import annotations

import importlib
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels

from clsclip.config import InstanceSettings
from clsclip.errors import InvalidImageError
from clsclip.segmentation import Segmentation
from clsclip.wire import SegmentRequest
from napari_clsclip._layer_steps import LayerStep, LayerSteps
from napari_clsclip._layers import Plane, PlaneIndex, displayed_index
from napari_clsclip._object_planes import ObjectPlanes
from napari_clsclip._predicted_objects import PredictedObjects
from napari_clsclip._predicted_plane import PredictedPlane
from napari_clsclip._result_looks import METADATA_KEY, metadata, new_layer
from napari_clsclip._result_patches import Identity, Prediction, Result, identity_of, settings_of

_CLASS_DTYPE: Final = np.dtype(np.uint16)
_OBJECT_DTYPE: Final = np.dtype(np.int32)


class ResultLayers:
    """The result layers of one viewer, with the probabilities behind them.

    The probabilities stay in memory, one byte per pixel and word, as long as the layer lives.

    Parameters
    ----------
    viewer : ViewerModel
        Where new layers go.

    Attributes
    ----------
    written : list of callable
        Each is called with a layer and the plane or region of it in which pixels were written.
    steps : LayerSteps
        What can be undone. A new layer is none: it can be removed.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._results: weakref.WeakKeyDictionary[Labels, Result] = weakref.WeakKeyDictionary()
        self._latest: weakref.ref[Labels] | None = None
        self.written: Final[list[Callable[[Labels, PlaneIndex], None]]] = []
        self.steps: Final = LayerSteps(self.tell_written)
        threading.Thread(target=_import_ahead, name="clsclip-import", daemon=True).start()

    def add(
        self,
        image: Image,
        plane: Plane,
        segmentation: Segmentation,
        threshold: float,
        objects: PredictedObjects | None = None,
        request: SegmentRequest | None = None,
    ) -> Labels:
        """Put a segmentation into a label layer.

        A plane joins the layer of an earlier result if image, words, model and its weights are
        the same, both hold classes or both objects, and the user has changed nothing in that
        plane, or in its region if it has one. Else a new layer is made.

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
        request : SegmentRequest, optional
            What the segmentation answers; :meth:`done` compares it.

        Returns
        -------
        Labels
            The layer that holds the result; the active one.

        Raises
        ------
        InvalidImageError
            If a label array of the image's shape does not fit into memory.
        """
        predicted = PredictedPlane(segmentation, threshold) if objects is None else objects
        layer = self._find(image, plane, segmentation, objects is not None)
        if layer is not None:
            result = self._results[layer]
            step = self.steps.begin(layer, result)
            if objects is not None and result.objects is not None:
                result.objects.settings = objects.settings
            self._place(layer, plane, predicted, threshold, request, step)
            layer.refresh(extent=False)
        else:
            labels = plane.blank_labels(_CLASS_DTYPE if objects is None else _OBJECT_DTYPE)
            words, model = segmentation.words, segmentation.model
            result = Result(
                weakref.ref(image),
                identity_of(plane, words, model, objects is not None),
                segmentation.model_version,
                threshold,
            )
            written = result.put(plane.index, predicted, settings_of(request, plane), threshold)
            written.write_first(plane.index.view(labels))
            table = None if result.objects is None else result.objects.table()
            layer = new_layer(labels, plane.placement, words, table)
            layer.metadata[METADATA_KEY] = metadata(plane, predicted, threshold)
            self._results[layer] = result
            self._viewer.add_layer(layer)
        self._latest = weakref.ref(layer)
        self._viewer.layers.selection.active = layer
        return layer

    def fill(
        self,
        layer: Labels,
        plane: Plane,
        predicted: Prediction,
        request: SegmentRequest,
        *,
        undoable: bool = True,
    ) -> bool:
        """Put one more plane into a result layer, unless the user has painted in that plane.

        Parameters
        ----------
        layer : Labels
            A result of the same image, words, model and weights. Neither the selection nor the
            threshold changes.
        plane, request
            See :meth:`add`.
        predicted : PredictedPlane or PredictedObjects
            Of the kind that the layer holds; classes at best prepared for its threshold.
        undoable : bool
            Whether it is a step that can be undone; the planes of one request are one step. Not
            so for the run that made the layer, whose first plane is no step, either.

        Returns
        -------
        bool
            Whether the plane was put into the layer.
        """
        result = self._results[layer]
        if layer.data.shape != plane.index.shape or not self._has_room(layer, plane):
            return False
        if isinstance(predicted, PredictedPlane) and predicted.threshold != result.threshold:
            predicted = PredictedPlane(predicted.segmentation, result.threshold)
        step = None
        if undoable:
            step = self.steps.begin(layer, result, ("filled", settings_of(request, plane)))
        self._place(layer, plane, predicted, result.threshold, request, step)
        if self._displayed_position(layer) == plane.index.position:
            layer.refresh(extent=False)
        return True

    def begun(
        self, image: Image, plane: Plane, request: SegmentRequest, *, objects: bool
    ) -> Labels | None:
        """Find the latest result of an image for the same words and model, with any weights.

        Parameters
        ----------
        image, plane, request
            See :meth:`add`.
        objects : bool
            Whether the layer is to hold objects, or else classes.
        """
        identity = identity_of(plane, request.words, request.model, objects)
        return next(self._candidates(image, identity), None)

    def is_open(self, layer: Labels) -> bool:
        """Whether a result layer is still in the viewer."""
        return layer in self._viewer.layers

    def model_version(self, layer: Labels) -> str:
        """Return the hash of the weights behind a result layer."""
        return self._results[layer].model_version

    def done(
        self, layer: Labels, plane: Plane, request: SegmentRequest
    ) -> frozenset[tuple[int, ...]]:
        """Positions of the planes that a result layer has whole, asked with the same settings."""
        return self._results[layer].done(settings_of(request, plane))

    def is_free(self, layer: Labels, plane: Plane) -> bool:
        """Whether nothing but predictions may be in a plane. Reads only; for any thread."""
        if self._results[layer].at(plane.index.position):
            return True  # what was painted over a prediction, fill() finds out
        return not plane.index.view(layer.data).any()

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

    def image(self, layer: Labels) -> Image | None:
        """Return the image of a result layer that is open; None if the layer is no result."""
        result = self._results.get(layer)
        image = None if result is None else result.image()
        return image if image in self._viewer.layers else None

    def level(self, layer: Labels) -> int | None:
        """Return the resolution level at which a result was segmented; None if it is none."""
        result = self._results.get(layer)
        return None if result is None else result.level

    def words(self, layer: Labels) -> tuple[str, ...] | None:
        """Return the words of a result layer; None if the layer is no result."""
        result = self._results.get(layer)
        return None if result is None else result.words

    def predicted(self, layer: Labels, position: tuple[int, ...]) -> list[PlaneIndex]:
        """Return what was segmented of a plane: itself, or regions of it; nothing if unknown."""
        result = self._results.get(layer)
        return [] if result is None else result.known(position)

    def everything(self, layer: Labels) -> list[PlaneIndex]:
        """Return all planes and regions that were predicted in a layer."""
        result = self._results.get(layer)
        return [] if result is None else result.everything()

    def identity(self, layer: Labels) -> Identity | None:
        """Return what the planes of a result layer have in common; None if it is no result."""
        result = self._results.get(layer)
        return None if result is None else result.identity

    def restore(self, layer: Labels, result: Result) -> None:
        """Know a layer again that was a result of an earlier napari, without its probabilities.

        What is in it is never overwritten. Planes that are still blank can be filled.
        """
        self._results[layer] = result

    def tell_written(self, layer: Labels, index: PlaneIndex) -> None:
        """Tell those who want to know that pixels of a plane or region were written."""
        for listener in self.written:
            listener(layer, index)

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

        The plane on screen changes at once, :meth:`update_hidden_plane` does the others. Calls
        until :meth:`LayerSteps.end_adjustment` are one step to be undone. Objects are left to
        :class:`~napari_clsclip._object_updates.ObjectUpdates`.

        Parameters
        ----------
        layer : Labels
            One of this viewer's result layers.
        threshold : float, in (0, 1]
        """
        result = self._results[layer]
        if not result.everything():  # it was restored without its probabilities
            result.threshold = threshold
            return
        step = self.steps.adjust(layer, result)
        result.threshold = threshold
        if METADATA_KEY in layer.metadata:
            layer.metadata[METADATA_KEY]["threshold"] = threshold
        if result.objects is not None:
            result.objects.threshold = threshold
            return
        position = self._displayed_position(layer)
        if position in result.patches:
            for patch in result.patches[position]:
                if layer.data.shape == patch.index.shape:
                    step.include(patch.index)
            self._write(layer, position)
            layer.refresh(extent=False)

    def set_object_settings(self, layer: Labels, settings: InstanceSettings) -> None:
        """Change what the objects of a result layer are found with; they follow a moment later."""
        result = self._results[layer]
        if result.objects is not None and result.objects.settings != settings:
            self.steps.adjust(layer, result)
            result.objects.settings = settings

    def following_step(self, layer: Labels) -> LayerStep | None:
        """Return the step that objects belong to which were found just now."""
        return self.steps.follow(layer, self._results[layer])

    def update_hidden_plane(self) -> bool:
        """Bring one plane that lags behind its layer's threshold up to date.

        Returns
        -------
        bool
            Whether there was one.
        """
        for layer, result in self._results.items():
            for position, patches in result.patches.items():
                if any(patch.predicted.threshold != result.threshold for patch in patches):
                    self._write(layer, position)
                    return True
        return False

    def _place(
        self,
        layer: Labels,
        plane: Plane,
        predicted: Prediction,
        threshold: float,
        request: SegmentRequest | None,
        step: LayerStep | None,
    ) -> None:
        """Put a plane into an existing layer, as a part of a step."""
        result = self._results[layer]
        if step is not None:
            step.include(plane.index)
        written = result.put(plane.index, predicted, settings_of(request, plane), threshold)
        written.write_first(plane.index.view(layer.data))
        if result.objects is not None:
            layer.features = result.objects.table()
        layer.metadata[METADATA_KEY] = metadata(plane, predicted, threshold)
        self.tell_written(layer, plane.index)

    def _displayed_position(self, layer: Labels) -> tuple[int, ...] | None:
        try:
            return displayed_index(layer, self._viewer.dims).position
        except InvalidImageError:
            return None  # 3D display, or the sliders stand outside: no plane is on screen

    def _write(self, layer: Labels, position: tuple[int, ...]) -> None:
        result = self._results[layer]
        for patch in tuple(result.patches[position]):
            if layer.data.shape == patch.index.shape:
                patch.predicted.write(patch.index.view(layer.data), result.threshold)
                self.tell_written(layer, patch.index)
            else:  # the user has put other data into the layer
                result.patches.pop(position, None)

    def _find(
        self, image: Image, plane: Plane, segmentation: Segmentation, objects: bool
    ) -> Labels | None:
        """Find a layer that can take the plane without touching pixels of the user."""
        identity = identity_of(plane, segmentation.words, segmentation.model, objects)
        for layer in self._candidates(image, identity):
            same = self._results[layer].model_version == segmentation.model_version
            if same and self._has_room(layer, plane):
                return layer
        return None

    def _candidates(self, image: Image, identity: Identity) -> Iterator[Labels]:
        """Result layers of an image for the same words and model, the latest first."""
        for layer, result in reversed(list(self._results.items())):
            if (
                layer in self._viewer.layers
                and result.image() is image
                and result.identity == identity
                and layer.data.shape == identity.shape
                and (not identity.objects or layer.data.dtype == _OBJECT_DTYPE)
            ):
                yield layer

    def _has_room(self, layer: Labels, plane: Plane) -> bool:
        """Whether a plane can be put into a layer without loss."""
        result, index = self._results[layer], plane.index
        return result.takes(index) and not result.holds_user_pixels(layer.data, index)


def _import_ahead() -> None:
    """Import what napari would import for the first label layer.

    Otherwise the window would stand still for half a second just when the first result arrives.
    """
    for module in ("pandas", "skimage.color.colorconv"):
        importlib.import_module(module)
