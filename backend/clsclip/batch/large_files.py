"""Where the labels of an image lie that is too large to hold. Nothing here imports torch."""

from __future__ import annotations

import shutil
from pathlib import Path


def large_target(target: Path) -> Path:
    """The zarr of a large image: ``<stem>.zarr`` beside its ``<stem>.tif``."""
    return target.with_suffix(".zarr")


def part_folder(target: Path) -> Path:
    """Where an unfinished zarr lies."""
    return target.with_name(f".{target.name}.part")


def discard_unfinished(target: Path) -> None:
    """Remove what is there of an unfinished zarr.

    Raises
    ------
    OSError
    """
    if part_folder(target).exists():
        shutil.rmtree(part_folder(target))
