"""What is remembered about a result layer: its predicted planes and regions, and who painted."""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from napari.layers import Image
from numpy.typing import NDArray

from clsclip.config import InstanceSettings
from clsclip.wire import SegmentRequest
from napari_clsclip._layers import Plane, PlaneIndex
from napari_clsclip._object_planes import ObjectPlanes
from napari_clsclip._packed_states import Packable, PackedObjects, PackedPlane
from napari_clsclip._predicted_objects import PredictedObjects
from napari_clsclip._predicted_plane import PredictedPlane

Prediction = PredictedPlane | PredictedObjects
"""What is put into a layer of classes, or into one of objects."""

Settings = Hashable
"""What a plane was asked with; equal settings need no second segmentation."""


def settings_of(request: SegmentRequest | None, plane: Plane) -> Settings:
    """What decides a prediction: the request without its image, and the channels."""
    if request is not None and request.attention:
        request = request.model_copy(update={"attention": False})
    return request, plane.channels


@dataclass(frozen=True)
class Identity:
    """What planes of one layer have in common, beside image and weights."""

    words: tuple[str, ...]
    model: str
    objects: bool
    shape: tuple[int, ...]
    hidden: tuple[int, ...]
    level: int
    origin: tuple[int, ...] | None


def identity_of(plane: Plane, words: tuple[str, ...], model: str, objects: bool) -> Identity:
    """What a plane has in common with others of its layer."""
    index = plane.index
    return Identity(words, model, objects, index.shape, index.hidden, plane.level, plane.origin)


@dataclass(frozen=True)
class Patch:
    """A plane or region that was predicted, and what it was asked with."""

    index: PlaneIndex
    predicted: PredictedPlane
    settings: Settings


@dataclass(frozen=True)
class WholeState:
    """What is remembered of a layer, but of none of its planes in particular."""

    threshold: float
    objects: tuple[float, InstanceSettings] | None


@dataclass(frozen=True)
class PositionState:
    """What is remembered of the planes and regions at one position."""

    patches: tuple[tuple[Patch, PackedPlane], ...]
    objects: tuple[tuple[PlaneIndex, PackedObjects], ...]
    asked: dict[tuple[int, ...], Settings]

    @property
    def parts(self) -> list[Packable]:
        """What can be packed."""
        return [*(state for _, state in self.patches), *(state for _, state in self.objects)]


