"""Where a layer lies in the world, and where the sliders of a viewer stand in it.

Numpy only: nothing here imports Qt, and napari's objects are only read.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari.components import Dims
    from napari.layers import Image, Labels, Layer


@dataclass(frozen=True)
class Placement:
    """Where the pixels of a layer with N axes lie in the world.

    Attributes
    ----------
    scale, translate : ndarray of float, shape (N,)
        Size of a pixel and position of the first one, in ``units``.
    rotate : ndarray of float, shape (N, N)
        Rotation matrix.
    shear : ndarray of float, shape (N * (N - 1) / 2,)
        Upper triangle of the shear matrix.
    affine : ndarray of float, shape (N + 1, N + 1)
        Homogeneous matrix that is applied after the others.
    units : tuple of N pint units
        Unit of each axis.
    axis_labels : tuple of N str
        Name of each axis.
    """

    scale: NDArray[np.float64]
    translate: NDArray[np.float64]
    rotate: NDArray[np.float64]
    shear: NDArray[np.float64]
    affine: NDArray[np.float64]
    units: tuple[Any, ...]
    axis_labels: tuple[str, ...]

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments with which a layer lies there."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def moved(self, offset: NDArray[np.float64]) -> Placement:
        """Place an array whose first pixel is the one at ``offset`` (N numbers, in pixels)."""
        return replace(self, translate=self.translate + self._linear() @ offset)

    def last_axes(self, count: int) -> Placement:
        """Where an array of the last axes lies; what is done with the others has no part in it."""
        first = len(self.scale) - count
        shear = self._shear()[first:, first:]
        return Placement(
            scale=self.scale[first:],
            translate=self.translate[first:],
            rotate=self.rotate[first:, first:],
            shear=shear[np.triu_indices(count, 1)],
            affine=self.affine[first:, first:],
            units=self.units[first:],
            axis_labels=self.axis_labels[first:],
        )

    def to_pixels(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Find the pixels (not rounded) of points in the world, both of shape (n, N)."""
        linear, shift = self.affine[:-1, :-1], self.affine[:-1, -1]
        own = np.linalg.solve(linear, (points - shift).T) - self.translate[:, None]
        return np.asarray(np.linalg.solve(self._linear(), own).T, dtype=np.float64)

    def _linear(self) -> NDArray[np.float64]:
        linear: NDArray[np.float64] = self.rotate @ self._shear() @ np.diag(self.scale)
        return linear

    def _shear(self) -> NDArray[np.float64]:
        shear = np.eye(len(self.scale))
        shear[np.triu_indices(len(self.scale), 1)] = self.shear
        return shear


def placement_of(layer: Image | Labels, downsampling: NDArray[np.float64]) -> Placement:
    """Where the pixels of a resolution level lie.

    Parameters
    ----------
    layer : Image or Labels
        With N axes.
    downsampling : ndarray of float, shape (N,)
        Pixels of the finest level per pixel of this one.
    """
    return Placement(
        scale=np.asarray(layer.scale) * downsampling,
        translate=np.array(layer.translate),
        rotate=np.array(layer.rotate),
        shear=np.array(layer.shear),
        affine=np.array(layer.affine.affine_matrix),
        units=tuple(layer.units),
        axis_labels=tuple(layer.axis_labels),
    )


def slider_positions(layer: Layer, dims: Dims, hidden: list[int]) -> dict[int, float]:
    """Find the position along each hidden axis in pixels of the finest level, not rounded.

    As napari does when it slices, the axes on screen do not take part: a rotation or shear out
    of the plane is not applied.
    """
    missing = dims.ndim - layer.ndim
    point = np.zeros(layer.ndim)
    for axis in hidden:
        point[axis] = dims.point[axis + missing] * unit_ratio(layer, dims, axis)
    pixels = layer.world_to_data(point)
    return {axis: float(pixels[axis]) for axis in hidden}


def unit_ratio(layer: Layer, dims: Dims, axis: int) -> float:
    """How many of the layer's units one unit of the viewer is (napari before 0.9: the same)."""
    world_units = getattr(dims, "units", None)
    if world_units is None:
        return 1.0
    world = world_units[axis + dims.ndim - layer.ndim]
    own = layer.units[axis]
    if world == own:
        return 1.0
    return float((1 * world).to_base_units().magnitude / (1 * own).to_base_units().magnitude)
