"""Files that labelling writes: each at once or not at all."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tifffile import imwrite

from clsclip.instances import Labels


def features_file(target: Path) -> Path:
    """The table of the objects of a label file: ``<stem>.features.csv`` beside it."""
    return target.with_suffix(".features.csv")


def write_labels(target: Path, labels: Labels) -> None:
    """Write ids, shape (H, W), as a zlib-compressed TIFF, at once or not at all.

    Unsigned integers of 16 bits, or of 32 where the ids need them.

    Raises
    ------
    OSError
    """
    stored = labels if labels.dtype == np.uint16 else labels.astype(np.uint32)
    write_at_once(target, lambda draft: imwrite(draft, stored, compression="zlib"))


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
    """Write a draft beside a file, then put it in the file's place.

    Raises
    ------
    OSError
    """
    draft = target.with_name(f".{target.name}.new")
    try:
        write(draft)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
