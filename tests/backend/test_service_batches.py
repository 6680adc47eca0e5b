"""Batches through the service, as real processes: paused, killed, resumed, found again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from batch_service import STUB, code, counts, files, post, review, started, told
from clsclip.batch.files import label_file, read_labels
from clsclip.batch.reviews import Reviews
from clsclip.model.run_state import read_process
from clsclip.wire import TOKEN_VARIABLE, ReadyLine
from clsclip.wire_batch import Batch, BatchFiles
from waiting import PATIENCE, eventually

BACKEND = f"""
import sys
from clsclip.service import batch_processes
batch_processes.COMMAND = {STUB!r}
from clsclip.cli.backend import main
sys.exit(main(sys.argv[1:]))
"""


def test_from_start_to_retry(serve: Any, gated: Any, six_images: Path) -> None:
    http = serve(gated, None, STUB).http
    batch = started(post(http, six_images, formats=["tiff", "png"]))
    assert batch.name == f"cell-labels-{datetime.now(UTC):%Y-%m-%d}"
    assert (batch.state, batch.request.words) == ("running", ("cell", "rim"))
    eventually(lambda: told(http, batch.name).state == "done")
    ended = told(http, batch.name)
    assert counts(ended) == (6, 5, 1, 0)
    assert (ended.reason, ended.doing, ended.eta_seconds) == ("", "", None)
    assert 0 <= ended.seconds < 60  # told in tenths, and it is quick
    (bad,) = files(http, batch.name, status="failed").files
    assert (bad.number, bad.status, bad.error) == (2, "failed", "It is bad.")
    assert bad.file == str(six_images / "c bad.png")
    (six_images / "good").touch()
    resumed = http.post(f"/v1/batches/{batch.name}/resume")
    assert resumed.status_code == 200
    eventually(lambda: counts(told(http, batch.name)) == (6, 6, 0, 0))
    eventually(lambda: told(http, batch.name).state == "done")
    assert ended.seconds <= told(http, batch.name).seconds < 60
    assert code(http.post(f"/v1/batches/{batch.name}/resume")) == (409, "conflict")
    assert code(http.post(f"/v1/batches/{batch.name}/pause")) == (409, "conflict")
    assert told(http, batch.name).state == "done"
    again = http.delete(f"/v1/batches/{batch.name}")  # what is over cannot be ended
    assert Batch.model_validate_json(again.content).state == "done"


def test_paused_killed_resumed_and_cancelled(
    serve: Any, gated: Any, six_images: Path, batches: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("STUB_SECONDS", "0.6")
    http = serve(gated, None, STUB).http
    name = started(post(http, six_images)).name
    assert code(post(http, six_images, output=str(six_images.parent / "b"))) == (503, "busy")
    assert not (six_images.parent / "b").exists()
    eventually(lambda: told(http, name).done > 0)
    running = told(http, name)
    assert running.doing.startswith(f"{running.done} of 6: ")
    assert running.eta_seconds is not None
    assert 0.2 < running.eta_seconds < 60
    process = read_process(batches / name)
    assert process is not None
    assert psutil.Process(process.pid).nice() > psutil.Process().nice()

    assert http.post(f"/v1/batches/{name}/pause").json()["state"] == "paused"
    time.sleep(1.2)  # the present file ends
    before = told(http, name)
    assert (before.state, before.eta_seconds) == ("paused", None)
    assert http.post(f"/v1/batches/{name}/pause").json()["state"] == "paused"
    assert code(post(http, six_images)) == (503, "busy")
    time.sleep(0.8)
    assert told(http, name).done == before.done < 5
    assert told(http, name).seconds == pytest.approx(before.seconds, abs=0.3)
    assert http.post(f"/v1/batches/{name}/resume").json()["state"] == "running"
    eventually(lambda: told(http, name).done > before.done)

    os.kill(process.pid, signal.SIGKILL)
    eventually(lambda: told(http, name).state == "interrupted")
    dead = told(http, name)
    assert "ended before it was done" in dead.reason
    assert " of 6: " in dead.reason  # of its log
    assert dead.eta_seconds is None
    assert code(http.post(f"/v1/batches/{name}/pause")) == (409, "conflict")

    assert http.post(f"/v1/batches/{name}/resume").json()["state"] == "running"
    assert http.post(f"/v1/batches/{name}/resume").json()["state"] == "running"  # left alone
    again = read_process(batches / name)
    assert again is not None
    assert http.post(f"/v1/batches/{name}/pause").json()["state"] == "paused"
    assert http.delete(f"/v1/batches/{name}").status_code == 200
    eventually(lambda: told(http, name).state == "cancelled")
    assert told(http, name).done >= dead.done
    assert http.post(f"/v1/batches/{name}/resume").json()["state"] == "running"
    eventually(lambda: told(http, name).state == "done")
    assert counts(told(http, name)) == (6, 5, 1, 0)
    rows = (six_images.parent / "cell labels" / "manifest.csv").read_text().splitlines()
    assert len(rows) == 7
    eventually(lambda: not process.alive and not again.alive)


@pytest.mark.slow
def test_a_batch_outlives_its_backend(
    serve: Any, gated: Any, six_images: Path, batches: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("STUB_SECONDS", "0.3")
    with subprocess.Popen(
        [sys.executable, "-c", BACKEND, "--device", "cpu", "--exit-with-parent"], text=True,
        env={**os.environ, TOKEN_VARIABLE: "t"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        url = ReadyLine.model_validate_json(process.stdout.readline()).url
        with httpx.Client(
            base_url=url, headers={"Authorization": "Bearer t"}, trust_env=False, timeout=30
        ) as http:
            name = started(post(http, six_images)).name
        process.kill()
        process.wait(PATIENCE)
    child = read_process(batches / name)
    assert child is not None
    assert child.alive
    http = serve(gated, None, STUB).http
    assert told(http, name).state == "running"
    assert code(post(http, six_images)) == (503, "busy")
    eventually(lambda: told(http, name).state == "done")
    assert counts(told(http, name)) == (6, 5, 1, 0)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ([sys.executable, "-c", "import no_such_module"], "No module named 'no_such_module'"),
        ([sys.executable, "-c", "pass"], "did not come to say anything"),
    ],
)
def test_a_process_that_cannot_start(
    serve: Any, gated: Any, six_images: Path, command: list[str], reason: str
) -> None:
    http = serve(gated, None, command).http
    name = started(post(http, six_images)).name
    eventually(lambda: told(http, name).state == "interrupted")
    found = told(http, name)
    assert reason in found.reason
    assert counts(found) == (0, 0, 0, 0)
    assert files(http, name) == BatchFiles(total=0, files=())
    assert http.post(f"/v1/batches/{name}/resume").status_code == 200
    eventually(lambda: told(http, name).state == "interrupted")
    assert http.delete(f"/v1/batches/{name}").json()["state"] == "cancelled"
    other = started(post(http, six_images)).name
    assert other == f"{name}-2"
    eventually(lambda: told(http, other).state == "interrupted")
    listed = http.get("/v1/batches").json()["batches"]
    assert [batch["name"] for batch in listed] == [other, name]


def test_a_program_that_is_not_there(
    serve: Any, gated: Any, six_images: Path, batches: Path
) -> None:
    http = serve(gated, None, [str(batches / "no-python")]).http
    assert code(post(http, six_images)) == (500, "file")
    (batch,) = http.get("/v1/batches").json()["batches"]
    assert batch["state"] == "failed"
    assert "no-python" in batch["reason"]


@pytest.mark.slow
def test_the_real_command(
    serve: Any, gated: Any, tiny_model: Path, six_images: Path, batches: Path
) -> None:
    (six_images / "c bad.png").write_bytes(b"no picture")
    output = six_images.parent / "cell labels"
    http = serve(gated).http
    settings = {"model": str(tiny_model), "formats": ["tiff", "png", "coco"], "zoom": 1.0,
                "threshold": 0.4, "pattern": "*.png", "recursive": True}  # fmt: skip
    name = started(post(http, six_images, **settings)).name
    eventually(lambda: told(http, name).state == "done", 2 * PATIENCE)
    assert counts(told(http, name)) == (6, 5, 1, 0)
    (bad,) = files(http, name, status="failed").files
    assert (bad.number, "cannot be read" in bad.error) == (2, True)
    picture = http.get(f"/v1/batches/{name}/files/0/thumbnail")
    assert picture.headers["content-type"] == "image/png"
    labels, _ = read_labels(label_file(output, "a"))
    labels[:5] = 2
    assert review(http, name, 0, labels).status_code == 200
    eventually(lambda: not Reviews(output).exports_stale)
    np.testing.assert_array_equal(read_labels(label_file(output, "a"))[0], labels)
    assert counts(told(http, name)) == (6, 5, 1, 1)
