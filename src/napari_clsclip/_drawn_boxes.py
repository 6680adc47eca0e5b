"""From the shapes that a person drew on an image to the boxes of a request.

Numpy only: nothing here imports Qt, and napari's objects are only read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from clsclip.errors import InvalidConfigError
from clsclip.wire import MAX_DRAWN_BOXES
from napari_clsclip._placement import slider_positions, unit_ratio

if TYPE_CHECKING:
    from napari.components import Dims
    from napari.layers import Image, Shapes

    from napari_clsclip._layers import Plane

_HALF_PIXEL: Final = 0.5  # the middle of napari's first pixel is 0, and so is the edge of a box's
_HALF_PLANE: Final = 0.5

Box = tuple[float, float, float, float]
Points = NDArray[np.float64]


@dataclass(frozen=True)
class DrawnBoxes:
    """Upright boxes around drawn shapes.

    Attributes
    ----------
    boxes : tuple of tuple of 4 float
        Top, left, bottom, right as :data:`clsclip.wire.DrawnBox` has them, cut off at the edges
        of the image.
    left_out : str
        A sentence about shapes that are not among them, and why. Empty if all are.
    """

    boxes: tuple[Box, ...] = ()
    left_out: str = ""


def drawn_boxes(shapes: Shapes, image: Image, plane: Plane, dims: Dims) -> DrawnBoxes:
    """The boxes around the shapes that are on the plane on screen.

    Parameters
    ----------
    shapes : Shapes
        Rectangles, ellipses, polygons and closed paths count; lines do not. The layer may lie
        otherwise in the world than the image, and have fewer or more axes: one without an axis
        of the image is on all planes along it.
    image : Image
        The layer that is segmented.
    plane : Plane
        The plane of ``image`` that is on screen, or a region of it; boxes are counted from there.
    dims : Dims
        The viewer's axes.

    Raises
    ------
    InvalidConfigError
        If no shape, or too many of them, are on the plane and inside the image.
    """
    outlines, kinds = list(shapes.data), list(shapes.shape_type)
    if not outlines:
        raise InvalidConfigError(
            f"The shapes layer '{shapes.name}' is empty. Draw rectangles, ellipses or polygons in "
            "it around what you look for, or choose no boxes."
        )
    counts = [len(outline) for outline in outlines]
    vertices = np.concatenate(outlines).astype(np.float64)
    pixels = _plane_pixels(vertices, shapes, image, plane, dims)
    starts = np.cumsum([0, *counts[:-1]])
    low, high = _extents(pixels, starts, counts, kinds)
    first, size = np.array(plane.index.origin), np.array(plane.index.size)
    low, high = low - first, high - first
    reasons = (
        ("on other planes", ~_on_screen(vertices, starts, shapes, dims)),
        ("no area", _without_area(low, high, kinds)),
        ("outside of the image", ((high <= 0) | (low >= size)).any(1)),
    )
    kept = np.ones(len(outlines), dtype=np.bool_)
    told = []
    for reason, applies in reasons:
        if number := np.count_nonzero(kept & applies):
            told.append(f"{number:,} {'with' if reason == 'no area' else 'lying'} {reason}")
        kept &= ~applies
    left_out = f"Left out of '{shapes.name}': {', '.join(told)}." if told else ""
    _check_number(int(kept.sum()), str(shapes.name), left_out)
    corners = np.hstack([np.maximum(low, 0), np.minimum(high, size)])[kept]
    return DrawnBoxes(tuple((t, left, b, r) for t, left, b, r in corners.tolist()), left_out)


def _plane_pixels(
    vertices: Points, shapes: Shapes, image: Image, plane: Plane, dims: Dims
) -> Points:
    """Where vertices lie in the plane: rows and columns, (0, 0) at the corner of a first pixel."""
    world = _affine(shapes.data_to_world, shapes.ndim)
    of_shapes = vertices @ world[:, :-1].T + world[:, -1]
    of_shapes /= [unit_ratio(shapes, dims, axis) for axis in range(shapes.ndim)]
    # Layers are aligned with the viewer's last axes; along others, all points are on the plane.
    everywhere = np.array(dims.point, dtype=np.float64)
    points = np.tile(everywhere, (len(vertices), 1))
    points[:, dims.ndim - shapes.ndim :] = of_shapes
    axes = range(image.ndim - len(plane.index.shape), image.ndim)  # without one of channels
    points = points[:, -len(axes) :]
    points *= [unit_ratio(image, dims, axis) for axis in axes]
    pixels = plane.placement.to_pixels(points)
    return pixels[:, list(plane.index.displayed)] + _HALF_PIXEL


def _affine(transform: Any, ndim: int) -> Points:
    """Matrix of shape (ndim, ndim + 1) of a layer's transform of single points."""
    origin = np.asarray(transform(np.zeros(ndim)), dtype=np.float64)
    axes = [np.asarray(transform(axis), dtype=np.float64) - origin for axis in np.eye(ndim)]
    return np.column_stack([*axes, origin])


def _extents(
    pixels: Points, starts: NDArray[np.int64], counts: Sequence[int], kinds: Sequence[str]
) -> tuple[Points, Points]:
    """The lowest and highest row and column of each shape."""
    low, high = np.minimum.reduceat(pixels, starts), np.maximum.reduceat(pixels, starts)
    is_ellipse = np.array([kind == "ellipse" for kind in kinds]) & (np.array(counts) == 4)
    # napari keeps the corners around an ellipse, which is smaller than they if it is turned.
    corners = pixels[starts[is_ellipse][:, None] + np.arange(4)]
    centre = corners.mean(1)
    half_axes = np.diff(corners[:, :3], axis=1) / 2
    reach = np.sqrt((half_axes**2).sum(1))
    low[is_ellipse], high[is_ellipse] = centre - reach, centre + reach
    return low, high


def _on_screen(
    vertices: Points, starts: NDArray[np.int64], shapes: Shapes, dims: Dims
) -> NDArray[np.bool_]:
    """Whether each shape is on the plane where the sliders stand, as napari sees it."""
    missing = dims.ndim - shapes.ndim
    hidden = [axis - missing for axis in dims.order[:-2] if axis >= missing]
    low, high = np.minimum.reduceat(vertices, starts), np.maximum.reduceat(vertices, starts)
    shown = np.ones(len(starts), dtype=np.bool_)
    for axis, position in slider_positions(shapes, dims, hidden).items():
        shown &= low[:, axis] - _HALF_PLANE <= position
        shown &= position < high[:, axis] + _HALF_PLANE
    return shown


def _without_area(low: Points, high: Points, kinds: Sequence[str]) -> NDArray[np.bool_]:
    is_line = np.array([kind == "line" for kind in kinds])
    return is_line | ~((low < high) & np.isfinite(low) & np.isfinite(high)).all(1)


def _check_number(number: int, name: str, left_out: str) -> None:
    if number == 0:
        raise InvalidConfigError(
            f"{left_out} None is left. Draw rectangles, ellipses or polygons on the image and the "
            "plane on screen, or choose no boxes."
        )
    if number > MAX_DRAWN_BOXES:
        raise InvalidConfigError(
            f"There are {number:,} shapes of '{name}' on this plane; at most {MAX_DRAWN_BOXES:,} "
            "can be looked at in one go. Delete some, or move a part of them to another layer."
        )
