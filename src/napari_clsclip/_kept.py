"""What is kept on disk of a label layer with unsaved corrections, beside its pixels."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from clsclip.config import InstanceSettings

Position = tuple[int, ...]
"""Indices along all axes of a label array but the last two."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class KeptPlacement(_Frozen):
    """Where the layer's pixels lie in the world; see :class:`napari_clsclip._layers.Placement`."""

    scale: tuple[float, ...]
    translate: tuple[float, ...]
    rotate: tuple[tuple[float, ...], ...]
    shear: tuple[float, ...]
    affine: tuple[tuple[float, ...], ...]
    units: tuple[str, ...]
    axis_labels: tuple[str, ...]


class KeptImage(_Frozen):
    """The image that the labels belong to.

    For ``index`` and ``fingerprint`` see :mod:`napari_clsclip._image_fingerprint`; the latter is
    empty if the image could not be read. ``shape`` has all axes, also that of colours.
    """

    name: str
    path: str | None
    shape: tuple[int, ...]
    dtype: str
    level: int
    index: tuple[int | None, ...]
    fingerprint: str = ""


class KeptResult(_Frozen):
    """What the plugin knew of the layer; see :class:`napari_clsclip._result_patches.Identity`."""

    words: tuple[str, ...]
    model: str
    model_version: str
    threshold: float
    objects: InstanceSettings | None
    hidden: tuple[int, ...]
    level: int
    origin: tuple[int, ...] | None


class Kept(_Frozen):
    """What is kept of a label layer beside its pixels.

    Attributes
    ----------
    format : 1
    painted : datetime
        When a person last changed a pixel, with time zone.
    name : str
        Of the layer.
    shape, dtype
        Of its array.
    placement : KeptPlacement
    made : JSON object
        How the plugin made the layer, as the layer's metadata say it.
    image : KeptImage or None
    result : KeptResult or None
    unsaved : tuple of positions
        Planes with changes that are neither saved nor accepted.
    removed : bool
        Whether the layer was removed from the viewer.
    """

    format: Literal[1] = 1
    painted: datetime
    name: str
    shape: tuple[int, ...]
    dtype: str
    placement: KeptPlacement
    made: dict[str, JsonValue]
    image: KeptImage | None
    result: KeptResult | None
    unsaved: tuple[Position, ...]
    removed: bool = False
