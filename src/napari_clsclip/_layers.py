"""From a napari image layer to the plane that is on screen, and back into a label array.

Numpy only: nothing here imports Qt, and napari's objects are only read.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from clsclip.errors import InvalidImageError
from napari_clsclip._large_settings import large_settings
from napari_clsclip._placement import Placement, placement_of, slider_positions

if TYPE_CHECKING:
    from napari.components import Dims
    from napari.layers import Image, Labels

_REQUEST_BYTES: Final = 2**30
"""What a backend accepts in one request, unless it is told otherwise."""


@dataclass(frozen=True)
class PlaneIndex:
    """Which plane of an array with N spatial axes, and how it is turned on screen.

    Attributes
    ----------
    index : tuple of N int or slice
        Position along the hidden axes; at the two that are on screen ``slice(None)``, or the
        rows and columns of a region.
    displayed : tuple of 2 int
        The axes on screen: the vertical one, then the horizontal one.
    shape : tuple of N int
        Pixels along each spatial axis of the whole array.
    """

    index: tuple[int | slice, ...]
    displayed: tuple[int, int]
    shape: tuple[int, ...]

    @property
    def position(self) -> tuple[int, ...]:
        """Indices along the hidden axes, in the order of the axes."""
        return tuple(part for part in self.index if isinstance(part, int))

    @property
    def hidden(self) -> tuple[int, ...]:
        """The axes that are not on screen, ascending."""
        return tuple(axis for axis, part in enumerate(self.index) if isinstance(part, int))

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the plane or of its region, as on screen."""
        (top, bottom), (left, right) = (self._extent(axis) for axis in self.displayed)
        return bottom - top, right - left

    @property
    def whole(self) -> bool:
        """Whether this is all of the plane, and not only a region of it."""
        return self.size == tuple(self.shape[axis] for axis in self.displayed)

    @property
    def transposed(self) -> bool:
        """Whether the first of the two axes on screen is the horizontal one."""
        return self.displayed[0] > self.displayed[1]

    def overlap(self, other: PlaneIndex) -> tuple[slice, slice] | None:
        """Rows and columns of this plane or region, as on screen, that are also in another one.

        Both are of the same array and position. None if they have no pixel in common.
        """
        common = []
        for axis in self.displayed:
            (start, stop), (first, last) = self._extent(axis), other._extent(axis)
            low, high = max(start, first), min(stop, last)
            if low >= high:
                return None
            common.append(slice(low - start, high - start))
        return common[0], common[1]

    def covers(self, other: PlaneIndex) -> bool:
        """Whether each pixel of another plane or region of the same position is also in this."""
        area = other.overlap(self)
        if area is None:
            return False
        rows, columns = area
        return (rows.stop - rows.start, columns.stop - columns.start) == other.size

    @property
    def origin(self) -> tuple[int, int]:
        """Row and column, as on screen, at which the region begins; (0, 0) of a whole plane."""
        top, left = (self._extent(axis)[0] for axis in self.displayed)
        return top, left

    @property
    def key(self) -> tuple[int, ...]:
        """Tells planes and regions of one array apart: position, then the extents on screen."""
        extents = (self._extent(axis) for axis in sorted(self.displayed))
        return (*self.position, *(end for extent in extents for end in extent))

    def _extent(self, axis: int) -> tuple[int, int]:
        part = self.index[axis]
        if isinstance(part, int):
            return part, part + 1
        return part.indices(self.shape[axis])[:2]

    def view(self, labels: NDArray[Any]) -> NDArray[Any]:
        """Return the part of a label array that belongs to this plane.

        Parameters
        ----------
        labels : ndarray, shape ``shape``
            Labels of the whole image, or other values of its pixels.

        Returns
        -------
        ndarray, shape ``size``
            A view, oriented as on screen; writing to it changes ``labels``.
        """
        plane = labels[self.index]
        return plane.T if self.transposed else plane


