"""Keep one backend usable: start it, watch it, start it again after a crash. No Qt."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Final

from clsclip.errors import (
    BackendDiedError,
    BackendError,
    BackendUnreachableError,
    CancelledError,
    ClsClipError,
)
from clsclip.wire import HealthReport, ModelInfo
from napari_clsclip._client import Client
from napari_clsclip._launcher import LocalBackend

MAX_RESTARTS: Final = 3
"""Restarts after a crash within ``RESTART_WINDOW_SECONDS``; then the user has to ask for one."""

RESTART_WINDOW_SECONDS: Final = 60.0
MISSED_CHECKS: Final = 3
"""Health checks in a row that may stay without an answer before the backend counts as gone."""

EXIT_SECONDS: Final = 1.0
"""How long a process may take to end after it has ceased to answer."""


class BackendState(Enum):
    """What a backend is doing, as far as the plugin knows."""

    OFF = "off"
    STARTING = "starting"
    READY = "ready"
    OFFLINE = "offline"


@dataclass(frozen=True)
class BackendStatus:
    """State of the backend, in words for the user.

    Attributes
    ----------
    state : BackendState
    message : str
        One or two sentences: what it is doing, or why it is offline and what to do.
    details : str
        Last lines of the backend's log, or empty.
    models : tuple of ModelInfo
        Models that the backend offers; the default one first. Kept while it is offline.
    """

    state: BackendState
    message: str
    details: str = ""
    models: tuple[ModelInfo, ...] = ()


@dataclass(frozen=True)
class RemoteAddress:
    """URL and bearer token of a backend that somebody else runs."""

    url: str
    token: str


class BackendSupervisor:
    """Watches over one backend from a thread of its own.

    Parameters
    ----------
    on_change : callable
        Called with the new :class:`BackendStatus` after every change, from any thread.
    remote : RemoteAddress, optional
        Backend to connect to. None: one is started on this machine, and ends with the
        supervisor.
    poll_seconds : float
        Time between two looks at the backend.
    """

    def __init__(
        self,
        on_change: Callable[[BackendStatus], None],
        remote: RemoteAddress | None = None,
        poll_seconds: float = 2.0,
    ) -> None:
        self._on_change = on_change
        self._remote = remote
        self._poll_seconds = poll_seconds
        self._changed = threading.Condition()
        self._status = BackendStatus(BackendState.OFF, "The backend is not running.")
        self._models: tuple[ModelInfo, ...] = ()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._restart_wanted = False
        self._check_wanted = False
        self._models_wanted = False
        self._suspected = False
        self._backend: LocalBackend | None = None
        self._client: Client | None = None

    @property
    def status(self) -> BackendStatus:
        """The current status."""
        return self._status

    @property
    def local(self) -> bool:
        """Whether the backend is started, and after a crash started again, on this machine."""
        return self._remote is None

    def start(self) -> None:
        """Start watching, and with it the backend; returns at once. No effect while running."""
        with self._changed:
            if self._thread is not None and self._thread.is_alive():
                return
            self._stopping = self._restart_wanted = self._check_wanted = False
            self._thread = threading.Thread(
                target=self._run, name="clsclip-supervisor", daemon=True
            )
            self._status = self._starting()
        self._on_change(self._status)
        self._thread.start()

    def restart(self) -> None:
        """Start the backend again (or connect again); returns at once."""
        with self._changed:
            self._restart_wanted = True
            self._changed.notify_all()
        self.start()

    def suspect(self) -> None:
        """Say that the backend did not answer; returns at once.

        It is looked at now instead of at the next poll, and until that has told whether it
        lives, :meth:`ready_client` waits.
        """
        with self._changed:
            self._suspected = self._check_wanted = True
            self._changed.notify_all()

    def look_again(self) -> None:
        """Say that other models can be used now; returns at once, and the status follows."""
        with self._changed:
            self._models_wanted = self._check_wanted = True
            self._changed.notify_all()

    def stop(self, timeout: float = 10.0) -> None:
        """Stop watching, and the backend with it if it was started here.

        Parameters
        ----------
        timeout : float
            Seconds to wait for the thread.
        """
        with self._changed:
            thread, backend = self._thread, self._backend
            self._stopping = True
            self._changed.notify_all()
        if thread is None:
            return
        if backend is not None:
            backend.stop()  # also ends a start that is still under way in the thread
        thread.join(timeout)
        self._publish(BackendState.OFF, "The backend is not running.")

    def ready_client(self, cancelled: Callable[[], bool]) -> Client:
        """Wait until the backend can be used, starting it if necessary.

        Parameters
        ----------
        cancelled : callable
            Asked a few times per second; true ends the waiting.

        Raises
        ------
        BackendUnreachableError
            If the backend is offline.
        CancelledError
            If ``cancelled`` said so.
        """
        if self._status.state is BackendState.OFF:
            self.start()
        with self._changed:
            while True:
                if cancelled():
                    raise CancelledError("Cancelled.")
                state, client = self._status.state, self._client
                if state is BackendState.READY and client is not None and not self._suspected:
                    return client
                if state in (BackendState.OFFLINE, BackendState.OFF):
                    raise BackendUnreachableError(self._status.message)
                self._changed.wait(0.1)

    @contextmanager
    def asking(self, cancelled: Callable[[], bool]) -> Iterator[Client]:
        """Wait for a client as :meth:`ready_client` does, and look at a backend that fails.

        Parameters
        ----------
        cancelled : callable
            See :meth:`ready_client`.

        Raises
        ------
        BackendDiedError
            If the backend that was started here has ended.
        ClsClipError
            Those of :meth:`ready_client`, and of the context.
        """
        client = self.ready_client(cancelled)
        try:
            yield client
        except BackendError as error:
            self.suspect()
            if isinstance(error, BackendUnreachableError) and self._has_gone(client):
                raise BackendDiedError(
                    "The backend ended before it answered. Repeat the request once it is ready."
                ) from error
            raise

    def _has_gone(self, client: Client) -> bool:
        """Whether the backend of a client was started here and has ended."""
        if not self.local:
            return False
        until = time.monotonic() + EXIT_SECONDS
        while time.monotonic() < until:
            with self._changed:
                backend = self._backend if self._client is client else None
            if backend is None or not backend.alive:
                return True
            time.sleep(0.02)
        return False

    def _run(self) -> None:
        crashes: deque[float] = deque()
        try:
            while not self._stopping:
                try:
                    client = self._open()
                    report = client.health()
                    self._models = client.models()
                    self._publish_ready(report)
                    self._watch(client)
                except ClsClipError as error:
                    self._recover(error, crashes)
                self._close()
                if self._restart_wanted:
                    self._restart_wanted = False
                    self._publish_status(self._starting())
        except Exception as error:
            self._publish(BackendState.OFFLINE, f"The plugin failed to watch the backend: {error}")
            raise
        finally:
            self._close()

    def _recover(self, error: ClsClipError, crashes: deque[float]) -> None:
        """Tell what went wrong; returns when it is time to try again."""
        if self._remote is not None:
            self._go_offline(error.message)
            self._wait(self._poll_seconds)
        elif not isinstance(error, BackendDiedError):
            self._go_offline(error.message)
            self._wait_for_restart()  # a start that failed would fail again
        elif _too_many(crashes, time.monotonic()):
            times = f"It did so {MAX_RESTARTS + 1} times within a minute."
            self._go_offline(f"{error.message} {times} Press Restart to try again.")
            self._wait_for_restart()
        else:
            self._publish(BackendState.STARTING, f"{error.message} Starting it again …")

    def _open(self) -> Client:
        """Start the backend, unless it runs elsewhere, and make a client for it."""
        address = self._remote
        if address is None:
            backend = LocalBackend()
            with self._changed:
                self._backend = backend
                if self._stopping:
                    raise CancelledError("The backend is being stopped.")
            backend.start()
            address = RemoteAddress(backend.url, backend.token)
        self._client = Client(address.url, address.token)
        return self._client

    def _watch(self, client: Client) -> None:
        """Look at the backend until a restart or stop is asked for.

        Raises
        ------
        BackendDiedError
            If the process that was started here has ended.
        """
        missed = 0
        while True:
            self._wait(self._poll_seconds / 4 if missed else self._poll_seconds)
            if self._stopping or self._restart_wanted:
                return
            if self._backend is not None and not self._backend.alive:
                ending = _exit_words(self._backend.exit_code)
                raise BackendDiedError(f"The backend died ({ending}).")
            wanted = False
            try:
                report = client.health()
                with self._changed:  # or a wish of this moment is lost
                    wanted, self._models_wanted = self._models_wanted, False
                if wanted:
                    self._models = client.models()
            except ClsClipError as error:
                if wanted:
                    self._models_wanted = True
                missed += 1
                if missed >= MISSED_CHECKS:
                    self._go_offline(f"{error.message} Still trying.")
            else:
                missed = 0
                self._publish_ready(report)

    def _wait(self, seconds: float) -> None:
        """Sleep until a stop, restart or check is asked for, at most ``seconds``."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopping or self._restart_wanted or self._check_wanted, seconds
            )
            self._check_wanted = False

    def _wait_for_restart(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._restart_wanted)

    def _close(self) -> None:
        with self._changed:
            client, backend = self._client, self._backend
            self._client = self._backend = None
        if client is not None:
            client.close()
        if backend is not None:
            backend.stop()

    def _starting(self) -> BackendStatus:
        what = "Starting the backend" if self._remote is None else f"Asking {self._remote.url}"
        return BackendStatus(BackendState.STARTING, f"{what} …", models=self._models)

    def _publish_ready(self, report: HealthReport) -> None:
        where = "" if self._remote is None else f" at {self._remote.url}"
        self._publish(BackendState.READY, f"Ready on {report.device}{where}")

    def _go_offline(self, message: str) -> None:
        sentence, _, rest = message.partition("\n")
        log = "" if self._backend is None else self._backend.log_tail()
        self._publish(BackendState.OFFLINE, sentence, log or rest)

    def _publish(self, state: BackendState, message: str, details: str = "") -> None:
        self._publish_status(BackendStatus(state, message, details, self._models))

    def _publish_status(self, status: BackendStatus) -> None:
        with self._changed:
            self._suspected = False
            if status == self._status:
                return
            self._status = status
            self._changed.notify_all()
        self._on_change(status)


def _too_many(crashes: deque[float], now: float) -> bool:
    """Note a crash and tell whether the limit is passed; if so, the count starts anew."""
    crashes.append(now)
    while now - crashes[0] > RESTART_WINDOW_SECONDS:
        crashes.popleft()
    if len(crashes) <= MAX_RESTARTS:
        return False
    crashes.clear()
    return True


def _exit_words(code: int | None) -> str:
    if code is None:
        return "no exit code"
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"
