"""Trainings through the service, as real processes: killed, resumed, cancelled, found again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from clsclip.model.run_state import (
    CANCEL_FILE,
    METRICS_FILE,
    locked,
    read_process,
    write_process,
    write_state,
)
from clsclip.model.versions import VERSIONS_VARIABLE
from clsclip.service.run_processes import write_record
from clsclip.service.training_record import (
    LOG_FILE,
    RECORD_FILE,
    TrainingRecord,
    read_training,
)
from clsclip.store.store import STORE_VARIABLE, AnnotationStore
from clsclip.wire import TOKEN_VARIABLE, ErrorAnswer, ReadyLine
from clsclip.wire_annotations import Correction
from clsclip.wire_training import CURVE_POINTS, Training, TrainingList, VersionList
from waiting import PATIENCE, eventually

QUICK = str(Path(__file__).parents[1] / "quick_training.py")

BACKEND = f"""
import sys
from clsclip.service import training_processes
training_processes.COMMAND = (sys.executable, {QUICK!r})
from clsclip.cli.backend import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VERSIONS_VARIABLE, str(tmp_path / "versions"))
    monkeypatch.setenv(STORE_VARIABLE, str(tmp_path / "store"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path / "versions"


@pytest.fixture
def accepted(tmp_path: Path, rng: np.random.Generator) -> None:
    """Four accepted images with a disk each."""
    with AnnotationStore(tmp_path / "store") as store:
        for index in range(4):
            centre = np.array([20 + 6 * index, 30])[:, None, None]
            disk = np.hypot(*(np.indices((64, 80)) - centre)) < 12
            image = rng.integers(0, 60, (64, 80), dtype=np.uint8)
            image[disk] += 180
            store.add(Correction(image, disk.astype(np.uint8), ("blob",)))


def post(http: httpx.Client, start_from: Path, /, **changes: Any) -> httpx.Response:
    asked = {"words": ["blob"], "minutes": 0.05, "model": str(start_from), **changes}
    return http.post("/v1/trainings", json=asked)


def told(http: httpx.Client, name: str) -> Training:
    answer = http.get(f"/v1/trainings/{name}")
    assert answer.status_code == 200, answer.text
    return Training.model_validate_json(answer.content)


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, ErrorAnswer.model_validate_json(answer.content).error.code


# ---- processes ----


@pytest.mark.slow
def test_killed_resumed_and_cancelled(
    serve: Any, gated: Any, tiny_model: Path, folder: Path, accepted: None
) -> None:
    service = serve(gated, [sys.executable, QUICK])
    http: httpx.Client = service.http
    answer = post(http, tiny_model, minutes=0.4, note="a try")
    assert answer.status_code == 201
    started = Training.model_validate_json(answer.content)
    assert (started.name, started.state, started.images) == ("tiny-v2", "running", 4)
    assert (started.words, started.minutes, started.note) == (("blob",), 0.4, "a try")
    assert code(post(http, tiny_model)) == (503, "busy")
    run = folder / started.name

    eventually((run / "state.safetensors").exists, 2 * PATIENCE)
    eventually(lambda: told(http, started.name).part > 0)
    process = read_process(run)
    assert process is not None
    found = told(http, started.name)
    assert found.state == "running"
    assert found.part < 1
    assert found.eta_seconds is not None
    assert 0 < found.eta_seconds < 600
    assert "old" in found.doing or "step" in found.doing or "before" in found.doing
    assert found.curve[0].step == 0
    assert found.curve[0].iou is not None
    assert psutil.Process(process.pid).nice() > psutil.Process().nice()
    os.kill(process.pid, signal.SIGKILL)
    eventually(lambda: told(http, started.name).state == "interrupted")
    found = told(http, started.name)
    assert "ended before it was done" in found.reason
    assert "before: IoU blob" in found.reason  # of its log
    assert (found.promoted, found.changes, found.eta_seconds) == (None, (), None)

    answer = http.post(f"/v1/trainings/{started.name}/resume")
    assert Training.model_validate_json(answer.content).state == "running"
    resumed = read_process(run)
    assert resumed is not None
    assert resumed.pid != process.pid
    eventually(lambda: any(p.iou is not None for p in told(http, run.name).curve[1:]), 2 * PATIENCE)
    assert http.delete(f"/v1/trainings/{started.name}").status_code == 200
    eventually(lambda: told(http, started.name).state == "cancelled", 2 * PATIENCE)
    ended = told(http, started.name)
    assert ended.promoted is not None
    assert {change.word for change in ended.changes if change.learnt} == {"blob"}
    assert (ended.part, ended.doing) == (1.0, "")
    assert ended.seconds >= found.seconds
    steps = [point.step for point in ended.curve]
    assert steps == sorted(set(steps))
    assert not (run / CANCEL_FILE).exists()
    version = VersionList.model_validate_json(http.get("/v1/versions").content).versions[0]
    assert (version.name, version.note) == (started.name, "a try")
    assert code(http.post(f"/v1/trainings/{started.name}/resume")) == (409, "conflict")
    eventually(lambda: not process.alive and not resumed.alive)


@contextlib.contextmanager
def backend() -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """A backend as the plugin starts it."""
    with subprocess.Popen(
        [sys.executable, "-c", BACKEND, "--device", "cpu", "--exit-with-parent"], text=True,
        env={**os.environ, TOKEN_VARIABLE: "t"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        ready = ReadyLine.model_validate_json(process.stdout.readline())
        with httpx.Client(
            base_url=ready.url, headers={"Authorization": "Bearer t"}, trust_env=False, timeout=30
        ) as http:
            try:
                yield process, http
            finally:
                process.kill()


@pytest.mark.slow
def test_a_training_outlives_its_backend(
    serve: Any, gated: Any, tiny_model: Path, folder: Path, accepted: None
) -> None:
    with backend() as (process, http):
        answer = post(http, tiny_model)
        assert answer.status_code == 201, answer.text
        name = Training.model_validate_json(answer.content).name
        os.kill(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)
    child = read_process(folder / name)
    assert child is not None
    assert child.alive
    service = serve(gated)
    assert told(service.http, name).state == "running"
    assert code(post(service.http, tiny_model)) == (503, "busy")
    eventually(lambda: told(service.http, name).state != "running", 2 * PATIENCE)
    ended = told(service.http, name)
    assert ended.state == "done"
    versions = VersionList.model_validate_json(service.http.get("/v1/versions").content)
    assert versions.versions[0].name == name
    assert versions.active == (name if ended.promoted else "mini")


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ([sys.executable, "-c", "import no_such_module"], "No module named 'no_such_module'"),
        ([sys.executable, "-c", "pass"], "did not come to say anything"),
    ],
)
def test_a_process_that_cannot_start(
    serve: Any, gated: Any, tiny_model: Path, accepted: None, command: list[str], reason: str
) -> None:
    http = serve(gated, command).http
    name = post(http, tiny_model).json()["name"]
    eventually(lambda: told(http, name).state == "interrupted")
    assert reason in told(http, name).reason
    cancelled = Training.model_validate_json(http.delete(f"/v1/trainings/{name}").content)
    assert (cancelled.state, cancelled.promoted) == ("cancelled", None)
    resumed = Training.model_validate_json(http.post(f"/v1/trainings/{name}/resume").content)
    assert (resumed.name, resumed.state in ("running", "interrupted")) == (name, True)
    eventually(lambda: told(http, name).state == "interrupted")
    assert post(http, tiny_model).json()["name"] == "tiny-v3"
    eventually(lambda: told(http, "tiny-v3").state == "interrupted")
    listed = TrainingList.model_validate_json(http.get("/v1/trainings").content).trainings
    assert [training.name for training in listed] == ["tiny-v3", "tiny-v2"]


def test_a_program_that_is_not_there(
    serve: Any, gated: Any, tiny_model: Path, folder: Path, accepted: None
) -> None:
    http = serve(gated, [str(folder / "no-python")]).http
    assert code(post(http, tiny_model)) == (500, "file")
    found = told(http, "tiny-v2")
    assert found.state == "failed"
    assert "no-python" in found.reason


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"words": ["rim"]}, (404, "not_found")),
        ({"words": ["blob, rim"]}, (422, "invalid_word")),
        ({"words": [" "]}, (422, "invalid_word")),
        ({"words": []}, (422, "invalid_request")),
        ({"minutes": 0}, (422, "invalid_request")),
        ({"model": "no-such-model"}, (404, "unknown_model")),
        ({"more": 1}, (422, "invalid_request")),
    ],
)
def test_what_cannot_be_started(
    serve: Any, gated: Any, tiny_model: Path, folder: Path, accepted: None,
    changes: dict[str, Any], expected: tuple[int, str],
) -> None:  # fmt: skip
    http = serve(gated, [sys.executable, "-c", "pass"]).http
    assert code(post(http, tiny_model, **changes)) == expected
    assert http.get("/v1/trainings").json() == {"trainings": []}


