"""Work in processes of their own: started, watched, asked to end, found again, and explained.

A training, or the labelling of a folder, outlives the backend that started it. All that is known of
it is in a folder, its run directory, so that the next backend knows as much. Nothing here loads
torch.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import psutil
from filelock import FileLock, Timeout

from clsclip.config import Settings
from clsclip.errors import BusyError, ClsClipError, FileError
from clsclip.model.files import read_json, write_atomically
from clsclip.model.run_state import (
    CANCEL_FILE,
    RunState,
    locked,
    read_state,
    write_process,
    write_state,
)

NICENESS: Final = 10
"""By how much such a process gives way to the backend that segments meanwhile (POSIX)."""

START_LOCK: Final = "start.lock"
START_SECONDS: Final = 10.0
"""How long to wait for another backend that starts one."""

LAST_LINES: Final = 8
"""Lines of the log of a process that died which are shown as its reason."""

_LAST_BYTES: Final = 8192

_log = logging.getLogger(__name__)

S = TypeVar("S", bound=Settings)


class RunProcesses:
    """Starts processes that work on run directories beside each other, and waits for their ends.

    Parameters
    ----------
    work : str
        What such a process does, for messages: "training".
    log_file : str
        File of the run directory that gets what the process says.
    ended : callable
        Called in a thread of its own when a process has ended.
    """

    def __init__(self, work: str, log_file: str, ended: Callable[[], None]) -> None:
        self._work, self._log_file, self._ended = work, log_file, ended
        self._watchers: list[threading.Thread] = []

    @contextlib.contextmanager
    def starting(self, folder: Path) -> Iterator[None]:
        """No other backend starts a process meanwhile.

        Parameters
        ----------
        folder : Path
            Of the run directories. It is created.

        Raises
        ------
        BusyError
            If another one takes long to start.
        FileError
            If the folder cannot be written.
        """
        lock = FileLock(folder / START_LOCK)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=START_SECONDS)
        except Timeout as error:
            raise BusyError(
                f"Another {self._work} is being started. Try again in a moment."
            ) from error
        except OSError as error:
            raise FileError(f"The folder '{folder}' cannot be written ({error}).") from error
        try:
            yield
        finally:
            lock.release()

    def start(
        self, run: Path, command: Sequence[str], environment: Mapping[str, str], seconds: float
    ) -> None:
        """Start a process.

        Parameters
        ----------
        run : Path
            Its run directory.
        command : sequence of str
        environment : mapping of str to str
            What it has beside or instead of the environment of this process.
        seconds : float
            Time worked on the run before.

        Raises
        ------
        FileError
            If it cannot be started; its state says so, too.
        """
        write_state(run, "running", seconds=seconds)
        quiet = {"PYTHONIOENCODING": "utf-8", "TQDM_DISABLE": "1"}
        # Threads that wait for work actively would take the processor from who segments.
        quiet["OMP_WAIT_POLICY"] = "PASSIVE"
        try:
            with (run / self._log_file).open("ab") as log:
                process = subprocess.Popen(  # noqa: S603 - our own module
                    command, env={**os.environ, **quiet, **environment}, stdin=subprocess.DEVNULL,
                    stdout=log, stderr=subprocess.STDOUT,
                    start_new_session=os.name == "posix",  # what ends the backend does not end it
                    creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0)
                    | getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
                    | getattr(subprocess, "BELOW_NORMAL_PRIORITY_CLASS", 0),
                )  # fmt: skip
        except OSError as error:
            message = f"The {self._work} cannot be started ({error}). Make room, and resume it."
            write_state(run, "failed", message, seconds)
            raise FileError(message) from error
        write_process(run, process.pid)
        if os.name == "posix":
            with contextlib.suppress(psutil.Error):  # it has ended already, and its log says why
                psutil.Process(process.pid).nice(min(psutil.Process().nice() + NICENESS, 19))
        watcher = threading.Thread(
            target=self._watch, args=(process, run), name=f"{self._work} {run.name}", daemon=True
        )
        watcher.start()
        self._watchers = [each for each in self._watchers if each.is_alive()] + [watcher]

    def _watch(self, process: subprocess.Popen[bytes], run: Path) -> None:
        """Wait for the end of a process, so that it leaves no trace but its run directory."""
        code = process.wait()
        _log.info("The %s '%s' has ended with exit code %d", self._work, run.name, code)
        self._ended()


def write_record(file: Path, record: Settings) -> None:
    """Write what was asked for into a run directory.

    Raises
    ------
    FileError
    """
    try:
        write_atomically(file, (record.model_dump_json(indent=2) + "\n").encode())
    except OSError as error:
        raise FileError(
            f"'{file}' cannot be written ({error}). Free space there, and try again."
        ) from error


def readable_records(folders: Iterable[Path], name: str, kind: type[S]) -> list[tuple[Path, S]]:
    """Run directories and what was asked for there; those without a sound record are left out.

    Parameters
    ----------
    folders : iterable of Path
    name : str
        Of the file of the record.
    kind : type
        Of the record.
    """
    found: list[tuple[Path, S]] = []
    for run in folders:
        try:
            record = read_json(run / name, kind)
        except ClsClipError as error:
            _log.warning("%s", error.message)
            continue
        if record is not None:
            found.append((run, record))
    return found


def state_of(run: Path) -> RunState:
    """The state of a run; one that nobody wrote or that is damaged is of a run that broke off."""
    try:
        state = read_state(run)
    except ClsClipError as error:
        return RunState(state="interrupted", reason=error.message, pid=0, time=0.0)
    return state or RunState(state="interrupted", pid=0, time=0.0)


def ask_to_end(run: Path, state: RunState) -> None:
    """Ask the process of a run to end; a run that broke off counts as cancelled from now on.

    Parameters
    ----------
    run : Path
    state : RunState
        As :func:`state_of` says, with the reason that people are told.

    Raises
    ------
    FileError
    """
    try:
        if state.state == "running":
            (run / CANCEL_FILE).touch()
        elif state.state == "interrupted":
            with contextlib.suppress(BusyError), locked(run):  # or somebody has gone on
                write_state(run, "cancelled", state.reason, state.seconds)
    except OSError as error:
        raise FileError(f"'{run / CANCEL_FILE}' cannot be written ({error}).") from error


def log_lines(file: Path) -> list[str]:
    """The end of a log, without empty lines."""
    try:
        with file.open("rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - _LAST_BYTES))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def reason_of(state: RunState, log: Path, work: str, way_out: str) -> str:
    """Why a run is not done.

    Parameters
    ----------
    state : RunState
    log : Path
    work : str
        What its process does: "training".
    way_out : str
        What to do if it broke off, as a sentence.
    """
    if state.reason or state.state != "interrupted":
        return state.reason
    lines = log_lines(log)[-LAST_LINES:]
    said = "\n".join(lines) if lines else "Nothing; it did not come to say anything."
    return (
        f"The process of this {work} ended before it was done: it was killed, the memory ran out, "
        f"or the machine stopped. {way_out} Last lines of its log:\n{said}"
    )
