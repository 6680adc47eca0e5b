"""The same object has the same id in every plane of a stack: linking by overlap. Numpy only.

Ours; the paper segments single images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clsclip.config import DEFAULT_MIN_OVERLAP
from clsclip.errors import InvalidConfigError, InvalidImageError

Labels = NDArray[np.integer[Any]]


class LabelStack(Protocol):
    """A label array that may be lazy (Dask, Zarr): it has a shape, and can be indexed."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Pixels along each axis."""
        ...

    def __getitem__(self, index: Any, /) -> Any:
        """Part of it, as something that numpy turns into an array."""
        ...


def link(
    planes: Iterable[Labels], min_overlap: float = DEFAULT_MIN_OVERLAP
) -> Iterator[NDArray[np.uint32]]:
    """Give the objects of consecutive planes the same id where they overlap.

    Each object of a plane continues at most one of the plane before, and is continued by at most
    one: the pair with the largest overlap is joined first. Of an object that splits, the part
    that overlaps it most keeps its id, the others get new ones; when objects merge, the one that
    overlaps the merged one most goes on. An object that vanishes and comes back after an empty
    plane gets a new id.

    Parameters
    ----------
    planes : iterable of ndarray of integers, all of the same shape
        Ids of single objects; 0 is background. Ids mean something within their plane only. Also
        whole volumes can be linked, e.g. those of a time series. Planes are taken one by one.
    min_overlap : float, in (0, 1]
        Overlap from which on two objects are one: their common pixels as part of the pixels that
        either covers (intersection over union).

    Yields
    ------
    ndarray of uint32, shape of the planes
        Ids 1 to n over all planes, without gaps, in the order in which the objects appear.

    Raises
    ------
    InvalidConfigError
        If ``min_overlap`` is out of range.
    InvalidImageError
        If a plane holds no integers, a negative one, or has another shape than the first.
    """
    if not 0.0 < min_overlap <= 1.0:
        raise InvalidConfigError(
            f"The smallest overlap is {min_overlap}; it must be above 0 and at most 1."
        )
    return _linked(planes, min_overlap)


def link_stack(
    labels: LabelStack,
    axes: tuple[int, ...],
    min_overlap: float = DEFAULT_MIN_OVERLAP,
    step: Callable[[], None] | None = None,
) -> NDArray[np.uint32]:
    """Link the objects of an array through one or more of its axes.

    With several axes, planes are linked along the last one first; then the volumes that this
    gives along the one before it, and so on: a time series of z-stacks, axes (t, z), becomes
    objects in space that are followed through time.

    Parameters
    ----------
    labels : array of integers, any number of axes
        Ids of single objects; 0 is background. A lazy array is computed plane by plane.
    axes : tuple of int
        The axes to link through, ascending; the others are those of a plane.
    min_overlap : float, in (0, 1]
        See :func:`link`.
    step : callable, optional
        Called before each plane is read; what it raises ends the work.

    Returns
    -------
    ndarray of uint32, shape of ``labels``
        Ids 1 to n without gaps.

    Raises
    ------
    InvalidConfigError, InvalidImageError
        See :func:`link`.
    """

    def gathered(index: tuple[int | slice, ...], through: tuple[int, ...]) -> NDArray[Any]:
        if not through:
            if step is not None:
                step()
            return np.asarray(labels[index])
        axis, rest = through[0], through[1:]
        parts = (
            gathered((*index[:axis], position, *index[axis + 1 :]), rest)
            for position in range(labels.shape[axis])
        )
        fixed = sum(isinstance(part, int) for part in index[:axis])
        return np.stack(list(link(parts, min_overlap)), axis=axis - fixed)

    if not axes or 0 in labels.shape:
        raise InvalidImageError(
            f"A label array of shape {labels.shape} has no planes that could be linked. Choose a "
            "layer with an axis such as z or time."
        )
    return gathered((slice(None),) * len(labels.shape), axes)


def _linked(planes: Iterable[Labels], min_overlap: float) -> Iterator[NDArray[np.uint32]]:
    before: NDArray[np.intp] | None = None
    ids_before = np.zeros(1, np.uint32)
    count = 0
    for plane in planes:
        if before is not None and plane.shape != before.shape:
            raise InvalidImageError(
                f"A plane has the shape {plane.shape}, the one before it {before.shape}. Only "
                "planes of one size can be linked."
            )
        objects, number = _numbered(plane)
        ids = np.zeros(number + 1, np.uint32)
        if before is not None:
            for old, new in _pairs(before, len(ids_before) - 1, objects, number, min_overlap):
                ids[new] = ids_before[old]
        fresh = np.flatnonzero(ids[1:] == 0) + 1
        ids[fresh] = np.arange(count + 1, count + 1 + len(fresh))
        count += len(fresh)
        yield ids[objects]
        before, ids_before = objects, ids


def _numbered(plane: Labels) -> tuple[NDArray[np.intp], int]:
    """Number the objects of a plane 1 to n, ascending by id; also return n."""
    if plane.dtype.kind not in "iu":
        raise InvalidImageError(
            f"A plane holds {plane.dtype} values; only integer ids of objects can be linked."
        )
    if plane.dtype.kind == "i" and plane.size and int(plane.min()) < 0:
        raise InvalidImageError(
            f"A plane holds the id {int(plane.min())}; ids of objects are 1 or more, 0 is "
            "background."
        )
    ids, objects = np.unique(plane, return_inverse=True)
    # Background may be missing; then the first object would get its number.
    objects = objects.reshape(plane.shape) + int(not (len(ids) and ids[0] == 0))
    return objects, int(np.count_nonzero(ids))


def _pairs(
    before: NDArray[np.intp], old_count: int, after: NDArray[np.intp], new_count: int,
    min_overlap: float,
) -> Iterator[tuple[int, int]]:  # fmt: skip
    """Pairs of objects that are one, one-to-one, by descending intersection over union."""
    both = (before > 0) & (after > 0)
    code, common = np.unique(before[both] * (new_count + 1) + after[both], return_counts=True)
    old, new = np.divmod(code, new_count + 1)
    old_area = np.bincount(before.ravel(), minlength=old_count + 1)
    new_area = np.bincount(after.ravel(), minlength=new_count + 1)
    overlap = common / (old_area[old] + new_area[new] - common)
    taken_old, taken_new = set[int](), set[int]()
    for best in np.argsort(-overlap, kind="stable"):
        if overlap[best] < min_overlap:
            return
        a, b = int(old[best]), int(new[best])
        if a not in taken_old and b not in taken_new:
            taken_old.add(a)
            taken_new.add(b)
            yield a, b
