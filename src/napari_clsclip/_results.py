"""The label layers that hold results: make one, add a plane to it, change its threshold."""

from __future__ import annotations

import colorsys
import importlib
import threading
import weakref
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray

from clsclip.errors import InvalidImageError
from clsclip.segmentation import Segmentation
from clsclip.wire import SegmentRequest
from napari_clsclip._layers import Plane, PlaneIndex, displayed_index
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


@dataclass(frozen=True)
class _Patch:
    """A plane or region that was predicted, and what it was asked with."""

    index: PlaneIndex
    predicted: PredictedPlane
    settings: Hashable


@dataclass
class _Result:
    """What is remembered about a result layer.

    Each pixel belongs to at most one patch: the latest one that covers it.
    """

    image: weakref.ref[Image]
    identity: tuple[Any, ...]
    model_version: str
    threshold: float
    patches: dict[tuple[int, ...], list[_Patch]] = field(default_factory=dict)

    def put(self, patch: _Patch) -> None:
        """Add a patch; those below it cede their pixels to it."""
        kept = []
        for older in self.patches.get(patch.index.position, []):
            area = older.index.overlap(patch.index)
            if area is not None:
                rows, columns = area
                if (rows.stop - rows.start, columns.stop - columns.start) == older.index.size:
                    continue
                older.predicted.cede(area)
            kept.append(older)
        self.patches[patch.index.position] = [*kept, patch]


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
        self, image: Image, plane: Plane, segmentation: Segmentation, threshold: float,
        request: SegmentRequest | None = None,
    ) -> Labels:  # fmt: skip
        """Put a segmentation into a label layer.

        A plane joins the layer of an earlier result if image, words, model and its weights are
        the same and the user has changed nothing in that plane, or in its region if it has one.
        Else a new layer is made.

        Parameters
        ----------
        image : Image
            The layer that was segmented; it may have been removed meanwhile.
        plane : Plane
            The plane of ``image`` that was segmented.
        segmentation : Segmentation
            Probabilities of shape (K, H, W) for that plane.
        threshold : float, in (0, 1]
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
        predicted = PredictedPlane(segmentation, threshold)
        layer = self._find(image, plane, segmentation)
        if layer is None:
            labels = plane.blank_labels()
            predicted.write_first(plane.index.view(labels))
            layer = _new_layer(labels, plane, segmentation.words)
            self._results[layer] = _Result(
                weakref.ref(image),
                _identity(plane, segmentation.words, segmentation.model),
                segmentation.model_version,
                threshold,
            )
            self._remember(layer, plane, predicted, request)
            self._viewer.add_layer(layer)
        else:
            predicted.write_first(plane.index.view(layer.data))
            self._remember(layer, plane, predicted, request)
            layer.refresh(extent=False)
        self._latest = weakref.ref(layer)
        self._viewer.layers.selection.active = layer
        return layer

    def fill(
        self, layer: Labels, plane: Plane, predicted: PredictedPlane, request: SegmentRequest
    ) -> bool:
        """Put one more plane into a result layer, unless the user has painted in that plane.

        Parameters
        ----------
        layer : Labels
            A result of the same image, words, model and weights. Neither the selection nor the
            threshold changes.
        plane, request
            See :meth:`add`.
        predicted : PredictedPlane
            At best prepared for the threshold of the layer.

        Returns
        -------
        bool
            Whether the plane was put into the layer.
        """
        result = self._results[layer]
        index = plane.index
        if layer.data.shape != index.shape or _holds_user_pixels(layer, result, index):
            return False
        if predicted.threshold != result.threshold:
            predicted = PredictedPlane(predicted.segmentation, result.threshold)
        predicted.write_first(index.view(layer.data))
        self._remember(layer, plane, predicted, request)
        if self._displayed_position(layer) == index.position:
            layer.refresh(extent=False)
        return True

    def begun(self, image: Image, plane: Plane, request: SegmentRequest) -> Labels | None:
        """Find the latest result of an image for the same words and model, with any weights."""
        return next(self._candidates(image, plane, request.words, request.model), None)

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
        settings = (request, plane.channels)
        return frozenset(
            position
            for position, patches in self._results[layer].patches.items()
            if any(patch.settings == settings and patch.index.whole for patch in patches)
        )

    def is_free(self, layer: Labels, plane: Plane) -> bool:
        """Whether nothing but predictions may be in a plane. Reads only; for any thread."""
        if plane.index.position in self._results[layer].patches:
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

    def set_threshold(self, layer: Labels, threshold: float) -> None:
        """Change the threshold of a result layer; pixels that the user changed stay.

        The plane on screen changes at once, :meth:`update_hidden_plane` does the others.

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
        position = self._displayed_position(layer)
        if position in result.patches:
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
            for position, patches in result.patches.items():
                if any(patch.predicted.threshold != result.threshold for patch in patches):
                    self._write(layer, position)
                    return True
        return False

    def _remember(
        self, layer: Labels, plane: Plane, predicted: PredictedPlane, request: SegmentRequest | None
    ) -> None:
        result = self._results[layer]
        result.put(_Patch(plane.index, predicted, (request, plane.channels)))
        result.threshold = predicted.threshold
        layer.metadata[METADATA_KEY] = _metadata(plane, predicted.segmentation, predicted.threshold)

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
            else:  # the user has put other data into the layer
                result.patches.pop(position, None)

    def _find(self, image: Image, plane: Plane, segmentation: Segmentation) -> Labels | None:
        """Find a layer that can take the plane without touching pixels of the user."""
        for layer in self._candidates(image, plane, segmentation.words, segmentation.model):
            result = self._results[layer]
            if result.model_version == segmentation.model_version and not _holds_user_pixels(
                layer, result, plane.index
            ):
                return layer
        return None

    def _candidates(
        self, image: Image, plane: Plane, words: tuple[str, ...], model: str
    ) -> Iterator[Labels]:
        """Result layers of an image for the same words and model, the latest first."""
        identity = _identity(plane, words, model)
        for layer, result in reversed(list(self._results.items())):
            if (
                layer in self._viewer.layers
                and result.image() is image
                and result.identity == identity
                and layer.data.shape == plane.index.shape
            ):
                yield layer


