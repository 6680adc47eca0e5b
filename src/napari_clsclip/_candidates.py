"""Images that might be corrected next: planes of the open image, or files of a folder.

Numpy and napari's models only: nothing here imports Qt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from napari.layers import Image

from clsclip.errors import InvalidImageError
from napari_clsclip._foreign_files import foreign_reader
from napari_clsclip._image_reading import NO_IMAGES, read_image_layer
from napari_clsclip._layers import Plane, middle_plane
from napari_clsclip._plane_choice import EveryPlane

MOST: Final = 500
"""Candidates that are looked at, spread evenly over all that there are."""

T = TypeVar("T")


@dataclass(frozen=True)
class Candidate:
    """An image plane that might be corrected next.

    Attributes
    ----------
    name : str
        For people.
    plane : Plane or None
        Of an image that is open.
    file : Path or None
        Of an image that is not.
    position : mapping of int to int
        Pixel of the finest level along each hidden axis; of a file, known once it was looked at.
    """

    name: str
    plane: Plane | None = None
    file: Path | None = None
    position: Mapping[int, int] = field(default_factory=dict)

    def load(self) -> tuple[Plane, Mapping[int, int]]:
        """The plane and its position; of a file, the middle one. Not in the Qt thread.

        Raises
        ------
        InvalidImageError
            If the file cannot be read, or holds no image.
        """
        if self.plane is not None:
            return self.plane, self.position
        if self.file is None:
            raise InvalidImageError(f"'{self.name}' is neither a plane nor a file.")
        layer = read_image_layer(self.file, foreign_reader(self.file))
        plane = middle_plane(layer)
        return plane, finest_position(plane, layer.level_shapes[0])


def planes_of(plane: Plane, finest: Sequence[int]) -> list[Candidate]:
    """All planes of the image of ``plane``, the first one first.

    Parameters
    ----------
    plane : Plane
    finest : sequence of int
        Shape of the finest level of that image.

    Raises
    ------
    InvalidImageError
        If there is only one.
    """
    every = EveryPlane(plane)
    if len(every) < 2:
        raise InvalidImageError(
            f"'{plane.image}' is a single plane, so there is nothing to choose from. Choose a "
            "folder of images."
        )
    candidates = []
    for position in _spread(sorted(every.positions)):
        name = f"plane {', '.join(map(str, position))} of '{plane.image}'"
        one = every.at(position)
        candidates.append(Candidate(name, one, position=finest_position(one, finest)))
    return candidates


def files_of(folder: Path) -> list[Candidate]:
    """The files of a folder that may be images, by name; also OME-Zarr folders.

    Raises
    ------
    InvalidImageError
        If the folder cannot be read or holds none.
    """
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        raise InvalidImageError(
            f"The folder '{folder}' cannot be read ({error}). Choose another one."
        ) from error
    files = [entry for entry in entries if _may_be_image(entry)]
    if not files:
        raise InvalidImageError(f"There are no images in '{folder}'. Choose another folder.")
    return [Candidate(file.name, file=file) for file in _spread(files)]


def finest_position(plane: Plane, finest: Sequence[int]) -> dict[int, int]:
    """Where a plane is along the hidden axes, in pixels of the finest level.

    Parameters
    ----------
    plane : Plane
    finest : sequence of int
        Shape of that level.
    """
    index = plane.index
    return {
        axis: round(position * finest[axis] / index.shape[axis])
        for axis, position in zip(index.hidden, index.position, strict=True)
    }


def world_position(layer: Image, position: Mapping[int, int]) -> dict[int, float]:
    """Where axes of a layer stand in the world for a position along them in pixels."""
    pixels = np.zeros(layer.ndim)
    for axis, pixel in position.items():
        pixels[axis] = pixel
    world = layer.data_to_world(pixels)
    return {axis: float(world[axis]) for axis in position}


def _may_be_image(entry: Path) -> bool:
    if entry.name.startswith("."):
        return False
    if entry.is_dir():
        return entry.suffix == ".zarr"
    return entry.is_file() and entry.suffix.lower() not in NO_IMAGES


def _spread(items: list[T]) -> list[T]:
    """At most ``MOST`` of some items, evenly."""
    if len(items) <= MOST:
        return items
    return [items[k * len(items) // MOST] for k in range(MOST)]
