"""The image of a reviewed file, read outside the Qt thread where only napari's own reader would."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import npe2
import numpy as np
from numpy.typing import NDArray

from napari_clsclip._image_copies import open_copy
from napari_clsclip._image_reading import BUILTIN


@dataclass(frozen=True)
class ReadImage:
    """What napari's reader made of an image file: one image; or the copy that was labelled.

    Attributes
    ----------
    data : ndarray
    arguments : dict
        For an Image layer, its name among them.
    reader : str or None
        Name of the reader; None: it is a copy of what a plugin had read.
    """

    data: NDArray[Any]
    arguments: dict[str, Any]
    reader: str | None = BUILTIN


def read_copied(file: Path, copy: Path) -> ReadImage | None:
    """The copy of an image that a plugin had to read: at once, and just what was labelled.

    Returns
    -------
    ReadImage or None
        None if there is no such copy any more.
    """
    opened = open_copy(copy)
    if opened is None:
        return None
    data, arguments = opened
    return ReadImage(data, {"name": file.stem, **arguments}, None)


def read_image(file: Path) -> ReadImage | None:
    """Read an image file as ``viewer.open`` would.

    Returns
    -------
    ReadImage or None
        None if another plugin may want to read it, if it is not one image in memory, or if it
        cannot be read: then ``viewer.open`` has to see to it.
    """
    readers = npe2.PluginManager.instance().iter_compatible_readers([str(file)])
    if {reader.plugin_name for reader in readers} != {BUILTIN}:  # others may want the Qt thread
        return None
    try:
        layers = npe2.read([str(file)], stack=False, plugin_name=BUILTIN)
    except Exception:  # napari says why, in its own words, when it is asked to open the file
        return None
    if len(layers) != 1:
        return None
    data, *about = cast(tuple[Any, ...], layers[0])
    arguments = about[0] if about else {}
    kind = about[1] if len(about) > 1 else "image"
    if kind != "image" or not isinstance(data, np.ndarray):
        return None
    return ReadImage(data, {"name": file.stem, **arguments})