def _import_ahead() -> None:
    """Import what napari would import for the first label layer.

    Otherwise the window would stand still for half a second just when the first result arrives.
    """
    for module in ("pandas", "skimage.color.colorconv"):
        importlib.import_module(module)


def _identity(plane: Plane, words: tuple[str, ...], model: str) -> tuple[Any, ...]:
    """What planes of one layer have in common, beside image and weights."""
    return (words, model, plane.index.shape, plane.index.hidden, plane.level, plane.origin)


def _holds_user_pixels(layer: Labels, result: _Result, index: PlaneIndex) -> bool:
    patches = result.patches.get(index.position, [])
    if not patches:
        return bool(index.view(layer.data).any())
    user = index.view(layer.data) != 0
    for patch in patches:
        here, there = index.overlap(patch.index), patch.index.overlap(index)
        if here is None or there is None:
            continue
        changed, owned = (
            pixels[there].T if patch.index.transposed != index.transposed else pixels[there]
            for pixels in patch.predicted.changes(patch.index.view(layer.data))
        )
        user[here] = np.where(owned, changed, user[here])
    return bool(user.any())


def _new_layer(labels: NDArray[np.uint16], plane: Plane, words: tuple[str, ...]) -> Labels:
    where = plane.placement
    colors = [*enumerate(class_colors(len(words)), start=1), (None, "white"), (0, "transparent")]
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
        colormap=DirectLabelColormap(color_dict=dict(colors)),
        features={"index": np.arange(1, len(words) + 1), "class": np.array(words)},
    )


def _metadata(plane: Plane, segmentation: Segmentation, threshold: float) -> dict[str, Any]:
    """How a layer was made, in plain types, so that it can be written as JSON."""
    return {
        "words": list(segmentation.words),
        "model": segmentation.model,
        "model_version": segmentation.model_version,
        "threshold": threshold,
        "zooms": list(segmentation.zooms),
        "image": plane.image,
        "classes": dict(enumerate(segmentation.words, start=1)),
    }


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
