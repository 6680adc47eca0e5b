"""Objects of one predicted plane: their ids last, and what the user painted stays.

Numpy only. Everything here that takes more than a look at the pixels is for worker threads: it
changes nothing in place, so that the layer can go on being painted meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clsclip.config import InstanceSettings
from clsclip.errors import InvalidImageError
from clsclip.segmentation import Segmentation
from napari_clsclip._user_pixels import UserPixels

Ids = NDArray[np.int32]
Table = dict[str, NDArray[Any]]
"""One row per object; see ``COLUMNS``."""

COLUMNS: Final = {
    "index": "label",
    "class": "class",
    "score": "mean_probability",
    "area": "area",
    "top": "top",
    "left": "left",
    "bottom": "bottom",
    "right": "right",
    "centroid_row": "centroid_row",
    "centroid_column": "centroid_column",
    "equivalent_diameter": "equivalent_diameter",
    "eccentricity": "eccentricity",
    "solidity": "solidity",
}
"""Columns of a layer's table, and those of :func:`clsclip.instance_features.instance_features`."""

_HIGHEST_ID: Final = int(np.iinfo(np.int32).max)


@dataclass(frozen=True)
class FoundObjects:
    """Objects of a plane at one threshold.

    Attributes
    ----------
    labels : ndarray of int32, shape (H, W)
        0 is background; objects are 1 to n.
    table : dict of str to ndarray, shape (n,)
        One row per object, in the order of the ids.
    threshold : float, in (0, 1]
    settings : InstanceSettings
    """

    labels: Ids
    table: Table
    threshold: float
    settings: InstanceSettings


def find_objects(
    segmentation: Segmentation, threshold: float, settings: InstanceSettings
) -> FoundObjects:
    """Find the objects of all words; takes seconds for a large plane."""
    # Imported late, because scikit-image takes a good part of a second.
    from clsclip.instances import InstanceOptions, segmented_instances

    labels, found = segmented_instances(segmentation, threshold, InstanceOptions.of(settings))
    table = {column: found[name] for column, name in COLUMNS.items()}
    return FoundObjects(labels.astype(np.int32), table, threshold, settings)


@dataclass(frozen=True)
class PredictedObjects:
    """Objects of one plane of a label layer, as they were last written.

    An object that is found again at another threshold keeps its id. So does one that vanishes
    and comes back. One that the user has painted over is not found again.

    Attributes
    ----------
    segmentation : Segmentation
        Probabilities of shape (K, H, W).
    threshold : float, in (0, 1]
    settings : InstanceSettings
        With which threshold and settings the objects were found.
    written : ndarray of int32, shape (H, W)
        The plane with the ids, including those that the user painted.
    last : ndarray of int32, shape (H, W)
        Id of the object that was last found at each pixel, at whatever threshold.
    classes : mapping of int to int
        Index of the word of each id that was ever found.
    table : dict of str to ndarray
        One row per id of ``written``, ascending.
    user : UserPixels
        Pixels that the user has changed.
    taken : frozenset of int
        Ids of objects that the user has painted over, or erased, as a whole.
    """

    segmentation: Segmentation
    threshold: float
    settings: InstanceSettings
    written: Ids
    last: Ids
    classes: Mapping[int, int]
    table: Table
    user: UserPixels = field(default_factory=UserPixels)
    taken: frozenset[int] = frozenset()

    @classmethod
    def first(cls, segmentation: Segmentation, found: FoundObjects) -> PredictedObjects:
        """Objects of a plane that holds nothing of the user, with the ids 1 to n."""
        return cls(segmentation, found.threshold, found.settings, found.labels, found.labels,
                   _classes(segmentation, found.table["index"], found), found.table)  # fmt: skip

    @property
    def highest(self) -> int:
        """The highest id that was ever given to an object of this plane, or painted in it."""
        shown = int(self.table["index"].max(initial=0))
        return max(shown, max(self.classes, default=0))

    def changes(self, labels: Ids) -> NDArray[np.bool_]:
        """Pixels that the user has changed in the plane, given as it is in the layer now."""
        changed = self.user.updated(labels, self.written).changed
        return np.zeros(labels.shape, np.bool_) if changed is None else changed

    def write_first(self, labels: Ids) -> None:
        """Put the ids into every pixel of a plane that holds nothing of the user."""
        labels[...] = self.written

    def moved(self, offset: int) -> PredictedObjects:
        """The same objects with higher ids. Only before anything was painted.

        Raises
        ------
        InvalidImageError
            If the ids would be too high for a label layer.
        """
        if offset == 0:
            return self
        _check_id(offset + self.highest)
        written = np.where(self.written > 0, self.written + np.int32(offset), np.int32(0))
        classes = {number + offset: word for number, word in self.classes.items()}
        table = {**self.table, "index": self.table["index"] + offset}
        return replace(self, written=written, last=written, classes=classes, table=table)

    def repainted(self, labels: Ids) -> PredictedObjects:
        """Take in what the user has painted since the last look.

        Parameters
        ----------
        labels : ndarray of int32, shape (H, W)
            The plane as it is in the layer now.

        Returns
        -------
        PredictedObjects
            With the table of what is in the layer now; this one if nothing was painted.
        """
        user = self.user.updated(labels, self.written)
        if user is self.user:
            return self
        different = labels != self.written
        touched = np.union1d(labels[different], self.written[different])
        changed = replace(self, user=user, taken=self._taken(user, labels), written=labels)
        return replace(changed, table=changed._measured(self.table, touched))

    def updated(self, found: FoundObjects, labels: Ids, first_free: int) -> PredictedObjects:
        """Take in what was found at another threshold or with other settings.

        Parameters
        ----------
        found : FoundObjects
            Objects of the same probabilities.
        labels : ndarray of int32, shape (H, W)
            The plane as it is in the layer now.
        first_free : int
            This and all higher ids are given to no object of the layer and painted nowhere.

        Raises
        ------
        InvalidImageError
            If the ids would be too high for a label layer.
        """
        user = self.user.updated(labels, self.written)
        taken = self.taken if user is self.user else self._taken(user, labels)
        changed = user.changed if user else None
        ids = _ids(found.labels, self.last, changed, taken, first_free)
        predicted = ids[found.labels]
        written = predicted.copy()
        touched = np.empty(0, np.int32)
        if changed is not None:
            written[changed] = labels[changed]
            touched = np.union1d(predicted[changed], labels[changed])
        new = replace(
            self, threshold=found.threshold, settings=found.settings, written=written,
            last=np.where(predicted > 0, predicted, self.last),
            classes={**self.classes, **_classes(self.segmentation, ids[1:], found)},
            user=user, taken=taken,
        )  # fmt: skip
        shown = ids[1:] > 0
        table = {column: values[shown] for column, values in found.table.items()}
        table["index"] = ids[1:][shown]
        return replace(new, table=new._measured(table, touched))

    def _taken(self, user: UserPixels, labels: Ids) -> frozenset[int]:
        """Ids of objects of which nothing is left but what the user has changed."""
        changed, before = user.changed, user.before
        if changed is None or before is None:
            return self.taken
        new = changed if self.user.changed is None else changed & ~self.user.changed
        painted_over = set(np.unique(before[new]).tolist()) - {0}
        left = set(np.unique(labels[~changed]).tolist())
        return frozenset((self.taken | painted_over) - left)

    def _measured(self, table: Table, touched: NDArray[Any]) -> Table:
        """Rows of some ids anew, from what is written; the others as they are."""
        touched = touched[touched > 0]
        if touched.size:
            kept = ~np.isin(table["index"], touched)
            anew = self._measure(touched)
            table = {
                column: np.concatenate([values[kept], anew[column]])
                for column, values in table.items()
            }
        order = np.argsort(table["index"], kind="stable")
        return {column: values[order] for column, values in table.items()}

    def _measure(self, ids: NDArray[Any]) -> Table:
        """Rows of those of some ids that are written."""
        from clsclip.instance_features import instance_features

        inside = np.isin(self.written, ids)
        present, compact = np.unique(self.written[inside], return_inverse=True)
        labels = np.zeros(self.written.shape, np.int32)
        labels[inside] = compact + 1
        words = self.segmentation.words
        only = 0 if len(words) == 1 else -1
        classes = np.array([self.classes.get(int(i), only) for i in present], dtype=np.intp)
        of_pixel = classes[compact]
        probabilities = self.segmentation.probabilities[:, inside]
        best = np.where(of_pixel < 0, probabilities.argmax(0), of_pixel)
        own = np.zeros(self.written.shape, np.uint8)
        own[inside] = np.take_along_axis(probabilities, best[None], 0)[0]
        measures: Table = dict(instance_features(labels, own))
        measures["label"] = present
        measures["class"] = np.array(["" if k < 0 else words[k] for k in classes], dtype=np.str_)
        return {column: measures[name] for column, name in COLUMNS.items()}


