"""The planes of a label layer that holds single objects, and one of them being brought up to date.

Nothing here imports Qt or napari; see :mod:`napari_clsclip._object_updates` for when it happens.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clsclip.config import InstanceSettings
from clsclip.errors import InvalidImageError
from napari_clsclip._layers import PlaneIndex
from napari_clsclip._predicted_objects import (
    FoundObjects,
    PredictedObjects,
    Table,
    find_objects,
)

Position = tuple[int, ...]
"""Where the sliders of the hidden axes stand, in pixels; see :attr:`PlaneIndex.position`."""

Key = tuple[int, ...]
"""A plane, or a region of one; see :attr:`PlaneIndex.key`."""


_ROWS: Final = ("top", "bottom", "centroid_row")
_COLUMNS: Final = ("left", "right", "centroid_column")


@dataclass
class ObjectPlanes:
    """The predicted planes of a layer of objects, whose ids are unique in the whole layer.

    Attributes
    ----------
    threshold : float, in (0, 1]
    settings : InstanceSettings
        What the objects of all planes are to be found with.
    planes : dict
        The planes and regions as they were last written. They do not overlap.
    painted : int
        The highest id that the user was seen to paint, or that was in use and is not any more.
    repainted : set of tuple of int
        Keys of planes in which the user may have painted since.
    restored : Table
        Rows, with those of :meth:`table`, of objects that an earlier napari found. Their
        probabilities are gone, so they are not measured anew.
    """

    threshold: float
    settings: InstanceSettings
    planes: dict[Key, tuple[PlaneIndex, PredictedObjects]] = field(default_factory=dict)
    painted: int = 0
    repainted: set[Key] = field(default_factory=set)
    restored: Table = field(default_factory=dict)

    def highest(self) -> int:
        """The highest id in use, or ever used, in all planes."""
        return max(self.painted, *(objects.highest for _, objects in self.planes.values()), 0)

    def at(self, position: Position) -> list[tuple[PlaneIndex, PredictedObjects]]:
        """What there is of one plane: itself, or regions of it. For any thread."""
        return [known for known in list(self.planes.values()) if known[0].position == position]

    def keys_at(self, position: Position | None) -> list[Key]:
        """Keys of what there is of one plane."""
        return [key for key, (index, _) in self.planes.items() if index.position == position]

    def add(self, index: PlaneIndex, objects: PredictedObjects) -> PredictedObjects:
        """Take in a plane of which nothing is the user's; returns it with ids that are free.

        Those that it covers are dropped.
        """
        for key in self.keys_at(index.position):
            if index.covers(self.planes[key][0]):
                self.drop(key)
        moved = objects.moved(self.highest())
        self.planes[index.key] = (index, moved)
        return moved

    def drop(self, key: Key) -> None:
        """Forget a plane."""
        del self.planes[key]
        self.repainted.discard(key)

    def replace_at(
        self, position: Position, known: Iterable[tuple[PlaneIndex, PredictedObjects]]
    ) -> None:
        """Put others in the place of all that there is of one plane.

        Their table is looked at again, for the user may have painted in them since it was made.
        """
        for key in self.keys_at(position):
            self.drop(key)
        for index, objects in known:
            self.planes[index.key] = (index, objects)
            self.repainted.add(index.key)

    def lagging(self, first: Position | None) -> Key | None:
        """Find a plane that is not up to date; one at ``first`` if that one is not."""
        for key in (*self.keys_at(first), *self.planes):
            if key in self.repainted or not self._is_current(self.planes[key][1]):
                return key
        return None

    def plane_table(self, index: PlaneIndex) -> Table:
        """One row per object of one of the planes."""
        return self.planes[index.key][1].table

    def table(self) -> Table:
        """One row per object of all planes; of a stack, with a column ``plane``."""
        tables = []
        for _, (index, objects) in sorted(self.planes.items(), key=lambda item: item[0]):
            table, position = dict(objects.table), index.position
            for columns, start in zip((_ROWS, _COLUMNS), index.origin, strict=True):
                for column in columns:
                    table[column] = table[column] + start
            if position:
                plane = position[0] if len(position) == 1 else ", ".join(map(str, position))
                table["plane"] = np.full(len(table["index"]), plane)
            tables.append(table)
        if self.restored:
            tables.append(self.restored)
        return {column: np.concatenate([t[column] for t in tables]) for column in tables[0]}

    def _is_current(self, objects: PredictedObjects) -> bool:
        return objects.threshold == self.threshold and objects.settings == self.settings


class PlaneUpdate:
    """A plane being brought up to date in a daemon thread of its own; the Qt thread polls it.

    Parameters
    ----------
    planes : ObjectPlanes
    key : tuple of int
        Which of the planes.
    labels : ndarray of int, shape of the layer
        The array of the layer. It is read here, and only written by :meth:`write`.
    selected : int
        The id that the user would paint with now; it is not given to a new object.
    found : FoundObjects, optional
        What an earlier update of the same plane found.

    Attributes
    ----------
    index : PlaneIndex
        Which plane or region it is about.
    error : Exception or None
        Why it failed.
    """

    def __init__(
        self,
        planes: ObjectPlanes,
        key: Key,
        labels: NDArray[Any],
        selected: int,
        found: FoundObjects | None = None,
    ) -> None:
        self.index, self._previous = planes.planes[key]
        self.error: Exception | None = None
        self._planes = planes
        self._labels = labels
        self._wanted = (planes.threshold, planes.settings)
        self._highest = planes.highest()
        self._first_free = max(self._highest, selected) + 1
        self._found = found if found is None or self._fits(found) else None
        self._snapshot: NDArray[np.int32] = np.empty((0, 0), np.int32)
        self._result = self._previous
        self._thread = threading.Thread(target=self._run, name="clsclip-objects", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether :meth:`write` may be called, or :attr:`error` says why not."""
        return not self._thread.is_alive()

    @property
    def changes(self) -> bool:
        """Whether objects or their table are others than before; only once :attr:`done`."""
        return self._result is not self._previous

    def again(self, selected: int) -> PlaneUpdate:
        """The same update for a plane that the user has painted meanwhile; finds nothing anew."""
        return PlaneUpdate(self._planes, self.index.key, self._labels, selected, self._found)

    def write(
        self, labels: NDArray[Any], before: Callable[[NDArray[np.int32]], None] | None = None
    ) -> bool | None:
        """Put the objects into the layer, if all is as it was when they were found.

        Parameters
        ----------
        labels : ndarray of int, shape of the layer
            The array of the layer now.
        before : callable, optional
            Called just before pixels are changed, with a copy of them.

        Returns
        -------
        bool or None
            True if done. False if the user has painted meanwhile, see :meth:`again`. None if
            the result is of no use any more: the plane, the threshold or the settings are others.

        Raises
        ------
        InvalidImageError
            If the ids do not fit into the data type of the layer.
        """
        planes = self._planes
        known = planes.planes.get(self.index.key)
        if labels is not self._labels or known is None or known[1] is not self._previous:
            return None
        if self._wanted != (planes.threshold, planes.settings):
            return None
        plane = self.index.view(labels)
        if self._highest != planes.highest() or not np.array_equal(plane, self._snapshot):
            return False
        if self._found is not None:
            if self._result.highest > np.iinfo(labels.dtype).max:
                raise InvalidImageError(
                    f"The label layer holds {labels.dtype} values, too few for ids up to "
                    f"{self._result.highest:,}. Convert its data type to int32."
                )
            if before is not None:
                before(self._snapshot)
            plane[...] = self._result.written
        planes.planes[self.index.key] = (self.index, self._result)
        planes.repainted.discard(self.index.key)
        return True

    def _fits(self, found: FoundObjects) -> bool:
        return (found.threshold, found.settings) == self._wanted

    def _run(self) -> None:
        try:
            self._update()
        except Exception as error:
            self.error = error

    def _update(self) -> None:
        previous = self._previous
        outdated = (previous.threshold, previous.settings) != self._wanted
        if outdated and self._found is None:
            self._found = find_objects(previous.segmentation, *self._wanted)
        # As late as possible, so that few strokes of the brush come after it.
        self._snapshot = self.index.view(self._labels).astype(np.int32)
        highest = int(self._snapshot.max(initial=0))
        if self._found is None:
            self._result = previous.repainted(self._snapshot)
        else:
            free = max(self._first_free, highest + 1)
            self._result = previous.updated(self._found, self._snapshot, free)
