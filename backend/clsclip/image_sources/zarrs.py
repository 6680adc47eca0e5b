"""Zarr arrays and OME-Zarr groups as image sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import zarr

from clsclip.errors import FileError, InvalidImageError
from clsclip.image_sources.source import ImageSource, check_level

_ZARR_FILES: Final = ("zarr.json", ".zarray", ".zgroup")


def is_zarr(path: Path) -> bool:
    """Whether a folder is a zarr array or group."""
    return path.is_dir() and any((path / name).is_file() for name in _ZARR_FILES)


def zarr_source(path: Path, level: int) -> ImageSource:
    """See :func:`clsclip.image_sources.opening.open_source`."""
    if not is_zarr(path):
        raise FileError(f"The folder '{path}' is not a zarr ({', '.join(_ZARR_FILES)}).")
    node = zarr.open(path, mode="r")
    names: Sequence[str] | None = None
    if isinstance(node, zarr.Group):
        node, names = _level_of_group(path, node, level)
    else:
        check_level(str(path), level, 1)
    array: Any = node
    names = names or getattr(array.metadata, "dimension_names", None)
    if names and all(names):
        axes = _letters(path, names)
    elif array.ndim == 2:
        axes = "yx"
    elif array.ndim == 3 and array.shape[2] in (1, 3, 4):
        axes = "yxs"
    else:
        raise InvalidImageError(
            f"'{path}' is an array of shape {array.shape} whose axes have no names; expected "
            "(height, width), or (height, width, channels) with 1, 3 or 4 channels. Name its "
            "dimensions, save it as OME-Zarr, or save one plane."
        )
    return ImageSource(str(path), lambda: array, array.shape, np.dtype(array.dtype), axes)


def _level_of_group(
    path: Path, group: zarr.Group, level: int
) -> tuple[zarr.Array[Any], Sequence[str] | None]:
    """The array of a level of an OME-Zarr group, and the names of its axes."""
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
    return array, [axis if isinstance(axis, str) else axis["name"] for axis in axes]


def _letters(path: Path, names: Sequence[str]) -> str:
    """One letter per named axis."""
    short = "".join({"channel": "c"}.get(name.lower(), name.lower())[:1] for name in names)
    if len(set(short)) < len(short):
        raise InvalidImageError(f"The axes of '{path}' are {', '.join(names)}; expected y and x.")
    return short
