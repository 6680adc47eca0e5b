"""The objects of a plane of labels, as formats want them that list objects one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label

from clsclip.batch.exports import Labelled


@dataclass(frozen=True)
class PlaneObject:
    """One object in one plane.

    Attributes
    ----------
    number : int
        Its id in the labels; of class ids, its number in the plane, from 1.
    class_id : int
        From 1.
    rows, columns : ndarray of int, shape (n,)
        Its pixels, column after column, and down within each.
    """

    number: int
    class_id: int
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Top, left, bottom, right; the last two exclusive."""
        rows = int(self.rows.min()), int(self.rows.max()) + 1
        return rows[0], int(self.columns[0]), rows[1], int(self.columns[-1]) + 1

    def crop(self) -> NDArray[np.bool_]:
        """Its mask within its box."""
        top, left, bottom, right = self.box
        mask = np.zeros((bottom - top, right - left), dtype=np.bool_)
        mask[self.rows - top, self.columns - left] = True
        return mask

    def pieces(self) -> Iterator[PlaneObject]:
        """Its connected pieces; pixels that touch at a corner are connected."""
        crop = self.crop()
        numbers = _connected(crop)
        count = int(numbers.max())
        if count == 1:
            yield self
            return
        top, left = self.box[:2]
        number = numbers[self.rows - top, self.columns - left]
        for piece in range(1, count + 1):
            mine = number == piece
            yield PlaneObject(self.number, self.class_id, self.rows[mine], self.columns[mine])


def plane_objects(labelled: Labelled, plane: int) -> list[PlaneObject]:
    """The objects of a plane, by their numbers.

    Single objects are what they are, in however many pieces. Where the labels are class ids, every
    connected piece of a class is one object; pixels that touch at a corner are connected, so that
    a thin slanting line is one. Ours.

    Parameters
    ----------
    labelled : Labelled
    plane : int
    """
    ids: NDArray[Any] = labelled.stack[plane]
    classes = labelled.class_plane(plane)
    numbers = ids if labelled.classes is not None else _connected(ids)
    turned = numbers.T  # pixels column after column
    columns, rows = np.nonzero(turned)
    values = turned[columns, rows]
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=0))
    return [
        PlaneObject(
            int(values[mine[0]]), int(classes[rows[mine[0]], columns[mine[0]]]),
            rows[mine], columns[mine],
        )
        for mine in np.split(order, starts)[1:]
    ]  # fmt: skip


def _connected(ids: NDArray[Any]) -> NDArray[np.integer[Any]]:
    """Numbers of the connected pieces of equal ids, from 1; 0 stays 0."""
    numbers: NDArray[np.integer[Any]] = label(ids, connectivity=2, background=0)  # type: ignore[no-untyped-call]
    return numbers
