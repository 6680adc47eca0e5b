"""Files of models and runs: replaced at once, read strictly. Nothing here loads torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from clsclip.config import Settings
from clsclip.errors import CheckpointError
from clsclip.wire import describe_validation

S = TypeVar("S", bound=Settings)


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


def read_json(file: Path, kind: type[S]) -> S | None:
    """Read a file of JSON; None where it does not exist.

    Raises
    ------
    CheckpointError
        If it is there but cannot be read, or is no ``kind``.
    """
    try:
        return kind.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        detail = describe_validation(error) if isinstance(error, ValidationError) else error
        raise CheckpointError(f"'{file}' cannot be read: {detail}") from error
