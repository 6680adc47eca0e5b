"""What one step of the plugin has changed in a result layer, so that it can be changed back."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray

from napari_clsclip._layers import PlaneIndex
from napari_clsclip._object_planes import Key
from napari_clsclip._packed_states import Packable, PackedArray, raw_arrays
from napari_clsclip._result_looks import METADATA_KEY
from napari_clsclip._result_patches import PositionState, Result
from napari_clsclip._undo_history import Entry


class LayerStep:
    """Pixels and bookkeeping of a layer as they were before a step, or, once undone, after it.

    A step may go on for a while: it takes in plane after plane. Planes that it did not take in,
    those of classes that are not on screen, follow the layer's threshold by themselves.

    Parameters
    ----------
    layer : Labels
    result : Result
        What is known of it.
    restored : callable
        Called after each undo and redo with the layer and the planes or regions it is about.
    tag : object
        What kind of step it is; see :class:`LayerSteps`.
    since : LayerStep, optional
        An earlier step, of which this is the rest: undone, it changes threshold and settings back
        to what they were before that one.
    """

    def __init__(
        self,
        layer: Labels,
        result: Result,
        restored: Callable[[Labels, list[PlaneIndex]], None],
        tag: object,
        since: LayerStep | None = None,
    ) -> None:
        self.tag = tag
        self._layer = weakref.ref(layer)
        self._result = result
        self._restored = restored
        self._shape = layer.data.shape
        self._snapshot = _Snapshot(layer, result)
        if since is not None:
            self._snapshot.whole, self._snapshot.made = since._snapshot.whole, since._snapshot.made
        self.entry = Entry(layer, self)

    def include(self, index: PlaneIndex, pixels: NDArray[Any] | None = None) -> None:
        """Remember a plane or region, just before the step changes it.

        Parameters
        ----------
        index : PlaneIndex
        pixels : ndarray of int, shape ``index.size``, optional
            What is in it now, if there is a copy already.
        """
        layer = self._layer()
        if layer is not None:
            self._snapshot.include(layer, self._result, index, pixels)

    def undo(self) -> None:
        """Change everything back."""
        self._swap()

    def redo(self) -> None:
        """Do it again."""
        self._swap()

    def _swap(self) -> None:
        layer = self._layer()
        if layer is None or layer.data.shape != self._shape:
            return  # somebody has put other data into the layer
        now = self._snapshot.again(layer, self._result)
        self._snapshot.restore(layer, self._result)
        areas, self._snapshot = self._snapshot.areas, now
        self._restored(layer, areas)


class LayerSteps:
    """The latest step of each layer, which may go on.

    Parameters
    ----------
    tell_written : callable
        Called with a layer and each plane or region that an undo or redo has written.

    Attributes
    ----------
    restored : list of callable
        Each is called with a layer of which a step was undone, or done again.
    """

    def __init__(self, tell_written: Callable[[Labels, PlaneIndex], None]) -> None:
        self.restored: Final[list[Callable[[Labels], None]]] = []
        self._tell_written = tell_written
        self._latest: weakref.WeakKeyDictionary[Labels, LayerStep] = weakref.WeakKeyDictionary()
        self._adjustments = 0

    def begin(self, layer: Labels, result: Result, tag: object = None) -> LayerStep:
        """Go on with the latest step if it has the same tag and Ctrl+Z would undo it; else begin.

        Parameters
        ----------
        layer, result
            See :class:`LayerStep`.
        tag : object
            None: a step of its own.
        """
        latest = self._latest.get(layer)
        if latest is None or tag is None or latest.tag != tag or not latest.entry.is_last(layer):
            latest = self._latest[layer] = LayerStep(layer, result, self._restored, tag)
        return latest

    def adjust(self, layer: Labels, result: Result) -> LayerStep:
        """Begin a change of threshold or settings, or go on with it: one drag is one step."""
        return self.begin(layer, result, ("adjusted", self._adjustments))

    def end_adjustment(self) -> None:
        """Let the next change of threshold or settings be a step of its own."""
        self._adjustments += 1

    def forget_listeners(self) -> None:
        """Tell nobody any more of undo and redo: the widget has gone."""
        self.restored.clear()

    def _restored(self, layer: Labels, areas: list[PlaneIndex]) -> None:
        for index in areas:
            self._tell_written(layer, index)
        for listener in self.restored:
            listener(layer)

    def follow(self, layer: Labels, result: Result) -> LayerStep | None:
        """Go on with the latest step, of which a worker thread has finished a plane now.

        Returns
        -------
        LayerStep or None
            If somebody has painted since it began: a new one on top, so that all is undone in the
            order in which it was done. None if it was undone: what follows then is its undoing.
        """
        latest = self._latest.get(layer)
        if latest is None or not latest.entry.stands:
            return None
        if not latest.entry.is_last(layer):
            latest = LayerStep(layer, result, self._restored, latest.tag, latest)
            self._latest[layer] = latest
        return latest


class _Snapshot:
    """Some planes of a layer, and what is known of them."""

    def __init__(self, layer: Labels, result: Result) -> None:
        self.whole = result.whole_state()
        self.made: dict[str, Any] = dict(layer.metadata.get(METADATA_KEY, {}))
        self._pixels: dict[Key, tuple[PlaneIndex, PackedArray]] = {}
        self._states: dict[tuple[int, ...], PositionState] = {}

    @property
    def areas(self) -> list[PlaneIndex]:
        return [index for index, _ in self._pixels.values()]

    def include(
        self, layer: Labels, result: Result, index: PlaneIndex, pixels: NDArray[Any] | None
    ) -> None:
        if index.key in self._pixels:
            return
        if pixels is None:
            pixels = np.array(index.view(layer.data))
        packed = PackedArray(pixels)
        self._pixels[index.key] = index, packed
        parts: list[Packable] = [packed]
        if index.position not in self._states:
            state = self._states[index.position] = result.state(index.position)
            parts += state.parts
        raw_arrays.add(parts)

    def again(self, layer: Labels, result: Result) -> _Snapshot:
        """The same planes as they are now."""
        now = _Snapshot(layer, result)
        for index in self.areas:
            now.include(layer, result, index, None)
        return now

    def restore(self, layer: Labels, result: Result) -> None:
        result.keep_ids()
        for index, pixels in reversed(self._pixels.values()):  # the first that was taken in wins
            index.view(layer.data)[...] = pixels.get()
        for position, state in self._states.items():
            result.restore(position, state)
        result.restore_whole(self.whole)
        layer.metadata[METADATA_KEY] = dict(self.made)
        if result.objects is not None:
            layer.features = result.objects.table()