@dataclass
class Result:
    """What is remembered about a result layer.

    Of a layer of classes, each pixel belongs to at most one patch: the latest one that covers
    it. Of a layer of objects, planes and regions do not overlap: an object would be cut.

    Attributes
    ----------
    image : weak reference to Image
    identity : Identity
    model_version : str
    threshold : float, in (0, 1]
    patches : dict of tuple of int to list of Patch
        By position.
    objects : ObjectPlanes or None
        The planes instead of ``patches``, if the layer holds objects.
    """

    image: weakref.ref[Image]
    identity: Identity
    model_version: str
    threshold: float
    patches: dict[tuple[int, ...], list[Patch]] = field(default_factory=dict)
    objects: ObjectPlanes | None = None
    _asked: dict[tuple[int, ...], Settings] = field(default_factory=dict)

    def put(
        self,
        index: PlaneIndex,
        predicted: Prediction,
        settings: Settings,
        threshold: float,
    ) -> Prediction:
        """Take in a plane or region in which nothing is the user's; returns what to write.

        ``threshold`` is that of the layer from now on. Objects that were found at another one,
        or with other settings than the layer's, lag behind and are found anew.
        """
        self.threshold = threshold
        if isinstance(predicted, PredictedPlane):
            self._put_patch(Patch(index, predicted, settings))
            return predicted
        if self.objects is None:
            self.objects = ObjectPlanes(threshold, predicted.settings)
        self.objects.threshold = threshold
        self._asked[index.key] = settings
        return self.objects.add(index, predicted)

    def done(self, settings: Settings) -> frozenset[tuple[int, ...]]:
        """Positions of the planes that are there whole, asked with the same settings."""
        if self.objects is not None:
            return frozenset(
                index.position
                for key, (index, _) in self.objects.planes.items()
                if index.whole and self._asked.get(key) == settings
            )
        return frozenset(
            position
            for position, patches in self.patches.items()
            if any(patch.settings == settings and patch.index.whole for patch in patches)
        )

    @property
    def words(self) -> tuple[str, ...]:
        """The words that the layer is about."""
        return self.identity.words

    @property
    def level(self) -> int:
        """Resolution level of the image."""
        return self.identity.level

    def known(self, position: tuple[int, ...]) -> list[PlaneIndex]:
        """What was predicted of a plane: itself, or regions of it."""
        if self.objects is not None:
            return [index for index, _ in self.objects.at(position)]
        return [patch.index for patch in self.patches.get(position, [])]

    def everything(self) -> list[PlaneIndex]:
        """All planes and regions that were predicted."""
        if self.objects is not None:
            return [index for index, _ in self.objects.planes.values()]
        return [patch.index for patches in self.patches.values() for patch in patches]

    def at(self, position: tuple[int, ...]) -> bool:
        """Whether anything was predicted in a plane."""
        return bool(self.known(position))

    def whole_state(self) -> WholeState:
        """What is remembered now, for :meth:`restore_whole`."""
        objects = self.objects
        settings = None if objects is None else (objects.threshold, objects.settings)
        return WholeState(self.threshold, settings)

    def restore_whole(self, state: WholeState) -> None:
        """Go back to an earlier threshold and settings; planes that have others lag behind."""
        self.threshold = state.threshold
        if self.objects is not None and state.objects is not None:
            self.objects.threshold, self.objects.settings = state.objects

    def state(self, position: tuple[int, ...]) -> PositionState:
        """What is remembered of a plane now, for :meth:`restore`."""
        patches = self.patches.get(position, [])
        known = [] if self.objects is None else self.objects.at(position)
        return PositionState(
            tuple((patch, PackedPlane(patch.predicted.state)) for patch in patches),
            tuple((index, PackedObjects(objects)) for index, objects in known),
            {index.key: self._asked[index.key] for index, _ in known if index.key in self._asked},
        )

    def restore(self, position: tuple[int, ...], state: PositionState) -> None:
        """Remember what was remembered when the plane held what it is given back now."""
        for patch, plane in state.patches:
            patch.predicted.restore(plane.get())
        if state.patches:
            self.patches[position] = [patch for patch, _ in state.patches]
        else:
            self.patches.pop(position, None)
        if self.objects is not None:
            self.objects.replace_at(position, [(i, packed.get()) for i, packed in state.objects])
            self._asked.update(state.asked)

    def keep_ids(self) -> None:
        """Give no id that is in use now to another object, also once it is not in use any more."""
        if self.objects is not None:
            self.objects.painted = self.objects.highest()

    def takes(self, index: PlaneIndex) -> bool:
        """Whether a plane or region may be put here: whether it cuts through no other objects."""
        return self.objects is None or all(
            index.overlap(known) is None or index.covers(known)
            for known, _ in self.objects.at(index.position)
        )

    def holds_user_pixels(self, labels: NDArray[Any], index: PlaneIndex) -> bool:
        """Whether the user has changed a pixel of a plane or region.

        Parameters
        ----------
        labels : ndarray of int, shape of the layer
        index : PlaneIndex
        """
        if not self.known(index.position):
            return bool(index.view(labels).any())
        user = index.view(labels) != 0
        for known, changed, owned in self._changes(labels, index.position):
            here, there = index.overlap(known), known.overlap(index)
            if here is None or there is None:
                continue
            turned = known.transposed != index.transposed
            mine, theirs = (p[there].T if turned else p[there] for p in (changed, owned))
            user[here] = np.where(theirs, mine, user[here])
        return bool(user.any())

    def _changes(
        self, labels: NDArray[Any], position: tuple[int, ...]
    ) -> Iterator[tuple[PlaneIndex, NDArray[np.bool_], NDArray[np.bool_]]]:
        """For each plane or region: changed pixels, and those that it answers for."""
        if self.objects is not None:
            for index, objects in self.objects.at(position):
                changed = objects.changes(index.view(labels))
                yield index, changed, np.ones_like(changed)
            return
        for patch in self.patches.get(position, []):
            changed, owned = patch.predicted.changes(patch.index.view(labels))
            yield patch.index, changed, owned

    def _put_patch(self, patch: Patch) -> None:
        """Add a patch; those below it cede their pixels to it."""
        kept = []
        for older in self.patches.get(patch.index.position, []):
            area = older.index.overlap(patch.index)
            if area is not None:
                if patch.index.covers(older.index):
                    continue
                older.predicted.cede(area)
            kept.append(older)
        self.patches[patch.index.position] = [*kept, patch]
