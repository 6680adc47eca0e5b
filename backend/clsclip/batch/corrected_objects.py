"""The table of single objects after a person has corrected them (ours).

Nothing here imports torch.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from clsclip.errors import FileError
from clsclip.instance_features import instance_features

PLANE: Final = "plane"
"""Column of the table of a stack."""


def classes_after(
    labels: NDArray[Any], before: NDArray[Any], classes: NDArray[Any], words: int
) -> dict[int, int]:
    """Class of every object of corrected labels.

    An id that was there keeps its class. A new one gets the class that most of its pixels had
    before; where they were background, that of the nearest object; where there is none, the first.

    Parameters
    ----------
    labels, before : ndarray of int, both of shape (H, W) or (planes, H, W)
        Ids of objects after and before the correction.
    classes : ndarray of int, shape (n,)
        ``classes[i - 1]`` is the class id of object ``i`` before, 0 if there was none.
    words : int
        Number of classes.

    Returns
    -------
    dict of int to int
        Class ids, 1 to ``words``, by ids of objects in their order.
    """
    ids = np.unique(labels)
    ids = ids[ids > 0]
    found = {int(i): int(classes[i - 1]) for i in ids if i <= len(classes) and classes[i - 1] > 0}
    fresh = np.array([i for i in ids if int(i) not in found], labels.dtype)
    if not len(fresh):
        return found
    table = np.concatenate([[0], classes]).astype(np.intp)
    were = table[before]
    votes = _votes(labels, fresh, were, words)
    lonely = votes.sum(axis=1) == 0
    if lonely.any() and words > 1 and were.any():
        nearest = ndimage.distance_transform_edt(
            were == 0, return_distances=False, return_indices=True
        )
        votes[lonely] = _votes(labels, fresh[lonely], were[tuple(nearest)], words)
    chosen = votes.argmax(axis=1) + 1  # of no votes at all, the first
    found |= {int(i): int(class_id) for i, class_id in zip(fresh, chosen, strict=True)}
    return dict(sorted(found.items()))


def _votes(
    labels: NDArray[Any], ids: NDArray[Any], classes: NDArray[np.intp], words: int
) -> NDArray[np.intp]:
    """Pixels of each object on each class, shape (len(ids), words); ``ids`` ascend."""
    own = np.isin(labels, ids)
    rows = np.searchsorted(ids, labels[own])
    counts = np.bincount(rows * (words + 1) + classes[own], minlength=len(ids) * (words + 1))
    return counts.reshape(len(ids), words + 1)[:, 1:]


def features_after(
    labels: NDArray[Any],
    before: NDArray[Any],
    probabilities: dict[tuple[int, int], float],
    classes: dict[int, int],
    words: tuple[str, ...],
) -> dict[str, NDArray[Any]]:
    """Measures of corrected objects, with the columns of the table that labelling writes.

    Parameters
    ----------
    labels, before : ndarray of int, both of shape (H, W) or (planes, H, W)
        Ids of objects after and before the correction.
    probabilities : dict of (int, int) to float
        Mean probability of each object before; see :func:`read_probabilities`.
    classes : dict of int to int
        Of :func:`classes_after`.
    words : tuple of str

    Returns
    -------
    dict of str to ndarray, shape (n,)
        See :func:`clsclip.instances.segmented_instances`; of a stack, a row for each plane of an
        object, with its number as ``plane``. ``mean_probability`` is NaN for objects that a person
        drew or changed: the model never judged their pixels.
    """
    if labels.ndim == 2:
        return _plane_features(labels, before, probabilities, classes, words, 0)
    tables = []
    for number, (plane, old) in enumerate(zip(labels, before, strict=True)):
        table = _plane_features(plane, old, probabilities, classes, words, number)
        tables.append({**table, PLANE: np.full(len(table["label"]), number)})
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def _plane_features(
    labels: NDArray[Any],
    before: NDArray[Any],
    probabilities: dict[tuple[int, int], float],
    classes: dict[int, int],
    words: tuple[str, ...],
    plane: int,
) -> dict[str, NDArray[Any]]:
    table = instance_features(labels, np.zeros(labels.shape, np.float32))
    ids = table["label"]
    named: dict[str, NDArray[Any]] = {}
    for name, column in table.items():
        named[name] = column
        if name == "label":
            named["class"] = np.array([words[classes[int(i)] - 1] for i in ids], np.str_)
    known = [probabilities.get((plane, int(i)), np.nan) for i in ids]
    named["mean_probability"] = np.where(_unchanged(labels, before, ids), known, np.nan)
    return named


def _unchanged(labels: NDArray[Any], before: NDArray[Any], ids: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether each object has exactly the pixels that it had; ``ids`` ascend."""
    counts = []
    for plane in (labels, before, np.where(labels == before, labels, 0)):
        own = np.isin(plane, ids)
        counts.append(np.bincount(np.searchsorted(ids, plane[own]), minlength=len(ids)))
    same: NDArray[np.bool_] = (counts[0] == counts[1]) & (counts[0] == counts[2])
    return same


def read_probabilities(table: Path) -> dict[tuple[int, int], float]:
    """Mean probability of each object of a table, by plane and id; NaN where it is not known.

    Raises
    ------
    FileError
        If the table cannot be read.
    """
    try:
        with table.open(newline="", encoding="utf-8") as stream:
            return {
                (int(row.get(PLANE) or 0), int(row["label"])): float(row["mean_probability"])
                for row in csv.DictReader(stream)
            }
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, ValueError, TypeError) as error:
        raise FileError(f"'{table}' cannot be read as a table of objects ({error!r}).") from error
