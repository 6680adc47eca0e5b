"""Watching over a backend, with a scripted process and client in place of the real ones."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from clsclip.errors import (
    AuthenticationError,
    BackendDiedError,
    BackendStartError,
    BackendUnreachableError,
    CancelledError,
)
from clsclip.wire import HealthReport, ModelInfo, ModelList, error_json
from napari_clsclip import _supervisor
from napari_clsclip._supervisor import (
    MAX_RESTARTS,
    MISSED_CHECKS,
    BackendState,
    BackendStatus,
    BackendSupervisor,
    RemoteAddress,
)
from stub_backend import HEALTH, JSON, Reply, Stub

SECONDS = 10.0


class FakeBackend:
    """A process that never really runs."""

    started: list[FakeBackend]
    start_error: str | None

    def __init__(self) -> None:
        self.url, self.token, self.pid = "http://127.0.0.1:1", "token", 1
        self.alive = False
        self.exit_code: int | None = None
        self.stopped = False

    def start(self) -> None:
        if FakeBackend.start_error:
            raise BackendStartError(FakeBackend.start_error)
        self.alive = True
        FakeBackend.started.append(self)

    def die(self) -> None:
        self.alive, self.exit_code = False, -9

    def log_tail(self) -> str:
        return "last words"

    def stop(self) -> None:
        self.alive, self.stopped = False, True


class FakeClient:
    """Answers what the test wants."""

    error: Exception | None

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self.closed = False

    def health(self) -> HealthReport:
        if FakeClient.error is not None:
            raise FakeClient.error
        return HealthReport(
            version="1", device="CPU", pid=1, uptime_seconds=0, queued=0, running=0,
            loaded_models=(),
        )  # fmt: skip

    def models(self) -> tuple[ModelInfo, ...]:
        return (ModelInfo(name="mini", description="", available=True),)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., BackendSupervisor]]:
    monkeypatch.setattr(_supervisor, "LocalBackend", FakeBackend)
    monkeypatch.setattr(_supervisor, "Client", FakeClient)
    FakeBackend.started, FakeBackend.start_error, FakeClient.error = [], None, None
    made: list[BackendSupervisor] = []

    def factory(remote: RemoteAddress | None = None) -> BackendSupervisor:
        seen: list[BackendStatus] = []
        supervisor = BackendSupervisor(seen.append, remote, poll_seconds=0.01)
        supervisor.seen = seen
        made.append(supervisor)
        return supervisor

    yield factory
    for supervisor in made:
        supervisor.stop()


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.002)


def wait_for_state(supervisor: BackendSupervisor, state: BackendState) -> None:
    wait_for(lambda: supervisor.status.state is state)


def states(supervisor: BackendSupervisor) -> list[BackendState]:
    return [status.state for status in supervisor.seen]


def test_starts_tells_the_device_and_the_models_and_stops(make: Callable) -> None:
    supervisor = make()
    supervisor.start()
    supervisor.start()
    wait_for_state(supervisor, BackendState.READY)
    assert supervisor.status.message == "Ready on CPU"
    assert [model.name for model in supervisor.status.models] == ["mini"]
    assert len(FakeBackend.started) == 1
    supervisor.stop()
    assert FakeBackend.started[0].stopped
    assert states(supervisor) == [BackendState.STARTING, BackendState.READY, BackendState.OFF]


def test_can_be_started_again_after_a_stop(make: Callable) -> None:
    supervisor = make()
    for count in (1, 2):
        supervisor.start()
        wait_for_state(supervisor, BackendState.READY)
        assert len(FakeBackend.started) == count
        supervisor.stop()


def test_crash_is_followed_by_a_restart(make: Callable) -> None:
    supervisor = make()
    supervisor.start()
    wait_for_state(supervisor, BackendState.READY)
    FakeBackend.started[0].die()
    wait_for(lambda: len(FakeBackend.started) == 2)
    wait_for_state(supervisor, BackendState.READY)
    assert states(supervisor) == [BackendState.STARTING, BackendState.READY] * 2
    assert "killed by signal 9" in supervisor.seen[2].message


def test_endless_crashes_end_offline_until_a_restart_is_asked_for(make: Callable) -> None:
    supervisor = make()
    supervisor.start()
    for count in range(1, MAX_RESTARTS + 2):
        wait_for(lambda n=count: len(FakeBackend.started) == n)
        wait_for_state(supervisor, BackendState.READY)
        FakeBackend.started[-1].die()
    wait_for_state(supervisor, BackendState.OFFLINE)
    assert "Press Restart" in supervisor.status.message
    assert supervisor.status.details == "last words"
    supervisor.suspect()
    time.sleep(0.05)
    assert len(FakeBackend.started) == MAX_RESTARTS + 1
    supervisor.restart()
    wait_for_state(supervisor, BackendState.READY)


def test_old_crashes_do_not_count(make: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_supervisor, "RESTART_WINDOW_SECONDS", 0.0)
    supervisor = make()
    supervisor.start()
    for count in range(1, MAX_RESTARTS + 4):
        wait_for(lambda n=count: len(FakeBackend.started) == n)
        wait_for_state(supervisor, BackendState.READY)
        FakeBackend.started[-1].die()
    wait_for_state(supervisor, BackendState.READY)
    assert BackendState.OFFLINE not in states(supervisor)


def test_failed_start_is_not_repeated_by_itself(make: Callable) -> None:
    FakeBackend.start_error = "torch cannot be imported"
    supervisor = make()
    supervisor.start()
    wait_for_state(supervisor, BackendState.OFFLINE)
    assert "torch cannot be imported" in supervisor.status.message
    FakeBackend.start_error = None
    time.sleep(0.05)
    assert supervisor.status.state is BackendState.OFFLINE
    supervisor.restart()
    wait_for_state(supervisor, BackendState.READY)


def test_backend_that_stops_answering_is_offline_and_may_come_back(make: Callable) -> None:
    supervisor = make()
    supervisor.start()
    wait_for_state(supervisor, BackendState.READY)
    FakeClient.error = BackendUnreachableError("No answer.")
    wait_for_state(supervisor, BackendState.OFFLINE)
    assert len(FakeBackend.started) == 1
    FakeClient.error = None
    wait_for_state(supervisor, BackendState.READY)
    assert len(FakeBackend.started) == 1


def test_restart_replaces_a_backend_that_does_not_answer(make: Callable) -> None:
    supervisor = make()
    supervisor.start()
    wait_for_state(supervisor, BackendState.READY)
    FakeClient.error = BackendUnreachableError("No answer.")
    wait_for_state(supervisor, BackendState.OFFLINE)
    FakeClient.error = None
    supervisor.restart()
    wait_for(lambda: len(FakeBackend.started) == 2 or supervisor.status.state.value == "ready")
    wait_for_state(supervisor, BackendState.READY)


def test_remote_backend_starts_no_process_and_is_tried_until_it_answers(make: Callable) -> None:
    FakeClient.error = AuthenticationError("The token is wrong.")
    supervisor = make(RemoteAddress("http://server:8000", "token"))
    supervisor.start()
    wait_for_state(supervisor, BackendState.OFFLINE)
    assert supervisor.status.message == "The token is wrong."
    FakeClient.error = None
    wait_for_state(supervisor, BackendState.READY)
    assert "http://server:8000" in supervisor.status.message
    assert FakeBackend.started == []


def test_remote_backend_that_drops_connections_is_tried_on(make: Callable) -> None:
    FakeClient.error = BackendDiedError("The connection was lost.")
    supervisor = make(RemoteAddress("http://server:8000", "token"))
    supervisor.start()
    wait_for_state(supervisor, BackendState.OFFLINE)
    time.sleep(0.1)  # many polls
    assert states(supervisor) == [BackendState.STARTING, BackendState.OFFLINE]
    FakeClient.error = None
    wait_for_state(supervisor, BackendState.READY)


def test_ready_client_starts_the_backend_and_waits(make: Callable) -> None:
    client = make().ready_client(lambda: False)
    assert isinstance(client, FakeClient)
    assert len(FakeBackend.started) == 1


def test_ready_client_of_an_offline_backend_tells_why(make: Callable) -> None:
    FakeBackend.start_error = "The port is taken."
    with pytest.raises(BackendUnreachableError, match=r"The port is taken\."):
        make().ready_client(lambda: False)


def test_ready_client_can_be_cancelled(make: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    started = threading.Event()
    release = threading.Event()

    def slow_start(self: FakeBackend) -> None:
        started.set()
        assert release.wait(SECONDS)
        self.alive = True

    monkeypatch.setattr(FakeBackend, "start", slow_start)
    try:
        with pytest.raises(CancelledError):
            make().ready_client(started.is_set)
    finally:
        release.set()


def test_no_client_is_handed_out_while_the_backend_is_suspected(make: Callable) -> None:
    supervisor = make()
    client = supervisor.ready_client(lambda: False)
    FakeClient.error = BackendUnreachableError("No answer.")
    supervisor.suspect()
    FakeBackend.started[0].die()
    FakeClient.error = None
    assert supervisor.ready_client(lambda: False) is not client
    assert len(FakeBackend.started) == 2


def test_false_suspicion_is_cleared(make: Callable) -> None:
    supervisor = make()
    client = supervisor.ready_client(lambda: False)
    supervisor.suspect()
    assert supervisor.ready_client(lambda: False) is client


def ask(supervisor: BackendSupervisor, before: Callable[[], None]) -> None:
    """Ask a backend that does not answer any more, after something has happened to it."""
    with supervisor.asking(lambda: False):
        before()
        raise BackendUnreachableError("No answer.")


def test_a_backend_that_ended_before_it_was_asked_has_died(make: Callable) -> None:
    supervisor = make()
    supervisor.ready_client(lambda: False)
    with pytest.raises(BackendDiedError, match="ended before it answered"):
        ask(supervisor, FakeBackend.started[0].die)
    supervisor.ready_client(lambda: False)
    assert len(FakeBackend.started) == 2


def test_a_backend_that_was_restarted_before_it_was_asked_has_died(make: Callable) -> None:
    supervisor = make()

    def restart() -> None:
        supervisor.restart()
        wait_for(lambda: len(FakeBackend.started) == 2)

    with pytest.raises(BackendDiedError, match="ended before it answered"):
        ask(supervisor, restart)


def test_a_backend_that_lives_has_not_died(make: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_supervisor, "EXIT_SECONDS", 0.1)
    supervisor = make()
    with pytest.raises(BackendUnreachableError, match=r"No answer\."):
        ask(supervisor, lambda: None)
    assert len(FakeBackend.started) == 1


def test_of_a_remote_backend_nobody_knows_whether_it_died(make: Callable) -> None:
    supervisor = make(RemoteAddress("http://server:8000", "token"))
    with pytest.raises(BackendUnreachableError, match=r"No answer\."):
        ask(supervisor, lambda: None)


def offered(available: bool) -> Reply:
    """The answer about models: one that is there, and one that may be."""
    reason = None if available else "It is not there."
    models = (
        ModelInfo(name="mini", description="", available=True),
        ModelInfo(name="clipseg", description="", available=available, reason=reason),
    )
    return 200, JSON, ModelList(models=models).model_dump_json().encode()


def test_the_list_of_models_is_asked_for_until_it_is_answered(stub: Stub) -> None:
    """It is asked for once at the start and once per wish, however often it fails in between."""
    failures = 0
    available = False

    def answer(path: str, _: bytes) -> Reply:
        nonlocal failures
        if path.endswith("/health"):
            return 200, JSON, HEALTH.model_dump_json().encode()
        if failures:
            failures -= 1
            return 500, JSON, error_json("backend", "The disk is slow.").encode()
        return offered(available)

    def asked() -> int:
        return sum(path.endswith("/models") for _, path, _ in stub.seen)

    def last() -> ModelInfo:
        return supervisor.status.models[-1]

    stub.replies["GET"] = answer
    seen: list[BackendStatus] = []
    supervisor = BackendSupervisor(
        seen.append, RemoteAddress(stub.url, "secret"), poll_seconds=0.02
    )
    supervisor.start()
    try:
        wait_for_state(supervisor, BackendState.READY)
        assert not last().available
        before = len(stub.seen)
        wait_for(lambda: len(stub.seen) > before + 3)
        assert asked() == 1  # not with every look at the backend

        available, failures = True, MISSED_CHECKS - 1
        supervisor.look_again()
        wait_for(lambda: last().available)
        assert asked() == 1 + MISSED_CHECKS
        assert [status.state for status in seen] == [
            BackendState.STARTING, BackendState.READY, BackendState.READY,
        ]  # fmt: skip

        available, failures = False, 2 * MISSED_CHECKS
        supervisor.look_again()
        wait_for_state(supervisor, BackendState.OFFLINE)
        assert "The disk is slow." in supervisor.status.message
        assert last().available  # what was known of them is kept
        wait_for_state(supervisor, BackendState.READY)
        assert not last().available
        before, at_last = len(stub.seen), asked()
        wait_for(lambda: len(stub.seen) > before + 3)
        assert asked() == at_last
    finally:
        supervisor.stop()
