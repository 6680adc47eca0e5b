"""Channels of an image become red, green and blue, and their axis goes away.

Numpy only: nothing here imports Qt, and napari's objects are only read.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from clsclip.errors import InvalidImageError
from napari_clsclip._layers import Plane, PlaneIndex, displayed_plane
from napari_clsclip._placement import Placement

if TYPE_CHECKING:
    from napari.components import Dims
    from napari.layers import Image

CHANNEL_LABELS: Final = frozenset({"c", "ch", "channel", "channels"})
"""Names by which an axis of channels is known, in lower case."""

Colors = tuple[int | None, int | None, int | None]
"""For red, green and blue: which of the channels it shows; None: it stays black."""


def guessed_channel_axis(layer: Image) -> int | None:
    """Tell which axis of an image holds channels, by the name of the axis; None if none does."""
    if layer.rgb:
        return None
    for axis, label in enumerate(layer.axis_labels):
        if str(label).casefold() in CHANNEL_LABELS:
            return axis
    return None


def with_channels(plane: Plane, axis: int, colors: Colors) -> Plane:
    """Show channels of an image as red, green and blue.

    Parameters
    ----------
    plane : Plane
        A plane of an image without colours, as :func:`displayed_plane` gives it.
    axis : int
        The axis of the channels, one that is not on screen.
    colors : Colors
        At least one of them is set. A single channel is taken as grey, whatever its colour.

    Returns
    -------
    Plane
        Without the axis if it was the first one. Else the axis stays, with one entry that lies
        where all the channels are: napari aligns layers by their last axes, so a layer without it
        would be moved by the wrong sliders.

    Raises
    ------
    InvalidImageError
        If the axis is on screen, or no channel is chosen.
    """
    index = plane.index
    if axis not in index.hidden:
        raise InvalidImageError(
            f"Axis {axis} of '{plane.image}' cannot be the axis of channels while it is on "
            "screen. Roll the axes until its slider is below the image, or choose another axis."
        )
    chosen = _chosen(colors, plane.image)
    last = index.shape[axis] - 1
    if not 0 <= min(chosen) <= max(chosen) <= last:
        raise InvalidImageError(
            f"Channel {max(chosen)} of '{plane.image}' does not exist; the last one is {last}."
        )
    dropped = axis == 0
    rest = slice(1, None) if dropped else slice(None)
    parts, shape = list(index.index), list(index.shape)
    parts[axis], shape[axis] = 0, 1
    return replace(
        plane,
        source=_Channels(plane.source, axis, dropped, _picks(colors), _black(plane)),
        index=PlaneIndex(
            tuple(parts[rest]),
            (index.displayed[0] - dropped, index.displayed[1] - dropped),
            tuple(shape[rest]),
        ),
        rgb=len(chosen) > 1,
        placement=_without_first(plane.placement)
        if dropped
        else _stretched(plane.placement, axis, last + 1),
        channels=(axis, colors),
    )


def from_layers(plane: Plane, layers: Sequence[Image], colors: Colors, dims: Dims) -> Plane:
    """Show images as the red, green and blue of one image, each stretched by its own contrast.

    Parameters
    ----------
    plane : Plane
        A plane of one of them, as :func:`displayed_plane` gives it.
    layers : sequence of Image
        Images without colours, of the same shape.
    colors : Colors
        Indices into ``layers``. A single one is taken as grey.
    dims : Dims
        The viewer's axes.

    Raises
    ------
    InvalidImageError
        If no layer is chosen, or one of them has another shape or no finite contrast limits.
    """
    sources: dict[int, Any] = {}
    limits: dict[int, tuple[float, float]] = {}
    for k in _chosen(colors, plane.image):
        layer = layers[k]
        level = plane.level if layer.multiscale else None
        other = displayed_plane(layer, dims, level=level, whole=False)
        if other.index.shape != plane.index.shape or other.rgb:
            raise InvalidImageError(
                f"The images '{plane.image}' {plane.index.shape} and '{other.image}' "
                f"{other.index.shape} cannot be combined; choose layers of the same shape, without "
                "colours."
            )
        if other.contrast_limits is None:
            raise InvalidImageError(
                f"The contrast limits of '{other.image}' are not finite. Set them first."
            )
        sources[k], limits[k] = other.source, other.contrast_limits
    key: Hashable = tuple(None if k is None else (id(layers[k]), limits[k]) for k in colors)
    return replace(
        plane,
        source=_Combined(sources, limits, _picks(colors), plane.image),
        rgb=len(sources) > 1,
        contrast_limits=(0.0, 255.0),
        channels=key,
    )


def _chosen(colors: Colors, image: str) -> tuple[int, ...]:
    chosen = tuple(dict.fromkeys(k for k in colors if k is not None))
    if not chosen:
        raise InvalidImageError(
            f"No channel of '{image}' is shown in any colour. Choose at least one."
        )
    return chosen


def _picks(colors: Colors) -> tuple[int | None, ...]:
    """What is stacked: three channels, or one that is grey."""
    chosen = {k for k in colors if k is not None}
    return colors if len(chosen) > 1 else tuple(chosen)


def _black(plane: Plane) -> float:
    return 0.0 if plane.contrast_limits is None else plane.contrast_limits[0]


def _without_first(where: Placement) -> Placement:
    count = len(where.scale)
    shear = np.zeros((count, count))
    shear[np.triu_indices(count, 1)] = where.shear
    return Placement(
        scale=where.scale[1:],
        translate=where.translate[1:],
        rotate=where.rotate[1:, 1:],
        shear=shear[1:, 1:][np.triu_indices(count - 1, 1)],
        affine=where.affine[1:, 1:],
        units=where.units[1:],
        axis_labels=where.axis_labels[1:],
    )


def _stretched(where: Placement, axis: int, length: int) -> Placement:
    """Make the first entry of an axis as long as ``length`` entries were."""
    middle = np.zeros(len(where.scale))
    middle[axis] = (length - 1) / 2
    scale = where.scale.copy()
    scale[axis] *= length
    return replace(where.moved(middle), scale=scale)


@dataclass(frozen=True)
class _Channels:
    """An array that may be lazy, indexed without its channels; only those picked are read."""

    source: Any
    axis: int
    dropped: bool
    picks: tuple[int | None, ...]
    black: float

    def __getitem__(self, index: tuple[int | slice, ...]) -> NDArray[Any]:
        read: dict[int, NDArray[Any]] = {}
        for k in self.picks:
            if k is not None and k not in read:
                after = self.axis if self.dropped else self.axis + 1
                rest = index[after : len(index) - (len(self.picks) > 1)]
                read[k] = np.asarray(self.source[(*index[: self.axis], k, *rest)])
        one = next(iter(read.values()))
        if len(self.picks) == 1:
            return one
        empty = np.full_like(one, _representable(self.black, one.dtype))
        return np.stack([empty if k is None else read[k] for k in self.picks], axis=-1)


@dataclass(frozen=True)
class _Combined:
    """Arrays of one shape that may be lazy, each stretched to uint8."""

    sources: dict[int, Any]
    limits: dict[int, tuple[float, float]]
    picks: tuple[int | None, ...]
    image: str

    def __getitem__(self, index: tuple[int | slice, ...]) -> NDArray[np.uint8]:
        plane = index if len(self.picks) == 1 else index[:-1]
        read = {k: self._stretched(k, plane) for k in self.sources}
        if len(self.picks) == 1:
            return next(iter(read.values()))
        empty = np.zeros_like(next(iter(read.values())))
        return np.stack([empty if k is None else read[k] for k in self.picks], axis=-1)

    def _stretched(self, k: int, index: tuple[int | slice, ...]) -> NDArray[np.uint8]:
        values = np.asarray(self.sources[k][index])
        if values.dtype.kind not in "buif" or not np.isfinite(values).all():
            raise InvalidImageError(
                f"A channel of '{self.image}' has NaN, infinite or complex values in this plane. "
                "Replace them first, e.g. with numpy.nan_to_num."
            )
        low, high = self.limits[k]
        scaled = (values.astype(np.float64) - low) / ((high - low) or 1.0)
        return np.rint(np.clip(scaled, 0.0, 1.0) * 255).astype(np.uint8)


def _representable(value: float, dtype: np.dtype[Any]) -> float:
    """The number of a dtype that is not above a value, if there is one."""
    if dtype.kind not in "iu":
        return value
    limits = np.iinfo(dtype)
    return int(min(max(np.floor(value), limits.min), limits.max))
