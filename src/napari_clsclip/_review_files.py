"""What a review reads from disk and compares, outside the Qt thread."""

from __future__ import annotations

import csv
import importlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import tifffile
from numpy.typing import NDArray

from clsclip.errors import FileError
from clsclip.wire_batch import Batch, BatchFile
from napari_clsclip._review_image import ReadImage, read_copied, read_image

_OBJECT_DTYPE: Final = np.dtype(np.int32)
_READERS: Final = ("napari_builtins.io", "imageio.plugins")
"""What napari imports when it opens its first file."""

_INDEX: Final = "label"
"""Column of a features file with the ids of the objects."""


@dataclass(frozen=True)
class Reviewed:
    """A file of a batch with its labels, as they were read.

    Attributes
    ----------
    batch : Batch
    file : BatchFile
    labels : ndarray of int, shape (H, W) or (planes, H, W), or None
        None: they are too large to be corrected, and lie in a zarr folder.
    painted : the same, or None
        A copy to paint in.
    features : dict of str to ndarray, or None
        Table of the objects, if they are told apart: ``index``, ``class`` and measures.
    image : ReadImage or None
        None: ``viewer.open`` has to read it.
    """

    batch: Batch
    file: BatchFile
    labels: NDArray[Any] | None
    painted: NDArray[Any] | None
    features: dict[str, NDArray[Any]] | None
    image: ReadImage | None


def read_reviewed(batch: Batch, file: BatchFile) -> Reviewed:
    """Read the labels of a file and, where that can be done here, its image.

    Raises
    ------
    FileError
        If one of them is not on this machine, or cannot be read.
    """
    image, labels = Path(file.file), Path(file.labels)
    copied = read_copied(image, Path(file.copied_to)) if file.copied_to else None
    for path in (labels,) if copied is not None else (image, labels):
        if not _exists(path):
            raise FileError(
                f"'{path}' cannot be seen from this machine. If the backend runs on another one, "
                "mount its folder here under the same path. If it was moved or removed, put it "
                "back."
            )
    for module in _READERS:  # else the window would stand still meanwhile
        with suppress(ImportError):
            importlib.import_module(module)
    if labels.is_dir():
        return Reviewed(batch, file, None, None, None, copied)
    try:
        ids = tifffile.imread(labels)
        features = None
        if batch.request.instances:
            features = _read_features(labels.with_suffix(".features.csv"))
            ids = ids.astype(_OBJECT_DTYPE)  # new objects may be painted beyond 65,535
    except (OSError, ValueError, KeyError, tifffile.TiffFileError) as error:
        raise FileError(
            f"The labels '{labels}' cannot be read ({error}). Label the image again."
        ) from error
    if ids.dtype.kind not in "ui" or ids.ndim not in (2, 3):
        raise FileError(
            f"'{labels}' holds {ids.dtype} of shape {ids.shape}, which are no labels. Label the "
            "image again."
        )
    return Reviewed(batch, file, ids, ids.copy(), features, copied or read_image(image))


def changed_planes(before: NDArray[Any], now: NDArray[Any]) -> list[tuple[int, ...]]:
    """Positions of the planes in which some pixel is different; ``()`` is that of an only one."""
    if before.ndim == 2:
        return [] if np.array_equal(before, now) else [()]
    pairs = enumerate(zip(before, now, strict=True))
    return [(place,) for place, (old, new) in pairs if not np.array_equal(old, new)]


def differ(before: NDArray[Any], now: NDArray[Any]) -> bool:
    """Whether some pixel is different."""
    return bool(changed_planes(before, now))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _read_features(file: Path) -> dict[str, NDArray[Any]]:
    with file.open(newline="", encoding="utf-8") as stream:
        table = csv.reader(stream)
        heads = next(table)
        rows = list(table)
    columns = dict(zip(heads, zip(*rows, strict=True) if rows else [()] * len(heads), strict=True))
    features = {"index": np.array(columns.pop(_INDEX), dtype=np.int64)}
    for name, values in columns.items():
        features[name] = _column(name, values)
    return features


def _column(name: str, values: tuple[str, ...]) -> NDArray[Any]:
    if name == "class":
        return np.array(values, dtype=object)
    return np.array(values, dtype=np.float64)
