"""Layers that say why: probability of each word, regions it was looked for in, attention."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Layer, Shapes
from numpy.typing import NDArray

from clsclip.segmentation import RegionUsed, Segmentation
from napari_clsclip._attention_maps import ShownAttention
from napari_clsclip._layers import Plane, PlaneIndex
from napari_clsclip._result_looks import class_colors

_MAP_OPACITY: Final = 0.6
_ORIGINAL: Final = "attention, original [CLS]"
_TEXT_SIZE: Final = 9
_EDGE_PART: Final = 1 / 300
"""Width of an edge, as a part of the plane's shorter side."""

Identity = tuple[Any, ...]
Position = tuple[int, ...]


@dataclass(frozen=True)
class ExtraChoice:
    """Which further layers are to be shown."""

    probabilities: bool = False
    proposals: bool = False
    attention: bool = False

    def __bool__(self) -> bool:
        return self.probabilities or self.proposals or self.attention


@dataclass(frozen=True)
class _Proposal:
    """One region, as it is drawn."""

    vertices: NDArray[np.float64]
    word: int
    region: RegionUsed


@dataclass
class _Proposals:
    """What is remembered about a layer of region proposals."""

    identity: Identity
    planes: dict[Position, list[_Proposal]] = field(default_factory=dict)

    def all(self) -> list[_Proposal]:
        return [proposal for _, plane in sorted(self.planes.items()) for proposal in plane]