def test_an_empty_store_and_unknown_names(serve: Any, gated: Any, tiny_model: Path) -> None:
    http = serve(gated).http
    answer = post(http, tiny_model)
    assert code(answer) == (404, "not_found")
    assert "no word at all" in answer.text
    for method, path in (
        ("GET", "tiny-v2"), ("DELETE", "tiny-v2"), ("POST", "tiny-v2/resume"), ("GET", "active"),
    ):  # fmt: skip
        assert code(http.request(method, f"/v1/trainings/{path}")) == (404, "not_found")
    assert code(http.get("/v1/trainings/.hidden")) == (422, "invalid_request")


# ---- what a run directory says ----


@pytest.fixture
def run(folder: Path) -> Path:
    path = folder / "mini-v2"
    path.mkdir(parents=True)
    return path


def record(minutes: float = 1.0) -> TrainingRecord:
    return TrainingRecord(
        words=("blob",), model="mini", minutes=minutes, note="", started=datetime.now(UTC),
        store="store", device="cpu", images=3,
    )  # fmt: skip


def write_metrics(run: Path, *lines: dict[str, float]) -> None:
    text = "".join(json.dumps({"time": time.time(), **line}) + "\n" for line in lines)
    (run / METRICS_FILE).write_text(text)


def test_lost_steps_are_not_in_the_curve(run: Path) -> None:
    write_metrics(
        run,
        {"step": 0, "seconds": 0, "images": 5, "measuring": 3.0, "miou": 0.1, "old": 0.5},
        {"step": 10, "seconds": 8, "mask": 1.0, "recall": 0.5},
        {"step": 10, "seconds": 8, "miou": 0.2, "old": 0.4},
        {"step": 20, "seconds": 20, "mask": 0.9, "recall": 0.5},
        {"step": 10, "seconds": 8, "images": 6, "measuring": 3.0},
        {"step": 15, "seconds": 18, "mask": 0.75},
    )
    with (run / METRICS_FILE).open("a") as stream:
        stream.write('{"time": 3, "step": 17, "sec')  # killed
    with locked(run):
        write_state(run, "running", seconds=9.0)
        found = read_training(run, record())
    assert [(p.step, p.loss, p.iou, p.old_iou) for p in found.curve] == [
        (0, None, 0.1, 0.5), (10, 1.5, 0.2, 0.4), (15, 0.75, None, None),
    ]  # fmt: skip
    assert (found.images, found.state, found.part) == (6, "running", pytest.approx(0.3))
    assert found.seconds == pytest.approx(9, abs=2)
    assert found.eta_seconds == pytest.approx(42 + 2 * 3, abs=2)
    assert read_training(run, record(), curve=False).curve == ()