@dataclass(frozen=True)
class Plane:
    """A plane of an image layer with N spatial axes, chosen but not yet read.

    Attributes
    ----------
    source : array
        The image at the resolution level on screen, with a last axis of 3 or 4 if ``rgb``.
        May be lazy (Dask, Zarr); :meth:`read` computes nothing but the plane.
    index : PlaneIndex
        Which plane of it.
    level : int
        Resolution level; 0 is the finest.
    rgb : bool
        Whether the last axis of ``source`` holds colours.
    contrast_limits : tuple of 2 float or None
        Values that napari shows as black and white; None if they are not finite.
    placement : Placement
        Where the pixels of this level lie in the world.
    image : str
        Name of the layer.
    channels : Hashable
        Which channels became red, green and blue; None if the image is taken as it is.
    origin : tuple of N int or None
        Where ``source`` begins in the layer's image, if it is only a part of that.
    """

    source: Any
    index: PlaneIndex
    level: int
    rgb: bool
    contrast_limits: tuple[float, float] | None
    placement: Placement
    image: str
    channels: Hashable = None
    origin: tuple[int, ...] | None = None

    def read(self) -> NDArray[Any]:
        """Compute the plane. Call it outside the Qt thread: a lazy image may take long.

        Returns
        -------
        ndarray, shape (H, W), (H, W, 3) or (H, W, 4)
            A copy, oriented as on screen: the vertical axis first. Booleans become uint8 0 and 1,
            every other dtype is kept.

        Raises
        ------
        InvalidImageError
            If the values are not real numbers, or some are not finite.
        """
        channels = (slice(None),) if self.rgb else ()
        array = np.array(self.source[self.index.index + channels])
        if self.index.transposed:
            array = np.ascontiguousarray(array.swapaxes(0, 1))
        if array.dtype.kind == "b":
            return array.astype(np.uint8)
        if array.dtype.kind not in "iuf":
            raise InvalidImageError(
                f"The image '{self.image}' holds {array.dtype} values; only real numbers can be "
                "segmented. Convert it first, e.g. with numpy.abs."
            )
        if array.dtype.kind == "f":
            self._check_finite(array)
        return array.astype(array.dtype.newbyteorder("="), copy=False)

    def blank_labels(self, dtype: DTypeLike = np.uint16) -> NDArray[Any]:
        """Zeros for the whole image; only planes that are written to take memory.

        Parameters
        ----------
        dtype : data type
            Class ids fit into uint16.

        Returns
        -------
        ndarray of ``dtype``, shape ``index.shape``

        Raises
        ------
        InvalidImageError
            If the system cannot promise that much memory.
        """
        try:
            return np.zeros(self.index.shape, dtype)
        except MemoryError as error:
            size = np.dtype(dtype).itemsize
            gib = np.prod(self.index.shape, dtype=np.float64) * size / 2**30
            raise InvalidImageError(
                f"A layer for '{self.image}' would take {gib:,.0f} GiB, more than this "
                "machine has. Crop the image, or open fewer planes of it."
            ) from error

    def _check_finite(self, array: NDArray[Any]) -> None:
        finite = np.isfinite(array)
        if finite.all():
            return
        nan = int(np.isnan(array).sum())
        infinite = array.size - int(finite.sum()) - nan
        raise InvalidImageError(
            f"The image '{self.image}' has {nan:,} NaN and {infinite:,} infinite values in this "
            "plane. Replace them first, e.g. with numpy.nan_to_num."
        )


def displayed_plane(
    layer: Image, dims: Dims, *, level: int | None = None, whole: bool = True
) -> Plane:
    """Choose the plane of an image layer that a viewer shows.

    Parameters
    ----------
    layer : Image
        Any number of axes, single or multiscale. Of a multiscale image the level on screen is
        taken, whole, not only the part in view.
    dims : Dims
        The viewer's axes: which are on screen, and where the sliders of the others stand.
    level : int, optional
        Resolution level, 0 is the finest. None: the one on screen.
    whole : bool
        Whether all of the plane is going to be read, and not only a region of it.

    Raises
    ------
    InvalidImageError
        If the plane has too many pixels to be read whole, or by :func:`displayed_index`.
    """
    level = int(layer.data_level) if level is None else level
    return plane_at(layer, displayed_index(layer, dims, level), level, whole=whole)