class ExtraLayers:
    """The layers of one viewer that are shown on request, beside the results.

    Parameters
    ----------
    viewer : ViewerModel
        Where new layers go.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._maps: weakref.WeakKeyDictionary[Layer, Identity] = weakref.WeakKeyDictionary()
        self._proposals: weakref.WeakKeyDictionary[Layer, _Proposals] = weakref.WeakKeyDictionary()

    def __contains__(self, layer: object) -> bool:
        """Whether a layer shows probabilities or attention."""
        return isinstance(layer, Image) and layer in self._maps

    def show(
        self,
        choice: ExtraChoice,
        image: Image,
        plane: Plane,
        segmentation: Segmentation,
        attention: ShownAttention | None,
    ) -> str:
        """Show what is chosen; returns what there is to say about it.

        Parameters
        ----------
        choice : ExtraChoice
        image, plane, segmentation
            See :meth:`show_probabilities`.
        attention : ShownAttention or None
            Of the same words, if the model has any.
        """
        notes = []
        if choice.probabilities:
            self.show_probabilities(image, plane, segmentation)
        if choice.proposals and not self.show_proposals(image, plane, segmentation):
            notes.append("No regions to show: the whole image was looked at.")
        if choice.attention and attention is not None:
            self.show_attention(image, plane, segmentation, attention)
            own = self._known(self._maps, (*_identity(image, plane, segmentation), "attention"))
            if own is not None and not own.visible:
                notes.append(f"'{own.name}' is hidden; click its eye to compare.")
        elif choice.attention:
            notes.append(
                "No attention to show: words do not replace the [CLS] in the model "
                f"'{segmentation.model}'."
            )
        return " ".join(notes)

    def show_probabilities(self, image: Image, plane: Plane, segmentation: Segmentation) -> None:
        """Show the probability of each word as an image layer, right above the image.

        Planes of one image gather in one layer per word, as those of results do.

        Parameters
        ----------
        image : Image
            The layer that was segmented; it may have been removed meanwhile.
        plane : Plane
            The plane of ``image`` that was segmented.
        segmentation : Segmentation
            Probabilities of shape (K, H, W) for that plane.

        Raises
        ------
        InvalidImageError
            If an array of the image's shape does not fit into memory.
        """
        for word, values in zip(segmentation.words, segmentation.probabilities, strict=True):
            identity = (*_identity(image, plane, segmentation), word, "probability")
            shown = values * np.float32(1 / 255)
            self._show_map(image, plane, identity, shown, f"{word}, probability", 1.0)

    def show_attention(
        self, image: Image, plane: Plane, segmentation: Segmentation, attention: ShownAttention
    ) -> None:
        """Show where the [CLS] looks as image layers of one scale, a hidden one for its own.

        Planes gather as those of :meth:`show_probabilities` do, and so do its parameters and
        errors apply.
        """
        identity = _identity(image, plane, segmentation)
        maps = [
            ((*identity, word, "attention"), values, f"{word}, attention")
            for word, values in zip(segmentation.words, attention.replaced, strict=True)
        ]
        maps.append(((*identity, "attention"), attention.original, _ORIGINAL))
        earlier = [self._known(self._maps, each[0]) for each in maps]
        limits = [layer.contrast_limits[1] for layer in earlier if isinstance(layer, Image)]
        most = max(attention.brightest, *limits) if limits else attention.brightest
        for layer in earlier:  # of another plane or zoom: all are to be compared
            if isinstance(layer, Image) and layer.contrast_limits[1] < most:
                layer.contrast_limits_range = layer.contrast_limits = (0.0, most)
        for own, values, name in maps:
            self._show_map(image, plane, own, values, name, most, visible=name != _ORIGINAL)

    def show_proposals(self, image: Image, plane: Plane, segmentation: Segmentation) -> bool:
        """Show the regions in which the words were looked for as a Shapes layer.

        A layer that the user has changed is left alone, and another one made.

        Parameters
        ----------
        image, plane, segmentation
            See :meth:`show_probabilities`.

        Returns
        -------
        bool
            Whether there are any.
        """
        drawn = [
            _Proposal(_vertices(region, plane.index), k, region)
            for k, regions in enumerate(segmentation.proposals)
            for region in regions
        ]
        identity = _identity(image, plane, segmentation)
        layer = self._known(self._proposals, identity)
        if layer is not None and not _is_unchanged(layer, self._proposals[layer]):
            layer = None
        known = _Proposals(identity) if layer is None else self._proposals[layer]
        known.planes[plane.index.position] = drawn
        if layer is None and drawn:
            layer = Shapes(
                ndim=len(plane.index.shape),
                name=f"{', '.join(segmentation.words)}, regions",
                **plane.placement.arguments(),
            )
            self._proposals[layer] = known
            self._viewer.add_layer(layer)
        if layer is not None:
            _draw(layer, known.all(), segmentation.words, plane.index)
        return bool(drawn)

    def _show_map(
        self, image: Image, plane: Plane, identity: Identity, values: NDArray[np.float32],
        name: str, brightest: float, *, visible: bool = True,
    ) -> None:  # fmt: skip
        """Put values of a plane into the layer that has the identity, which may be a new one."""
        layer = self._known(self._maps, identity)
        data = plane.blank_labels(np.float32) if layer is None else layer.data
        if layer is not None and (data.shape, data.dtype) != (plane.index.shape, np.float32):
            layer, data = None, plane.blank_labels(np.float32)
        plane.index.view(data)[...] = values
        if layer is not None:
            layer.refresh(extent=False)
            return
        layer = Image(
            data,
            name=name,
            colormap="inferno",
            contrast_limits=(0.0, brightest),
            opacity=_MAP_OPACITY,
            blending="additive",
            visible=visible,
            **plane.placement.arguments(),
        )
        self._maps[layer] = identity
        self._insert_above(image, layer)

    def _known(
        self, layers: weakref.WeakKeyDictionary[Layer, Any], identity: Identity
    ) -> Layer | None:
        for layer, known in reversed(list(layers.items())):
            own = known.identity if isinstance(known, _Proposals) else known
            if own == identity and layer in self._viewer.layers:
                return layer
        return None

    def _insert_above(self, image: Image, layer: Layer) -> None:
        layers = self._viewer.layers
        layers.insert(layers.index(image) + 1 if image in layers else 0, layer)


def _identity(image: Image, plane: Plane, segmentation: Segmentation) -> Identity:
    return (weakref.ref(image), segmentation.words, segmentation.model, segmentation.model_version,
            plane.index.shape, plane.index.hidden, plane.level,
            tuple(plane.placement.scale), tuple(plane.placement.translate))  # fmt: skip


def _vertices(region: RegionUsed, index: PlaneIndex) -> NDArray[np.float64]:
    """Corners of a region in pixels of the whole array, shape (4, N)."""
    top, left, bottom, right = np.array(region.box) - 0.5
    first_row, first_column = index.origin
    vertices = np.zeros((4, len(index.shape)))
    vertices[:, list(index.hidden)] = index.position
    vertices[:, index.displayed[0]] = np.array([top, top, bottom, bottom]) + first_row
    vertices[:, index.displayed[1]] = np.array([left, right, right, left]) + first_column
    return vertices


def _is_unchanged(layer: Shapes, known: _Proposals) -> bool:
    written = known.all()
    return len(layer.data) == len(written) and all(
        np.array_equal(now, then.vertices) for now, then in zip(layer.data, written, strict=True)
    )


def _draw(
    layer: Shapes, proposals: list[_Proposal], words: tuple[str, ...], index: PlaneIndex
) -> None:
    """Make a layer hold these regions and no others."""
    scores = [proposal.region.score for proposal in proposals]
    layer.selected_data = set()
    layer.remove(list(range(len(layer.data))))
    if not proposals:
        return
    colors = class_colors(len(words))
    layer.add_rectangles(
        [proposal.vertices for proposal in proposals],
        edge_color=[colors[proposal.word] for proposal in proposals],
        face_color="transparent",
        edge_width=max(0.5, min(index.size) * _EDGE_PART),
    )
    layer.features = {
        "word": np.array([words[proposal.word] for proposal in proposals]),
        "score": np.array([np.nan if score is None else score for score in scores]),
        "origin": np.array([proposal.region.origin for proposal in proposals]),
    }
    layer.text = {
        "string": ["" if score is None else f"{score:.2f}" for score in scores],
        "size": _TEXT_SIZE,
        "color": "white",
        "anchor": "upper_left",
    }
