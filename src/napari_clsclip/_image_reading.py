"""What the reader plugins of the user make of a file: its first image.

npe2 and napari's models only: nothing here imports Qt. Not for the Qt thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

import npe2
import numpy as np
from napari.layers import Image, Layer
from napari.layers.utils.stack_utils import split_channels

from clsclip.errors import ClsClipError, InvalidImageError

NO_IMAGES: Final = frozenset({".csv", ".json", ".txt", ".xml", ".yaml", ".yml", ".md", ".log"})
"""Endings of files beside images that are none, whatever a plugin may make of them."""

BUILTIN: Final = "napari"
"""Name of napari's own reader. It claims 181 endings, most of which it cannot read by itself."""

_BUILTIN_ENDINGS: Final = frozenset(
    {".npy", ".lsm", ".gif", ".webp", ".jp2", ".pgm", ".ppm", ".pbm", ".tga", ".jfif", ".jpe"}
)
"""Of these, images and arrays that it can."""


def claiming_reader(file: Path) -> str | None:
    """The plugin with which napari would read a file, if one claims files of such names.

    A pattern of a plugin claims a file if it says how its name ends; one that takes any file
    (``*``) does not.

    Returns
    -------
    str or None
        The one that the user prefers for such files, else one that is not napari's own.
    """
    if file.suffix.lower() in NO_IMAGES:
        return None
    readers = npe2.PluginManager.instance().iter_compatible_readers([str(file)])
    claims = (reader.plugin_name for reader in readers if _claims(reader, file))
    names = sorted(set(claims), key=lambda name: (name == BUILTIN, name))
    if len(names) > 1:
        from napari.plugins.utils import get_preferred_reader  # it reads the settings

        preferred: str | None = get_preferred_reader(str(file))
        if preferred in names:
            return preferred
    return names[0] if names else None


def read_image_layer(
    file: Path, reader: str | None = None, channels: tuple[int, ...] = ()
) -> Image:
    """Read the first image of a file; it is in no viewer.

    Parameters
    ----------
    file : Path
    reader : str, optional
        Name of the plugin; None: whichever reads it.
    channels : tuple of int
        Which one of channels along an axis of their own (``channel_axis``), which would become a
        layer each, counted from 0. Empty: the first one.

    Raises
    ------
    InvalidImageError
        If it cannot be read, holds no image, or not the channels that are asked for.
    """
    try:
        for data, attributes, kind in _layer_data(file, reader):
            if kind == "image":
                layer = Layer.create(*_channel(file, data, attributes, channels), "image")
                if isinstance(layer, Image):
                    if channels and layer.rgb:
                        raise InvalidImageError(
                            f"Channels of '{file}' cannot be chosen: its plugin reads it as "
                            "colours. Label it without Channels."
                        )
                    return layer
    except ClsClipError:
        raise
    except Exception as error:  # readers are other people's code
        raise unreadable(file, error) from error
    raise InvalidImageError(f"'{file}' holds no image.")


def unreadable(file: Path, error: Exception) -> InvalidImageError:
    """What the reader of a file raised, as an error for the user."""
    reason = f"{type(error).__name__}: {error}".removesuffix(": ")
    return InvalidImageError(f"'{file}' cannot be read ({reason}).")


def _claims(reader: Any, file: Path) -> bool:
    if reader.plugin_name == BUILTIN:
        ending = file.suffix.lower()
        return ending in _BUILTIN_ENDINGS and (ending != ".npy" or _holds_numbers(file))
    path = str(file).lower()
    return any(
        any(map(str.isalnum, pattern.rpartition("*")[2])) and fnmatch(path, pattern.lower())
        for pattern in reader.filename_patterns
    )


def _holds_numbers(file: Path) -> bool:
    """Whether an array file is one of numbers; segmentation programs keep their objects in some."""
    try:
        with file.open("rb") as stream:
            first = np.lib.format.read_magic(stream) == (1, 0)
            read = (
                np.lib.format.read_array_header_1_0
                if first
                else (np.lib.format.read_array_header_2_0)
            )
            return read(stream)[2].kind in "buif"
    except (OSError, ValueError):  # reading it will say why
        return True


def _layer_data(file: Path, reader: str | None) -> Iterator[tuple[Any, dict[str, Any], str]]:
    for data in npe2.read([str(file)], stack=False, plugin_name=reader):
        attributes: dict[str, Any] = dict(data[1]) if len(data) > 1 else {}
        kind = str(data[2]) if len(data) > 2 else "image"
        yield data[0], attributes, kind


def _channel(
    file: Path, data: Any, attributes: dict[str, Any], channels: tuple[int, ...]
) -> tuple[Any, dict[str, Any]]:
    axis = attributes.pop("channel_axis", None)
    if len(channels) > 1:
        raise InvalidImageError(
            f"Three channels of '{file}' cannot be colours, because a plugin reads it. Choose one."
        )
    chosen = channels[0] if channels else 0
    found = [(data, attributes)] if axis is None else split_channels(data, axis, **attributes)
    if chosen >= len(found):
        raise InvalidImageError(
            f"'{file}' has no channel {chosen}: as its plugin reads it, it has {len(found)}, "
            "counted from 0. Choose another one."
        )
    return found[chosen][0], dict(found[chosen][1])
