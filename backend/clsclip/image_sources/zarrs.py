"""Zarr arrays and OME-Zarr groups as image sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import zarr

from clsclip.errors import FileError, InvalidImageError
from clsclip.image_files import ZARR_FILES, is_zarr
from clsclip.image_sources.pixel_size import PixelSize, ome_zarr_pixel_size
from clsclip.image_sources.source import ImageSource, check_level

_PLANE_AXES: Final = "ptz"


def zarr_source(path: Path, level: int, channels: tuple[int, ...]) -> ImageSource:
    """See :func:`clsclip.image_sources.opening.open_source`."""
    if not is_zarr(path):
        raise FileError(f"The folder '{path}' is not a zarr ({', '.join(ZARR_FILES)}).")
    node = zarr.open(path, mode="r")
    names: Sequence[str] | None = None
    size: PixelSize | None = None
    if isinstance(node, zarr.Group):
        node, names, size = _level_of_group(path, node, level)
    else:
        check_level(str(path), level, 1)
    array: Any = node
    names = names or getattr(array.metadata, "dimension_names", None)
    axes = _letters(path, names) if names and all(names) else _usual_axes(path, array.shape)
    dtype = np.dtype(array.dtype)
    return ImageSource(
        str(path), lambda: array, array.shape, dtype, axes, pixel_size=size, chosen=channels
    )


def _usual_axes(path: Path, shape: tuple[int, ...]) -> str:
    """Letters of axes without names, as napari takes them: planes first, colours last."""
    colour = len(shape) > 2 and shape[-1] in (1, 3, 4)
    planes = len(shape) - 2 - colour
    if not 0 <= planes <= len(_PLANE_AXES):
        raise InvalidImageError(
            f"'{path}' is an array of shape {shape} whose axes have no names; expected (height, "
            "width), planes before these, and 1, 3 or 4 channels after them. Name its dimensions, "
            "save it as OME-Zarr, or save one plane."
        )
    return _PLANE_AXES[len(_PLANE_AXES) - planes :] + "yx" + "s" * colour


def _level_of_group(
    path: Path, group: zarr.Group, level: int
) -> tuple[zarr.Array[Any], Sequence[str] | None, PixelSize | None]:
    """The array of a level of an OME-Zarr group, the names of its axes, and its pixel size."""
    attributes: Mapping[str, Any] = group.attrs.asdict()
    image = attributes.get("ome", attributes).get("multiscales")
    if not image:
        arrays = sorted(name for name, _ in group.arrays())
        listed = ", ".join(f"'{path / name}'" for name in arrays) or "none"
        raise InvalidImageError(
            f"'{path}' is a zarr group without OME multiscales. Give one of its arrays instead "
            f"(it holds: {listed})."
        )
    datasets = image[0]["datasets"]
    check_level(str(path), level, len(datasets))
    array = group[datasets[level]["path"]]
    if not isinstance(array, zarr.Array):
        raise FileError(f"Level {level} of '{path}' is not an array.")
    axes = image[0].get("axes") or list("tczyx")[-array.ndim :]  # before OME-Zarr 0.3
    names = [axis if isinstance(axis, str) else axis["name"] for axis in axes]
    return array, names, ome_zarr_pixel_size(image[0], level)


def _letters(path: Path, names: Sequence[str]) -> str:
    """One letter per named axis."""
    short = "".join({"channel": "c"}.get(name.lower(), name.lower())[:1] for name in names)
    if len(set(short)) < len(short):
        raise InvalidImageError(f"The axes of '{path}' are {', '.join(names)}; expected y and x.")
    return short
