"""Files that are always complete: the old one or the new one. Nothing here loads torch."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomically(file: Path, content: bytes) -> None:
    """Write a file so that it is always complete: the old one or the new one."""
    draft = file.with_name(f".{file.name}.new")
    try:
        draft.write_bytes(content)
        flush(draft)
        draft.replace(file)
    except OSError:
        draft.unlink(missing_ok=True)  # on a full disk, what fitted would take the last room
        raise


def flush(file: Path) -> None:
    """Bring a file from the system's cache to the disk."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
