"""How a run ended, or that it goes on: ``state.json`` of a run directory, and its lock.

Nothing here loads torch, so that others can ask about a run at no cost.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import psutil
from filelock import FileLock, Timeout
from pydantic import Field

from clsclip.config import Settings
from clsclip.errors import BusyError, CheckpointError, FileError
from clsclip.model.files import read_json, write_atomically

OUTCOME_FILE: Final = "state.json"
LOCK_FILE: Final = "run.lock"
METRICS_FILE: Final = "metrics.jsonl"
"""A line of JSON per report."""

PROCESS_FILE: Final = "process.json"
"""Which process was started to work on a run; written by whoever started it."""

CANCEL_FILE: Final = "cancel"
"""A file that asks the process that works on a run to end it with what is best so far."""

LOCK_SECONDS: Final = 2.0
"""How long a process waits for the lock of a run, which others hold for an instant to look."""

_looking = threading.Lock()

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


class StartedProcess(Settings):
    """Content of ``process.json``."""

    pid: int
    created: float = Field(description="When it was started, in seconds since 1970.")

    @property
    def alive(self) -> bool:
        """Whether it runs; not another one that has got its number since."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) < 1.0
            return bool(same and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:  # of another user, so another one
            return False


def write_process(run: Path, pid: int) -> None:
    """Note which process was started to work on a run.

    Raises
    ------
    FileError
    """
    try:
        created = psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        created = 0.0  # it has ended already
    _replace(run / PROCESS_FILE, StartedProcess(pid=pid, created=created))


def read_process(run: Path) -> StartedProcess | None:
    """Which process was started to work on a run; None where nobody noted it."""
    try:
        return read_json(run / PROCESS_FILE, StartedProcess)
    except CheckpointError:  # a damaged note says as little as none
        return None


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
    _replace(run / OUTCOME_FILE, now)


def _replace(file: Path, content: Settings) -> None:
    try:
        write_atomically(file, (content.model_dump_json(indent=2) + "\n").encode())
    except OSError as error:
        raise FileError(
            f"'{file}' cannot be written ({error}). Free space there and continue (--resume on the "
            "command line)."
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
    found = read_json(run / OUTCOME_FILE, RunState)
    if found is None:
        return None
    if found.state == "running" and not is_worked_on(run):
        return found.model_copy(update={"state": "interrupted"})
    return found


def is_worked_on(run: Path) -> bool:
    """Whether a process works on a run now, or was started to and has not come to it yet."""
    started = read_process(run)
    return (started is not None and started.alive) or _is_locked(run)


def _is_locked(run: Path) -> bool:
    if not (run / LOCK_FILE).exists():
        return False
    lock = FileLock(run / LOCK_FILE)
    with _looking:  # or two threads that look would each take the other for a training
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
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout as error:
        raise BusyError(
            f"Another process trains into '{run}' now. Wait for its end, or choose another folder "
            "(--output on the command line)."
        ) from error
    except OSError as error:
        raise FileError(f"The run directory '{run}' cannot be written ({error}).") from error
    try:
        yield
    finally:
        lock.release()
