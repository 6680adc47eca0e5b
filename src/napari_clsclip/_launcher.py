"""Start, watch and stop a backend process on this machine. No Qt."""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import subprocess
import sys
import threading
import time
from collections import deque
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO, Final

import platformdirs
from pydantic import ValidationError

from clsclip.config import DEFAULT_MODEL
from clsclip.errors import BackendStartError, BackendUnreachableError
from clsclip.wire import TOKEN_VARIABLE, ReadyLine

START_SECONDS: Final = 120.0
"""How long a backend may take until it listens; the first import of torch can be slow."""

TAIL_LINES: Final = 200
"""Lines of its output that are kept in memory."""

_STOP_SECONDS: Final = 6.0
_TERMINATE_SECONDS: Final = 2.0
_SHOWN_LINES: Final = 15
_MAX_LINE: Final = 4096
_LOG_BYTES: Final = 2**20
_LOGS_KEPT: Final = 10


class LocalBackend:
    """One backend process. Any thread may call any method at any time.

    The process ends with :meth:`stop`, when Python exits, and when this process is killed. A
    stopped backend cannot be started again; make another one.

    Parameters
    ----------
    device : str
        See :class:`clsclip.config.BackendSettings`.
    python : str, optional
        Python interpreter that has this package installed. None: the one that runs this.
    start_seconds : float
        How long the process may take until it listens.
    log_folder : Path, optional
        Where its log is written. None: the user's folder for logs.
    """

    def __init__(
        self,
        device: str = "auto",
        *,
        python: str | None = None,
        start_seconds: float = START_SECONDS,
        log_folder: Path | None = None,
    ) -> None:
        self._device = device
        self._python = sys.executable if python is None else python
        self._start_seconds = start_seconds
        self._log_folder = log_folder or platformdirs.user_log_path("napari-clsclip")
        self._token = secrets.token_urlsafe(32)
        self._lock = threading.Lock()
        self._stopped = False
        self._process: _Process | None = None

    @property
    def url(self) -> str:
        """Address of the running backend.

        Raises
        ------
        BackendUnreachableError
            If it has not been started.
        """
        return self._ready().url

    @property
    def pid(self) -> int:
        """Process id of the running backend; as :attr:`url`."""
        return self._ready().pid

    @property
    def token(self) -> str:
        """Bearer token that the backend asks for."""
        return self._token

    @property
    def alive(self) -> bool:
        """Whether it has been started and its process runs."""
        process = self._process
        return process is not None and process.ready is not None and process.exit_code is None

    @property
    def exit_code(self) -> int | None:
        """Exit code of the process, ``-N`` for signal N; None while it runs or never ran."""
        process = self._process
        return None if process is None else process.exit_code

    def log_tail(self) -> str:
        """Last lines that the process has written."""
        process = self._process
        return "" if process is None else "\n".join(tuple(process.tail))

    def start(self) -> None:
        """Start the process and wait until it listens. Does nothing while it runs.

        Raises
        ------
        BackendStartError
            If it cannot be started, ends, does not listen in time, or is stopped meanwhile.
        """
        with self._lock:
            if self._stopped:
                raise BackendStartError("The backend was stopped before it could start.")
            if self._process is None:
                self._process = _Process(self._command(), self._environment(), self._log_folder)
                atexit.register(self.stop)
            process = self._process
        deadline = time.monotonic() + self._start_seconds
        while not process.settled.wait(0.1):
            if process.exit_code is not None:
                process.settled.wait(1.0)  # its last words may still be in the pipe
                break
            if time.monotonic() > deadline:
                self.stop()
                raise BackendStartError(
                    f"The backend did not answer within {self._start_seconds:g} s. Try again; "
                    f"the first start is the slowest.{process.last_words()}"
                )
        if process.ready is not None and process.exit_code is None:
            return
        aborted = self._stopped
        self.stop()
        if aborted:
            raise BackendStartError("The backend was stopped before it could start.")
        raise BackendStartError(
            f"The backend could not be started (exit code {process.exit_code}). Try "
            f"'{subprocess.list2cmdline(self._command()[:4])}' in a terminal, or install "
            f"napari-clsclip anew.{process.last_words()}"
        )

    def stop(self) -> None:
        """Stop the process, and wait until it has ended. Does nothing if it has."""
        self._stopped = True
        with self._lock:
            if self._process is not None:
                self._process.stop()
                atexit.unregister(self.stop)

    def _ready(self) -> ReadyLine:
        process = self._process
        if process is None or process.ready is None:
            raise BackendUnreachableError("The backend on this machine has not been started.")
        return process.ready

    def _command(self) -> list[str]:
        return [
            self._python, "-P", "-m", "clsclip.cli.backend",
            "--port", "0", "--exit-with-parent", "--device", self._device,
            "--preload", DEFAULT_MODEL,
        ]  # fmt: skip

    def _environment(self) -> dict[str, str]:
        return {**os.environ, TOKEN_VARIABLE: self._token, "PYTHONIOENCODING": "utf-8"}


