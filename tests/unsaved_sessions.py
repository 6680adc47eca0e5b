"""Viewers whose corrections are kept, without a window, and what is kept of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels
from numpy.typing import NDArray

from clsclip.config import InstanceSettings
from clsclip.segmentation import Segmentation
from napari_clsclip._acceptance import accept
from napari_clsclip._layers import displayed_plane
from napari_clsclip._predicted_objects import PredictedObjects, find_objects
from napari_clsclip._results import ResultLayers
from napari_clsclip._unsaved_files import KeptFolder
from napari_clsclip._unsaved_journal import Journal
from napari_clsclip._unsaved_layers import UnsavedCorrections

SHAPE = (90, 120)
SETTINGS = InstanceSettings(instances=True, min_area=4, min_certainty=0.0)
MILLISECONDS = 20_000


def predicted(shape: tuple[int, int] = SHAPE) -> Segmentation:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    values = (127 + 128 * np.sin(rows / 9) * np.cos(columns / 9)).astype(np.uint8)[None]
    return Segmentation(values, ("nucleus",), "tiny", "v", (1.0,), 0.1)


class Napari:
    """One viewer with its results, whose corrections are kept; :meth:`end` is a normal end."""

    def __init__(self, root: Path, quiet: float = 60.0) -> None:
        self.told: list[str] = []
        self.viewer = ViewerModel()
        self.results = ResultLayers(self.viewer)
        self.journal = Journal(root, self.told.append, quiet=quiet, longest=60.0, retry=0.05)
        self.unsaved = UnsavedCorrections(self.viewer, self.journal)
        self.unsaved.follow(self.results)

    def add(self, image: Image, *, objects: bool = False, threshold: float = 0.5) -> Labels:
        plane = displayed_plane(image, self.viewer.dims)
        found = predicted(plane.index.size)
        single = None
        if objects:
            single = PredictedObjects.first(found, find_objects(found, threshold, SETTINGS))
        return self.results.add(image, plane, found, threshold, single)

    def accept(self, layer: Labels) -> None:
        image = self.results.image(layer)
        assert image is not None
        plane = displayed_plane(image, self.viewer.dims)
        self.unsaved.accepted(layer, accept(layer, plane, self.viewer.dims, ("nucleus",), ()))

    def end(self) -> None:
        self.journal.close()


def sessions(root: Path) -> Iterator[Callable[..., Napari]]:
    """Start viewers, whose journals are closed in the end; for a fixture."""
    started: list[Napari] = []

    def start(**options: Any) -> Napari:
        started.append(Napari(root, **options))
        return started[-1]

    yield start
    for each in started:
        each.end()


def kept(root: Path) -> list[NDArray[Any]]:
    """Labels of all layers that are kept."""
    found = []
    for path in sorted(root.glob("*/*/about.json"), key=lambda path: path.stat().st_mtime_ns):
        folder = KeptFolder(path.parent)
        about = folder.read_about()
        assert about is not None
        found.append(folder.read(about)[0])
    return found


def image(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 255, shape or SHAPE, dtype=np.uint8)