def test_long_curves_are_thinned(run: Path) -> None:
    lines: list[dict[str, float]] = [{"step": 0, "seconds": 0, "images": 5, "miou": 0.1}]
    lines += [{"step": k, "seconds": k, "mask": 1 / k} for k in range(1, 4000)]
    lines += [{"step": k, "seconds": k, "miou": 0.5} for k in range(400, 4000, 400)]
    write_metrics(run, *lines)
    curve = read_training(run, record()).curve
    assert len(curve) == CURVE_POINTS
    assert [point.step for point in curve if point.iou is not None] == list(range(0, 4000, 400))
    assert curve[-1].step == 3999


def test_a_process_that_has_not_come_to_its_run_yet(run: Path) -> None:
    write_record(run / RECORD_FILE, record())
    write_state(run, "running")
    assert read_training(run, record()).state == "interrupted"
    write_process(run, os.getpid())
    assert read_training(run, record()).state == "running"
    with subprocess.Popen([sys.executable, "-c", "pass"]) as other:
        write_process(run, other.pid)
        eventually(lambda: read_training(run, record()).state == "interrupted")  # a zombie
    assert read_training(run, record()).state == "interrupted"


def _state(run: Path) -> None:
    (run / "state.json").write_text("{")


def _report(run: Path) -> None:
    (run / "report.json").write_text("{")


def _metrics(run: Path) -> None:
    (run / METRICS_FILE).write_bytes(b"\xff\xfe[]\n3\n")


def _process(run: Path) -> None:
    (run / "process.json").write_text("{")


@pytest.mark.parametrize("spoil", [_state, _report, _metrics, _process])
def test_damaged_files_of_a_run(
    serve: Any, gated: Any, run: Path, spoil: Callable[[Path], None]
) -> None:
    write_record(run / RECORD_FILE, record())
    write_state(run, "running", seconds=2)
    (run / LOG_FILE).write_text("a line\n")
    spoil(run)
    http = serve(gated).http
    found = told(http, "mini-v2")
    assert found.state == "interrupted"
    assert found.reason
    assert len(http.get("/v1/trainings").json()["trainings"]) == 1
    (run / "training.json").write_text("{")
    assert code(http.get("/v1/trainings/mini-v2")) == (500, "checkpoint")
    assert http.get("/v1/trainings").json() == {"trainings": []}
    assert http.get("/v1/versions").json()["active"] == "mini"