def middle_plane(layer: Image) -> Plane:
    """Choose the plane in the middle of all axes but the last two, at the finest level.

    Raises
    ------
    InvalidImageError
        If it has too many pixels to be read whole.
    """
    shape = tuple(int(length) for length in layer.level_shapes[0])
    first = len(shape) - 2
    parts: list[int | slice] = [length // 2 for length in shape[:first]]
    index = PlaneIndex((*parts, slice(None), slice(None)), (first, first + 1), shape)
    return plane_at(layer, index, 0)


def plane_at(layer: Image, index: PlaneIndex, level: int, *, whole: bool = True) -> Plane:
    """Describe a plane of an image layer.

    Parameters
    ----------
    layer : Image
    index : PlaneIndex
        Which plane of the resolution level.
    level, whole
        See :func:`displayed_plane`.

    Raises
    ------
    InvalidImageError
        If the plane has too many pixels to be read whole.
    """
    if whole:
        require_readable(index, layer.name)
    low, high = (float(limit) for limit in layer.contrast_limits)
    return Plane(
        source=layer.data[level] if layer.multiscale else layer.data,
        index=index,
        level=level,
        rgb=bool(layer.rgb),
        contrast_limits=(low, high) if np.isfinite([low, high]).all() else None,
        placement=placement_of(layer, layer.level_shapes[0] / np.asarray(index.shape)),
        image=str(layer.name),
    )


def require_readable(index: PlaneIndex, image: str) -> None:
    """Refuse a plane or region that has too many pixels to be read at once.

    Raises
    ------
    InvalidImageError
    """
    height, width = index.size
    largest = large_settings().large_from
    if height * width > largest:
        raise InvalidImageError(
            f"The plane of '{image}' has {height:,} x {width:,} pixels; at most {largest:,} are "
            "taken at once. Segment it with the scope This plane, which goes block by block, or "
            "zoom in and take the visible region."
        )


def is_large(plane: Plane, large_from: int) -> bool:
    """Whether a plane or region has too many pixels or bytes for one request.

    Parameters
    ----------
    plane : Plane
    large_from : int
        Pixels above which it is large.
    """
    height, width = plane.index.size
    pixel_bytes = np.dtype(getattr(plane.source, "dtype", np.uint8)).itemsize
    channels = 3 if plane.rgb else 1
    pixels = height * width
    return pixels > large_from or pixels * channels * pixel_bytes > _REQUEST_BYTES


def displayed_index(layer: Image | Labels, dims: Dims, level: int | None = None) -> PlaneIndex:
    """Find which plane of a layer a viewer shows, at a resolution level (default: on screen).

    Raises
    ------
    InvalidImageError
        If the view is 3D, the layer has no pixels, or the sliders stand outside of it.
    """
    if dims.ndisplay != 2:
        raise InvalidImageError(
            "The viewer is in 3D display, and only a plane can be segmented. "
            "Switch to 2D display first (the cube button below the layer list)."
        )
    level = layer.data_level if level is None else level
    shape = tuple(int(length) for length in layer.level_shapes[level])
    if 0 in shape:
        raise InvalidImageError(
            f"The layer '{layer.name}' has no pixels (shape {shape}). Choose another one."
        )
    # A layer with fewer axes than the viewer is aligned with the viewer's last axes.
    missing = dims.ndim - layer.ndim
    order = [axis - missing for axis in dims.order if axis >= missing]
    index: list[int | slice] = [slice(None)] * layer.ndim
    for axis, position in slider_positions(layer, dims, order[:-2]).items():
        finest = int(layer.level_shapes[0][axis])
        if not 0 <= np.round(position) < finest:
            raise InvalidImageError(
                f"The layer '{layer.name}' has no plane where the sliders stand (axis {axis}, "
                f"plane {position:.0f} of {finest}). Move the sliders to it."
            )
        at_level = np.clip(position * shape[axis] / finest, 0, shape[axis] - 1)
        index[axis] = int(np.round(at_level))
    return PlaneIndex(tuple(index), (order[-2], order[-1]), shape)
