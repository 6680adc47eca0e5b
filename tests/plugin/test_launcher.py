from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import clsclip
from clsclip.errors import (
    AuthenticationError,
    BackendDiedError,
    BackendStartError,
    BackendUnreachableError,
    CancelledError,
    ClsClipError,
    InvalidConfigError,
    InvalidRequestError,
    RequestTooLargeError,
)
from clsclip.wire import TOKEN_VARIABLE, ReadyLine, SegmentRequest
from napari_clsclip._client import Client
from napari_clsclip._launcher import LocalBackend
from waiting import PATIENCE, eventually

MB = 2**20
# Many windows of the tiny model: many seconds of work, in steps of a fraction of a second.
LARGE = np.zeros((900, 900), np.uint8)
ZOOM = 4.0
MANY = tuple((float(k % 800), float(k // 4), k % 800 + 99.0, k // 4 + 99.0) for k in range(3000))


def runs(pid: int) -> bool:
    """Whether a process still computes; one that nobody has waited for does not."""
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    if Path("/proc/self").exists():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def request_for(model: Path, **settings: Any) -> SegmentRequest:
    return SegmentRequest(**{"words": ("nucleus",), "model": str(model), **settings})


class Segmenting:
    """A segmentation in a thread, and how it ended."""

    def __init__(self, client: Client, request: SegmentRequest) -> None:
        self.id = uuid.uuid4().hex
        self.error: ClsClipError | None = None
        self._thread = threading.Thread(target=self._run, args=(client, request), daemon=True)
        self._thread.start()

    def _run(self, client: Client, request: SegmentRequest) -> None:
        try:
            client.segment(LARGE, request, self.id)
        except ClsClipError as error:
            self.error = error

    def ended(self) -> bool:
        return not self._thread.is_alive()


@pytest.fixture(scope="module")
def log_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def backend(log_folder: Path) -> Iterator[LocalBackend]:
    local = LocalBackend("cpu", log_folder=log_folder)
    local.start()
    yield local
    local.stop()
    assert not runs(local.pid)


@pytest.fixture
def client(backend: LocalBackend) -> Iterator[Client]:
    with Client(backend.url, backend.token) as connection:
        yield connection


# ---- a real backend ----


def test_health(backend: LocalBackend, client: Client) -> None:
    report = client.health()
    assert report.version == clsclip.__version__
    assert report.pid == backend.pid != os.getpid()
    assert report.device.startswith("CPU (")
    assert backend.alive
    assert backend.exit_code is None
    assert backend.url.startswith("http://127.0.0.1:")


def test_start_again_keeps_the_process(backend: LocalBackend) -> None:
    pid, url = backend.pid, backend.url
    backend.start()
    assert (backend.pid, backend.url) == (pid, url)


def test_wrong_token(backend: LocalBackend) -> None:
    with Client(backend.url, "wrong") as stranger:
        with pytest.raises(AuthenticationError, match="not the one"):
            stranger.health()
        with pytest.raises(AuthenticationError):
            stranger.segment(np.zeros((4, 4)), SegmentRequest(words=("a",)), "id")


def test_wrong_host(backend: LocalBackend) -> None:
    answer = httpx.get(
        f"{backend.url}/v1/health",
        headers={"Host": "evil.example", "Authorization": f"Bearer {backend.token}"},
        trust_env=False,
    )
    assert answer.json()["error"]["code"] == "invalid_request"


def test_the_token_is_not_on_the_command_line(backend: LocalBackend) -> None:
    path = Path(f"/proc/{backend.pid}/cmdline")
    if not path.exists():
        pytest.skip("needs /proc")
    assert b"clsclip.cli.backend" in path.read_bytes()
    assert backend.token.encode() not in path.read_bytes()
    assert backend.token not in backend.log_tail()


def test_segment(client: Client, tiny_model: Path, rng: np.random.Generator) -> None:
    image = rng.integers(0, 255, (50, 60, 3)).astype(np.uint8)
    result = client.segment(image, request_for(tiny_model, words=("cell", "nucleus")), "one")
    assert result.probabilities.shape == (2, 50, 60)
    assert result.words == ("cell", "nucleus")
    assert result.labels(0.01).any()
    assert client.progress("one") is None


def test_segment_in_drawn_boxes(client: Client, tiny_model: Path, rng: np.random.Generator) -> None:
    image = rng.integers(0, 255, (50, 60, 3)).astype(np.uint8)
    drawn = ((10.0, 20.0, 30.0, 99.0), (-9.0, -9.0, 5.0, 8.0))
    asked = request_for(tiny_model, regions="auto", drawn=drawn)
    result = client.segment(image, asked, "drawn")
    inside, near = np.zeros((2, 50, 60), bool)
    inside[10:30, 20:] = inside[:5, :8] = True
    near[7:33, 14:] = near[:6, :10] = True  # with a margin of 15 %, across which trust fades
    assert (result.probabilities[0][inside] > 0).all()
    assert not result.probabilities[0][~near].any()
    assert result.region_reasons == ("Regions are the 2 boxes that you drew.",)
    with pytest.raises(InvalidConfigError, match="regions 'tiles' does not use"):
        client.segment(image, request_for(tiny_model, regions="tiles", drawn=drawn), "bad")
    with pytest.raises(InvalidConfigError, match="There is no detector"):
        client.segment(image, request_for(tiny_model, regions="detector"), "none")
    whole = client.segment(image, request_for(tiny_model), "whole")
    assert whole.region_reasons == ()
    assert whole.probabilities.all()


@pytest.mark.parametrize("how", [{"zoom": ZOOM}, {"regions": "auto", "drawn": MANY}])
def test_health_and_cancel_while_it_computes(
    backend: LocalBackend, client: Client, tiny_model: Path, how: dict[str, Any]
) -> None:
    work = Segmenting(client, request_for(tiny_model, **how))
    eventually(lambda: (step := client.progress(work.id)) is not None and step.done > 0)
    started = time.monotonic()
    assert client.health().running == 1
    assert time.monotonic() - started < 1.0
    step = client.progress(work.id)
    assert step is not None
    assert 0 < step.done < step.total
    client.cancel(work.id)
    eventually(work.ended, 5.0)
    assert isinstance(work.error, CancelledError)
    eventually(lambda: client.health().running == 0)
    assert backend.alive


def test_ready_for_the_next_after_a_bad_request(client: Client, tiny_model: Path) -> None:
    with pytest.raises(InvalidRequestError):
        client.segment(np.zeros((4, 4, 9)), request_for(tiny_model), "bad")
    assert client.segment(np.zeros((9, 9)), request_for(tiny_model), "good").words == ("nucleus",)


def test_the_log_is_written_to_a_file(backend: LocalBackend, log_folder: Path) -> None:
    assert f"Started server process [{backend.pid}]" in backend.log_tail()
    (log,) = log_folder.glob("backend-*.log")
    eventually(lambda: backend.log_tail() in log.read_text(encoding="utf-8"))


# ---- how it ends ----


@pytest.mark.slow
def test_killed_in_the_middle_of_a_request(tiny_model: Path, tmp_path: Path) -> None:
    local = LocalBackend("cpu", log_folder=tmp_path)
    local.start()
    with Client(local.url, local.token) as client:
        work = Segmenting(client, request_for(tiny_model, zoom=ZOOM))
        eventually(lambda: (step := client.progress(work.id)) is not None and step.done > 0)
        os.kill(local.pid, signal.SIGKILL)
        eventually(work.ended, 5.0)
        assert isinstance(work.error, BackendDiedError)
        assert local.url in work.error.message
        with pytest.raises(BackendUnreachableError, match="No backend answers"):
            client.health()
    eventually(lambda: not local.alive, 5.0)
    assert local.exit_code == -signal.SIGKILL
    local.stop()
    with pytest.raises(BackendStartError):
        local.start()


PARENT = """
import sys, threading
from pathlib import Path
import numpy as np
from clsclip.wire import SegmentRequest
from napari_clsclip._client import Client
from napari_clsclip._launcher import LocalBackend

model, logs, zoom, how = sys.argv[1:]
backend = LocalBackend("cpu", log_folder=Path(logs))
backend.start()
client = Client(backend.url, backend.token)
request = SegmentRequest(words=("cell",), model=model, zoom=float(zoom))
work = threading.Thread(
    target=client.segment, args=(np.zeros((900, 900), np.uint8), request, "work"), daemon=True
)
work.start()
while (step := client.progress("work")) is None or step.done == 0:
    assert work.is_alive()
print(backend.pid, flush=True)
if how == "killed":
    sys.stdin.read()
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "exits"])
def test_it_ends_with_its_parent_whatever_it_computes(
    tiny_model: Path, tmp_path: Path, how: str
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tiny_model), str(tmp_path), str(ZOOM), how],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as parent:  # fmt: skip
        late = threading.Timer(2 * PATIENCE, parent.kill)
        late.start()
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        late.cancel()
        if how == "killed":
            assert runs(pid)
            parent.kill()
        parent.wait(10)
    eventually(lambda: not runs(pid), 6.0)


def test_stop_ends_a_start_that_is_under_way(tmp_path: Path) -> None:
    local = LocalBackend("cpu", log_folder=tmp_path)
    errors: list[BackendStartError] = []

    def start() -> None:
        with pytest.raises(BackendStartError) as caught:
            local.start()
        errors.append(caught.value)

    starting = threading.Thread(target=start)
    starting.start()
    time.sleep(0.5)
    started = time.monotonic()
    local.stop()
    starting.join(5.0)
    assert not starting.is_alive()
    assert time.monotonic() - started < 5.0
    assert "stopped" in errors[0].message
    assert not local.alive


def test_stop_before_start(tmp_path: Path) -> None:
    local = LocalBackend("cpu", log_folder=tmp_path)
    local.stop()
    local.stop()
    with pytest.raises(BackendStartError, match="stopped"):
        local.start()
    assert local.exit_code is None
    with pytest.raises(BackendUnreachableError, match="not been started"):
        _ = local.url


@pytest.mark.slow
def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    local = LocalBackend("warp-drive", log_folder=tmp_path)
    with pytest.raises(BackendStartError, match=r"(?s)exit code 2.*'warp-drive'"):
        local.start()
    assert local.exit_code == 2


@pytest.mark.slow
def test_request_too_large(tiny_model: Path) -> None:
    """A backend with a small limit, started as a user would, and the plugin's client."""
    with subprocess.Popen(
        [sys.executable, "-m", "clsclip.cli.backend", "--device", "cpu", "--exit-with-parent",
         "--max-request-mb", "1"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, TOKEN_VARIABLE: "t"},
    ) as process:  # fmt: skip
        late = threading.Timer(PATIENCE, process.kill)
        late.start()
        try:
            assert process.stdout is not None
            ready = ReadyLine.model_validate_json(process.stdout.readline())
            image = np.zeros((40 * MB, 2), np.uint8)
            with Client(ready.url, "t") as client:
                for number in range(3):
                    with pytest.raises(RequestTooLargeError, match="1 MiB"):
                        client.segment(image, request_for(tiny_model), f"r{number}")
        finally:
            late.cancel()
            process.kill()