class _Process:
    """A process and two threads that read what it writes.

    Attributes
    ----------
    ready : ReadyLine or None
        What it said when it listened.
    settled : threading.Event
        Set when it listens, or will not any more.
    tail : deque of str
        Its last lines.
    """

    def __init__(self, command: list[str], environment: dict[str, str], log_folder: Path) -> None:
        self.ready: ReadyLine | None = None
        self.settled = threading.Event()
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        try:
            self._popen = subprocess.Popen(  # noqa: S603 - our own module
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                # Ctrl-C in napari's terminal is for napari.
                start_new_session=os.name == "posix",
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0)
                | getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        except OSError as error:
            raise BackendStartError(
                f"The Python interpreter '{command[0]}' cannot be run ({error.strerror}). "
                "Install napari-clsclip into a working Python environment."
            ) from error
        self._log = self._open_log(log_folder)
        assert self._popen.stdout is not None  # noqa: S101 - PIPE was asked for
        assert self._popen.stderr is not None  # noqa: S101
        self._readers = [
            threading.Thread(target=read, args=(stream,), name="clsclip-output", daemon=True)
            for read, stream in (
                (self._read_answers, self._popen.stdout),
                (self._read_log, self._popen.stderr),
            )
        ]
        for reader in self._readers:
            reader.start()

    @property
    def exit_code(self) -> int | None:
        """Exit code, or None while the process runs."""
        return self._popen.poll()

    def last_words(self) -> str:
        """Quote the end of what it wrote, as an appendix of an error message."""
        lines = tuple(self.tail)[-_SHOWN_LINES:]
        return "\nIts last words:\n" + "\n".join(lines) if lines else ""

    def stop(self) -> None:
        """Close its standard input, on which it ends; terminate and kill it if it does not."""
        assert self._popen.stdin is not None  # noqa: S101 - PIPE was asked for
        self._popen.stdin.close()
        if self.ready is None:
            self._popen.terminate()
        for seconds, further in (
            (_STOP_SECONDS, self._popen.terminate),
            (_TERMINATE_SECONDS, self._popen.kill),
        ):
            try:
                self._popen.wait(seconds)
                break
            except subprocess.TimeoutExpired:
                further()
        self._popen.wait()
        for reader in self._readers:
            # A child of it that still runs would keep the pipe open.
            reader.join(1.0)
        if self._log is not None:
            self._log.close()

    def _read_answers(self, stream: IO[str]) -> None:
        with stream:
            while line := stream.readline(_MAX_LINE):
                if self.ready is None and (ready := _parse_ready(line)) is not None:
                    self.ready = ready
                    self.settled.set()
                else:
                    self._note(line)
        self.settled.set()

    def _read_log(self, stream: IO[str]) -> None:
        with stream:
            while line := stream.readline(_MAX_LINE):
                self._note(line)

    def _note(self, line: str) -> None:
        text = line.rstrip()
        self.tail.append(text)
        if self._log is not None:
            self._log.handle(logging.makeLogRecord({"msg": text}))

    def _open_log(self, folder: Path) -> RotatingFileHandler | None:
        """Log file of its own, so that two napari windows can rotate theirs."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            logs = sorted(folder.glob("backend-*.log*"), key=lambda path: path.stat().st_mtime)
            for path in logs[: -_LOGS_KEPT + 1]:
                path.unlink(missing_ok=True)
            name = f"backend-{self._popen.pid}.log"
            return RotatingFileHandler(
                folder / name, maxBytes=_LOG_BYTES, backupCount=1, encoding="utf-8"
            )
        except OSError as error:
            self.tail.append(f"No log file can be written to {folder}: {error}")
            return None


def _parse_ready(line: str) -> ReadyLine | None:
    """Read the line that says that a backend listens; None if this is another one."""
    try:
        return ReadyLine.model_validate_json(line)
    except ValidationError:
        return None
