"""Files that labelling writes: each at once or not at all."""

from __future__ import annotations

import csv
import hashlib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tifffile import imwrite

from clsclip.errors import InvalidImageError
from clsclip.image_sources import open_source
from clsclip.instances import Labels


def features_file(target: Path) -> Path:
    """The table of the objects of a label file: ``<stem>.features.csv`` beside it."""
    return target.with_suffix(".features.csv")


def label_file(output: Path, key: str) -> Path:
    """The labels of an image in an output folder: ``KEY.tif``."""
    return output / f"{key}.tif"


def write_labels(
    target: Path, labels: Labels, pixel_size: tuple[float, float] | None = None
) -> None:
    """Write ids as a zlib-compressed OME-TIFF, at once or not at all.

    The same arguments give the same bytes: the file holds no time, and its UUID is made from what
    is in it.

    Parameters
    ----------
    target : Path
    labels : ndarray of int, shape (H, W) or (planes, H, W)
        Stored as unsigned integers of 16 bits, or of 32 if they are not uint16.
    pixel_size : tuple of float, optional
        Height and width of a pixel in micrometres.

    Raises
    ------
    OSError
    """
    stored = as_stored(labels)
    content = hashlib.sha256(f"{stored.shape} {pixel_size}".encode())
    content.update(stored.tobytes())
    metadata: dict[str, Any] = {
        "axes": "ZYX"[-stored.ndim :],
        "UUID": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, content.hexdigest())}",
        "Creator": "napari-clsclip",
    }
    if pixel_size is not None:
        for axis, size in zip("YX", pixel_size, strict=True):
            metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "µm"}
    write_at_once(
        target,
        lambda draft: imwrite(
            draft, stored, ome=True, compression="zlib", photometric="minisblack",
            metadata=metadata,
        ),
    )  # fmt: skip


def as_stored(labels: NDArray[Any]) -> NDArray[Any]:
    """Ids as label files hold them: uint16 or uint32, and a stack of one plane as a plane."""
    stored = labels if labels.dtype == np.uint16 else labels.astype(np.uint32)
    return stored[0] if stored.ndim == 3 and len(stored) == 1 else stored


def read_labels(file: Path) -> tuple[NDArray[Any], tuple[float, float] | None]:
    """Read ids that :func:`write_labels` wrote, or another program in a TIFF file of its name.

    Returns
    -------
    labels : ndarray of uint16 or uint32, shape (H, W) or (planes, H, W)
    pixel_size : tuple of float, or None
        Height and width of a pixel in micrometres, if the file tells it.

    Raises
    ------
    FileError
        If it cannot be read.
    InvalidImageError
        If it holds no integers from 0 to 2^32 - 1.
    """
    with open_source(file) as source:
        if source.channels is not None or source.dtype.kind not in "bui":
            raise InvalidImageError(
                f"'{file}' is no label image: it is {source.dtype} with {source.channels or 1} "
                "channels; expected one integer per pixel."
            )
        planes = np.stack([source.read(plane=n) for n in range(source.planes)])
        size = source.pixel_size
    low, high = int(planes.min()), int(planes.max())
    if low < 0 or high > np.iinfo(np.uint32).max:
        raise InvalidImageError(
            f"The labels of '{file}' go from {low} to {high}; ids lie between 0 and 2^32 - 1."
        )
    return as_stored(planes.astype(np.uint16) if planes.dtype.itemsize <= 2 else planes), size


def write_features(target: Path, features: dict[str, NDArray[Any]]) -> None:
    """Write the columns of a table as CSV, at once or not at all.

    Raises
    ------
    OSError
    """

    def write(draft: Path) -> None:
        with draft.open("w", newline="", encoding="utf-8") as stream:
            table = csv.writer(stream)
            table.writerow(features)
            table.writerows(feature_rows(features))

    write_at_once(target, write)


def feature_rows(features: dict[str, NDArray[Any]]) -> Iterator[tuple[Any, ...]]:
    """Rows of a table as Python objects; four decimals are more than pixels can say."""
    columns = [
        np.round(column.astype(np.float64), 4) if column.dtype.kind == "f" else column
        for column in features.values()
    ]
    return zip(*(column.tolist() for column in columns), strict=True)


def write_at_once(target: Path, write: Callable[[Path], object]) -> None:
    """Write a draft beside a file, then put it in the file's place; its folder is made.

    Raises
    ------
    OSError
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.new")
    try:
        write(draft)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Write a text in UTF-8 with bare line feeds, at once or not at all.

    Raises
    ------
    OSError
    """
    content = text.encode()
    write_at_once(target, lambda draft: draft.write_bytes(content))