def _classes(segmentation: Segmentation, ids: NDArray[Any], found: FoundObjects) -> dict[int, int]:
    """Index of the word of each object, by the id that it was given."""
    index = {word: k for k, word in enumerate(segmentation.words)}
    names = found.table["class"].tolist()
    return {i: index[name] for i, name in zip(ids.tolist(), names, strict=True) if i > 0}


def _ids(
    found: Ids,
    last: Ids,
    changed: NDArray[np.bool_] | None,
    taken: frozenset[int],
    first_free: int,
) -> Ids:
    """Id in the layer of each found object, 0 for one that is not to be shown; of 0, 0."""
    count = int(found.max(initial=0))
    areas = np.bincount(found.ravel(), minlength=count + 1)
    both = (found > 0) & (last > 0)
    base = int(last.max(initial=0)) + 1
    keys, overlaps = np.unique(found[both] * np.int64(base) + last[both], return_counts=True)
    pairs = np.stack(np.divmod(keys, base))
    is_taken = np.isin(pairs[1], list(taken))
    ids = np.zeros(count + 1, np.int32)
    mutual = _mutual(pairs[:, ~is_taken], overlaps[~is_taken])
    ids[mutual[0]] = mutual[1]
    fresh = ids == 0
    fresh[0] = False
    # The user has erased or redrawn this object, or what is now most of it.
    of_taken = pairs[:, is_taken]
    known, sizes = np.unique(last[last > 0], return_counts=True)
    smaller = np.minimum(areas[of_taken[0]], sizes[np.searchsorted(known, of_taken[1])])
    fresh[of_taken[0][2 * overlaps[is_taken] >= smaller]] = False
    if changed is not None:
        painted = np.bincount(found[changed], minlength=count + 1)
        fresh &= 2 * painted < areas
    _check_id(first_free + int(fresh.sum()) - 1)
    ids[fresh] = first_free + np.arange(fresh.sum())
    return ids


def _mutual(pairs: NDArray[np.int64], overlaps: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those pairs in which each is the one with which the other shares most pixels."""
    best = np.zeros(len(overlaps), dtype=np.int8)
    order = np.argsort(-overlaps, kind="stable")
    for side in pairs:
        _, first = np.unique(side[order], return_index=True)
        best[order[first]] += 1
    return pairs[:, best == 2]


def _check_id(highest: int) -> None:
    if highest > _HIGHEST_ID:
        raise InvalidImageError(
            f"The label layer holds ids so high that new objects would go beyond {_HIGHEST_ID:,}. "
            "Paint with lower ids, or segment into a new layer."
        )
