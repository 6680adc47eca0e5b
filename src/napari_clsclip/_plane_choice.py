"""More or less than the plane on screen: all planes of an image, or the region in view.

Numpy only: nothing here imports Qt, and napari's objects are only read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any, Final, overload

import numpy as np
from numpy.typing import NDArray

from clsclip.errors import InvalidImageError
from napari_clsclip._large_settings import large_settings
from napari_clsclip._layers import Plane, PlaneIndex, require_readable
from napari_clsclip._placement import unit_ratio

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

_FEWEST_PIXELS: Final = 2
"""A region has at least so many rows and columns, unless the plane itself has fewer."""


class EveryPlane(Sequence[Plane]):
    """All planes of an image, made one by one as they are asked for.

    Parameters
    ----------
    plane : Plane
        One of them. It comes first, then those after it, then those before it, the last hidden
        axis fastest.

    Attributes
    ----------
    positions : tuple of tuple of int
        Where the planes are along the hidden axes.
    """

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        index = plane.index
        positions = tuple(product(*(range(index.shape[axis]) for axis in index.hidden)))
        here = positions.index(index.position)
        self.positions: Final = positions[here:] + positions[:here]

    def __len__(self) -> int:
        return len(self.positions)

    @overload
    def __getitem__(self, number: int) -> Plane: ...

    @overload
    def __getitem__(self, number: slice) -> Sequence[Plane]: ...

    def __getitem__(self, number: int | slice) -> Plane | Sequence[Plane]:
        if isinstance(number, slice):
            return [self.at(position) for position in self.positions[number]]
        return self.at(self.positions[number])

    def at(self, position: tuple[int, ...]) -> Plane:
        """Return the plane at a position along the hidden axes."""
        index = self._plane.index
        parts = list(index.index)
        for axis, value in zip(index.hidden, position, strict=True):
            parts[axis] = value
        return replace(self._plane, index=replace(index, index=tuple(parts)))


def plane_count(plane: Plane) -> int:
    """How many planes the image of a plane has."""
    return int(np.prod([plane.index.shape[axis] for axis in plane.index.hidden], dtype=np.int64))


def count_in_words(plane: Plane) -> str:
    """How many planes an image has, and how they come about: ``50 (10 x 5)``."""
    lengths = [plane.index.shape[axis] for axis in plane.index.hidden]
    varying = " x ".join(f"{length:,}" for length in lengths if length > 1)
    count = f"{plane_count(plane):,}"
    return f"{count} ({varying})" if " x " in varying else count


def visible_region(plane: Plane, layer: Image, viewer: ViewerModel) -> Plane:
    """Take only what the canvas shows of a plane.

    Parameters
    ----------
    plane : Plane
        Made with ``whole=False``, at any resolution level.
    layer : Image
        The layer it is a plane of.
    viewer : ViewerModel
        Its camera tells what is in view.

    Returns
    -------
    Plane
        The smallest rectangle of pixels that holds all that is in view: of a rotated layer that
        is more than what is in view. If the whole plane is too large to get labels, the region
        counts as an image of its own.

    Raises
    ------
    InvalidImageError
        If (almost) nothing of the layer is in view, or too many pixels are.
    """
    index = plane.index
    parts = list(index.index)
    first, last = _corners(layer, viewer)
    for axis in index.displayed:
        length = index.shape[axis]
        own = axis - len(index.shape)  # from the end: the layer may have an axis of channels, too
        # From pixels of the finest level to those of the plane, which reach half a pixel around.
        ratio = length / layer.level_shapes[0][own]
        start = max(0, int(np.floor(first[own] * ratio + 0.5)))
        stop = min(length, int(np.ceil(last[own] * ratio + 0.5)))
        if stop - start < min(_FEWEST_PIXELS, length):
            raise InvalidImageError(
                f"Nothing of the image '{plane.image}' is in view. Move it into view (the home "
                "button below the layer list), or choose another scope than the visible region."
            )
        whole = stop - start == length
        parts[axis] = slice(None) if whole else slice(start, stop)
    region = replace(plane, index=replace(index, index=tuple(parts)))
    require_readable(region.index, plane.image)
    pixels = np.prod([index.shape[axis] for axis in index.displayed], dtype=np.float64)
    return _cropped(region) if pixels > large_settings().large_from else region


def _corners(layer: Image, viewer: ViewerModel) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """First and last position in view along each axis, in pixels of the finest level."""
    dims = viewer.dims
    if hasattr(viewer, "scene"):
        camera, size = viewer.scene.camera, viewer.canvas.size
    else:  # napari before 0.9
        camera, size = viewer.camera, viewer._canvas_size
    missing = dims.ndim - layer.ndim
    point = np.array(dims.point, dtype=np.float64)
    corners = []
    for signs in product((-0.5, 0.5), repeat=2):
        for k, axis in enumerate(dims.displayed):
            point[axis] = camera.center[k - 2] + signs[k] * size[k] / camera.zoom
        own = [point[axis + missing] * unit_ratio(layer, dims, axis) for axis in range(layer.ndim)]
        corners.append(layer.world_to_data(own))
    return np.min(corners, axis=0), np.max(corners, axis=0)


def _cropped(region: Plane) -> Plane:
    """The region as an image of its own, with its own place in the world."""
    index = region.index
    start = tuple(
        0 if isinstance(part, int) else part.indices(length)[0]
        for part, length in zip(index.index, index.shape, strict=True)
    )
    shape = list(index.shape)
    for axis, length in zip(index.displayed, index.size, strict=True):
        shape[axis] = length
    parts = tuple(part if isinstance(part, int) else slice(None) for part in index.index)
    return replace(
        region,
        source=_Crop(region.source, index.index),
        index=PlaneIndex(parts, index.displayed, tuple(shape)),
        placement=region.placement.moved(np.array(start, dtype=np.float64)),
        origin=start,
    )


@dataclass(frozen=True)
class _Crop:
    """Part of an array that may be lazy; indexed like an array of that part's size."""

    source: Any
    region: tuple[int | slice, ...]

    def __getitem__(self, index: tuple[int | slice, ...]) -> Any:
        own = tuple(
            part if isinstance(part, int) else region
            for part, region in zip(index, self.region, strict=False)
        )
        return self.source[own + index[len(own) :]]
