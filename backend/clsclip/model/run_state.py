"""How a run ended, or that it goes on: ``state.json`` of a run directory, and its lock.

Nothing here loads torch, so that others can ask about a run at no cost.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from filelock import FileLock, Timeout
from pydantic import Field, ValidationError

from clsclip.config import Settings
from clsclip.errors import BusyError, CheckpointError, FileError
from clsclip.wire import describe_validation

OUTCOME_FILE: Final = "state.json"
LOCK_FILE: Final = "run.lock"

Outcome = Literal["running", "done", "failed", "cancelled", "interrupted"]


class RunState(Settings):
    """Content of ``state.json``."""

    state: Outcome = Field(
        description="done, failed and cancelled are final. interrupted: it was running when its "
        "process or machine died; never written, see read_state."
    )
    reason: str = Field("", description="Why it failed, or what it ended with.")
    pid: int = Field(description="Process that wrote this.")
    time: float = Field(description="When, in seconds since 1970.")
    seconds: float = Field(0.0, description="Time worked on the run, over all its sessions.")


def write_state(run: Path, state: Outcome, reason: str = "", seconds: float = 0.0) -> None:
    """Replace ``state.json``, at once or not at all.

    Raises
    ------
    FileError
    """
    now = RunState(
        state=state, reason=reason, pid=os.getpid(), time=round(time.time(), 1),
        seconds=round(seconds, 1),
    )  # fmt: skip
    draft = run / f".{OUTCOME_FILE}.new"
    try:
        draft.write_text(now.model_dump_json(indent=2) + "\n")
        draft.replace(run / OUTCOME_FILE)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise FileError(
            f"'{run / OUTCOME_FILE}' cannot be written ({error}). Free space there and go on with "
            "--resume."
        ) from error


def read_state(run: Path) -> RunState | None:
    """How a run stands; ``interrupted`` where it says running, but no process works on it.

    Returns
    -------
    RunState or None
        None for a folder that holds no such run.

    Raises
    ------
    CheckpointError
        If ``state.json`` is there but cannot be read.
    """
    file = run / OUTCOME_FILE
    if not file.exists():
        return None
    try:
        found = RunState.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        detail = describe_validation(error) if isinstance(error, ValidationError) else error
        raise CheckpointError(f"'{file}' cannot be read: {detail}") from error
    if found.state == "running" and not is_locked(run):
        return found.model_copy(update={"state": "interrupted"})
    return found


def is_locked(run: Path) -> bool:
    """Whether a process works on a run now."""
    if not (run / LOCK_FILE).exists():
        return False
    lock = FileLock(run / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Work on a run directory alone. It is created; a killed process leaves no lock behind.

    Raises
    ------
    BusyError
        If another process works on it.
    FileError
        If it cannot be created or written.
    """
    lock = FileLock(run / LOCK_FILE)
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BusyError(
            f"Another process trains into '{run}' now. Wait for its end, or give another --output."
        ) from error
    except OSError as error:
        raise FileError(f"The run directory '{run}' cannot be written ({error}).") from error
    try:
        yield
    finally:
        lock.release()
