"""Batches through the service, as real processes: paused, killed, resumed, found again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image
from tifffile import imwrite

from clsclip.batch.files import label_file, read_labels, write_labels
from clsclip.batch.job import FILES_FILE
from clsclip.batch.manifest import Manifest, ManifestRow
from clsclip.batch.reviews import Reviews
from clsclip.model.run_state import locked, read_process, write_process, write_state
from clsclip.service.batch_record import BATCHES_VARIABLE, RECORD_FILE, BatchRecord
from clsclip.service.batch_request import new_folder
from clsclip.service.run_processes import write_record
from clsclip.wire import TOKEN_VARIABLE, ErrorAnswer, ReadyLine
from clsclip.wire_batch import (
    COPIES_FOLDER,
    Batch,
    BatchFile,
    BatchFiles,
    BatchPreview,
    BatchRequest,
    encode_review,
)
from waiting import PATIENCE, eventually

STUB = [sys.executable, str(Path(__file__).parents[1] / "stub_label.py")]

BACKEND = f"""
import sys
from clsclip.service import batch_processes
batch_processes.COMMAND = {STUB!r}
from clsclip.cli.backend import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(BATCHES_VARIABLE, str(tmp_path / "batches"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path / "batches"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Six images, the brighter the later; one is bad, one is black."""
    root = tmp_path / "images"
    root.mkdir()
    for number, name in enumerate(("a", "b", "c bad", "d", "e", "f")):
        plane = np.zeros((20, 24), np.uint8)
        plane[4:12, 4 : 4 + 3 * number] = 200
        Image.fromarray(plane).save(root / f"{name}.png")
    return root


def asked(images: Path, **changes: Any) -> dict[str, Any]:
    output = str(images.parent / "cell labels")
    return {"inputs": [str(images)], "words": ["cell", "rim"], "output": output, **changes}


def post(http: httpx.Client, images: Path, **changes: Any) -> httpx.Response:
    return http.post("/v1/batches", json=asked(images, **changes))


def started(answer: httpx.Response) -> Batch:
    assert answer.status_code == 201, answer.text
    return Batch.model_validate_json(answer.content)


def told(http: httpx.Client, name: str) -> Batch:
    answer = http.get(f"/v1/batches/{name}")
    assert answer.status_code == 200, answer.text
    return Batch.model_validate_json(answer.content)


def files(http: httpx.Client, name: str, **how: Any) -> BatchFiles:
    answer = http.get(f"/v1/batches/{name}/files", params=how)
    assert answer.status_code == 200, answer.text
    return BatchFiles.model_validate_json(answer.content)


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, ErrorAnswer.model_validate_json(answer.content).error.code


def counts(batch: Batch) -> tuple[int, int, int, int]:
    return batch.files, batch.done, batch.failed, batch.accepted


# ---- processes ----


def test_from_start_to_retry(serve: Any, gated: Any, images: Path) -> None:
    http = serve(gated, None, STUB).http
    batch = started(post(http, images, formats=["tiff", "png"]))
    assert batch.name == f"cell-labels-{datetime.now(UTC):%Y-%m-%d}"
    assert (batch.state, batch.request.words) == ("running", ("cell", "rim"))
    eventually(lambda: told(http, batch.name).state == "done")
    ended = told(http, batch.name)
    assert counts(ended) == (6, 5, 1, 0)
    assert (ended.reason, ended.doing, ended.eta_seconds) == ("", "", None)
    assert 0 <= ended.seconds < 60  # told in tenths, and it is quick
    (bad,) = files(http, batch.name, status="failed").files
    assert (bad.number, bad.status, bad.error) == (2, "failed", "It is bad.")
    assert bad.file == str(images / "c bad.png")
    (images / "good").touch()
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
    serve: Any, gated: Any, images: Path, folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("STUB_SECONDS", "0.6")
    http = serve(gated, None, STUB).http
    name = started(post(http, images)).name
    assert code(post(http, images, output=str(images.parent / "b"))) == (503, "busy")
    assert not (images.parent / "b").exists()
    eventually(lambda: told(http, name).done > 0)
    running = told(http, name)
    assert running.doing.startswith(f"{running.done} of 6: ")
    assert running.eta_seconds is not None
    assert 0.2 < running.eta_seconds < 60
    process = read_process(folder / name)
    assert process is not None
    assert psutil.Process(process.pid).nice() > psutil.Process().nice()

    assert http.post(f"/v1/batches/{name}/pause").json()["state"] == "paused"
    time.sleep(1.2)  # the present file ends
    before = told(http, name)
    assert (before.state, before.eta_seconds) == ("paused", None)
    assert http.post(f"/v1/batches/{name}/pause").json()["state"] == "paused"
    assert code(post(http, images)) == (503, "busy")
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
    again = read_process(folder / name)
    assert again is not None
    assert http.post(f"/v1/batches/{name}/pause").json()["state"] == "paused"
    assert http.delete(f"/v1/batches/{name}").status_code == 200
    eventually(lambda: told(http, name).state == "cancelled")
    assert told(http, name).done >= dead.done
    assert http.post(f"/v1/batches/{name}/resume").json()["state"] == "running"
    eventually(lambda: told(http, name).state == "done")
    assert counts(told(http, name)) == (6, 5, 1, 0)
    rows = (images.parent / "cell labels" / "manifest.csv").read_text().splitlines()
    assert len(rows) == 7
    eventually(lambda: not process.alive and not again.alive)


@pytest.mark.slow
def test_a_batch_outlives_its_backend(
    serve: Any, gated: Any, images: Path, folder: Path,
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
            name = started(post(http, images)).name
        process.kill()
        process.wait(PATIENCE)
    child = read_process(folder / name)
    assert child is not None
    assert child.alive
    http = serve(gated, None, STUB).http
    assert told(http, name).state == "running"
    assert code(post(http, images)) == (503, "busy")
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
    serve: Any, gated: Any, images: Path, command: list[str], reason: str
) -> None:
    http = serve(gated, None, command).http
    name = started(post(http, images)).name
    eventually(lambda: told(http, name).state == "interrupted")
    found = told(http, name)
    assert reason in found.reason
    assert counts(found) == (0, 0, 0, 0)
    assert files(http, name) == BatchFiles(total=0, files=())
    assert http.post(f"/v1/batches/{name}/resume").status_code == 200
    eventually(lambda: told(http, name).state == "interrupted")
    assert http.delete(f"/v1/batches/{name}").json()["state"] == "cancelled"
    other = started(post(http, images)).name
    assert other == f"{name}-2"
    eventually(lambda: told(http, other).state == "interrupted")
    listed = http.get("/v1/batches").json()["batches"]
    assert [batch["name"] for batch in listed] == [other, name]


def test_a_program_that_is_not_there(serve: Any, gated: Any, images: Path, folder: Path) -> None:
    http = serve(gated, None, [str(folder / "no-python")]).http
    assert code(post(http, images)) == (500, "file")
    (batch,) = http.get("/v1/batches").json()["batches"]
    assert batch["state"] == "failed"
    assert "no-python" in batch["reason"]


# ---- what cannot be asked for ----


INVALID = (422, "invalid_request")
REFUSED: list[tuple[dict[str, Any], tuple[int, str], str]] = [
    ({"inputs": []}, INVALID, "inputs"),
    ({"inputs": ["nowhere"]}, INVALID, "nowhere' does not exist"),
    ({"inputs": ["x" * 300]}, INVALID, "does not exist"),
    ({"inputs": [""]}, INVALID, "no path"),
    ({"inputs": ["a\0b"]}, INVALID, "no path"),
    ({"inputs": ["~nobody-has-this-name/x"]}, INVALID, "cannot be found"),
    ({"inputs": ["images"], "pattern": "*.tif"}, INVALID, "'*.tif'"),
    ({"inputs": ["empty"]}, INVALID, "holds no image files"),
    ({"inputs": ["images/a.png", "twice/a.png"]}, INVALID, "would both be labelled"),
    ({"output": "images"}, INVALID, "is an input and the output"),
    ({"output": "images/../images"}, INVALID, "is an input"),
    ({"output": "images/a.png"}, INVALID, "no folder"),
    ({"output": "images/a.png/x"}, INVALID, "cannot be written"),
    ({"output": "taken"}, INVALID, "is there already"),
    ({"output": "x" * 300}, INVALID, "too long"),
    ({"output": "a\nb"}, INVALID, "no path"),
    ({"words": []}, INVALID, "words"),
    ({"words": [" "]}, (422, "invalid_word"), "empty"),
    ({"words": ["a, b"]}, (422, "invalid_word"), "comma"),
    ({"model": "no-such-model"}, (404, "unknown_model"), "no-such-model"),
    ({"formats": []}, INVALID, "formats"),
    ({"formats": ["bmp"]}, INVALID, "bmp"),
    ({"pattern": ""}, INVALID, "pattern"),
    ({"threshold": 0}, INVALID, "threshold"),
    ({"more": 1}, INVALID, "more"),
]


def test_what_cannot_be_started(
    serve: Any, gated: Any, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = images.parent
    monkeypatch.chdir(root)
    for name in ("empty", "twice", "taken"):
        (root / name).mkdir()
    (root / "twice" / "a.png").write_bytes((images / "a.png").read_bytes())
    (root / "taken" / "a.tif").touch()
    http = serve(gated, None, [sys.executable, "-c", "pass"]).http
    for changes, expected, words in REFUSED:
        answer = post(http, images, **changes)
        assert code(answer) == expected, changes
        assert words in answer.json()["error"]["message"], changes
    for body in (b"", b"{", b"[]", b'{"inputs": 3}', b"\xff"):
        answer = http.post("/v1/batches", content=body)
        assert code(answer) == INVALID
    assert http.get("/v1/batches").json() == {"batches": []}
    assert not (root / "cell labels").exists()


def test_unknown_names_and_bad_questions(serve: Any, gated: Any) -> None:
    http = serve(gated).http
    for method, path, expected in (
        ("GET", "none", 404), ("DELETE", "none", 404), ("POST", "none/pause", 404),
        ("POST", "none/resume", 404), ("GET", "none/files", 404),
        ("GET", "none/files/0/thumbnail", 404), ("PUT", "none/files/0/review", 404),
        ("DELETE", "none/files/0/review", 404), ("GET", ".hidden", 422),
        ("GET", "none/files?start=-1", 422), ("GET", "none/files?count=1001", 422),
        ("GET", "none/files?status=lost", 422), ("GET", "none/files?order=size", 422),
        ("GET", "none/files/x/thumbnail", 422), ("GET", "none/files/-1/thumbnail", 422),
    ):  # fmt: skip
        answer = http.request(method, f"/v1/batches/{path}")
        assert answer.status_code == expected, (method, path, answer.text)
        ErrorAnswer.model_validate_json(answer.content)


def test_names(tmp_path: Path) -> None:
    day = datetime(2026, 11, 25, tzinfo=UTC)
    for output, name in (
        ("nuclei", "nuclei-2026-11-25"), ("nuclei", "nuclei-2026-11-25-2"),
        ("Zellen für Anna!", "Zellen-fur-Anna-2026-11-25"), ("细胞", "batch-2026-11-25"),
        ("..x..", "x-2026-11-25"), ("y" * 200, "y" * 40 + "-2026-11-25"),
    ):  # fmt: skip
        assert new_folder(tmp_path, Path("/data") / output, day).name == name


# ---- files ----


def batch_of(folder: Path, output: Path, rows: list[ManifestRow | str], **about: Any) -> str:
    """The folder of a batch as its process leaves it; of text, files that are not labelled yet."""
    run = folder / "made"
    run.mkdir(parents=True)
    request = BatchRequest(inputs=("/data",), words=("cell",), output=str(output), **about)
    record = BatchRecord(request=request, started=datetime.now(UTC), device="cpu")
    write_record(run / RECORD_FILE, record)
    paths = [Path(row) if isinstance(row, str) else row.file for row in rows]
    (run / FILES_FILE).write_text(
        json.dumps([{"file": str(path), "key": path.stem} for path in paths])
    )
    output.mkdir(exist_ok=True)
    Manifest(output).write([row for row in rows if not isinstance(row, str)])
    write_state(run, "done", seconds=2.0)
    return run.name


def test_pages_status_and_order(serve: Any, gated: Any, tmp_path: Path, folder: Path) -> None:
    output = tmp_path / "labels"
    scores = {"a": 0.9, "b": None, "d": 0.2, "e": 0.6}
    rows: list[ManifestRow | str] = [
        ManifestRow(Path(f"/data/{name}.png"), "done", 1.5, objects=3, score=score)
        for name, score in scores.items()
    ]
    rows.insert(2, ManifestRow(Path("/data/c.png"), "failed", 0.1, "It is\nbad."))
    rows.append("/data/f.png")
    name = batch_of(folder, output, rows)
    (output / "a.tif").touch()
    (output / "b.zarr").mkdir()
    http = serve(gated).http
    assert counts(told(http, name)) == (6, 4, 1, 0)

    def shown(**how: Any) -> tuple[int, str]:
        found = files(http, name, **how)
        return found.total, "".join(Path(file.file).stem for file in found.files)

    assert shown() == (6, "abcdef")
    assert shown(start=1, count=2) == (6, "bc")
    assert shown(start=6) == (6, "")
    assert shown(start=10**30) == (6, "")
    assert shown(count=0) == (6, "")
    assert shown(status="done") == (4, "abde")
    assert shown(status="failed") == (1, "c")
    assert shown(status="waiting") == (1, "f")
    assert shown(order="score") == (6, "dbeacf")
    assert shown(order="score", status="done", start=1, count=2) == (4, "be")
    first, second, third = files(http, name, count=3).files
    assert first == BatchFile(
        number=0, file="/data/a.png", status="done", seconds=1.5, objects=3, score=0.9,
        labels=str(output / "a.tif"),
    )  # fmt: skip
    assert second.labels == str(output / "b.zarr")
    assert (third.labels, third.error) == ("", "It is bad.")
    Manifest(output).append(ManifestRow(Path("/data/f.png"), "done", 1.0))
    assert shown(status="waiting") == (0, "")


def test_thumbnails(serve: Any, gated: Any, tmp_path: Path, folder: Path) -> None:
    name = batch_of(folder, tmp_path / "labels", ["/data/a.png", "/data/b.png"])
    pictures = folder / name / "thumbnails"
    pictures.mkdir()
    for number in (0, 2):
        Image.new("RGB", (8, 9), (200, 0, 0)).save(pictures / f"{number}.png")
    http = serve(gated).http
    answer = http.get(f"/v1/batches/{name}/files/0/thumbnail")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert answer.content == (pictures / "0.png").read_bytes()
    for other in ("1", "2", "10000000000000000000000000"):  # not yet, and not of this batch
        answer = http.get(f"/v1/batches/{name}/files/{other}/thumbnail")
        assert code(answer) == (404, "not_found")
    assert http.get(f"/v1/batches/{name}/files/..%2F..%2Fx/thumbnail").status_code in (404, 422)


def _no_files(run: Path, output: Path) -> None:
    (run / FILES_FILE).write_text('[{"file": 3}]')


def _no_manifest(run: Path, output: Path) -> None:
    (output / "manifest.csv").write_text("nothing\n1,2\n")


def _no_reviews(run: Path, output: Path) -> None:
    (output / ".reviews.jsonl").write_text("{\n")


def _no_state(run: Path, output: Path) -> None:
    (run / "state.json").write_text("{")


def _no_session(run: Path, output: Path) -> None:
    (run / "session.json").write_text("{")
    write_state(run, "running")
    write_process(run, os.getpid())


@pytest.mark.parametrize("spoil", [_no_files, _no_manifest, _no_reviews, _no_state, _no_session])
def test_damaged_files(
    serve: Any, gated: Any, tmp_path: Path, folder: Path, spoil: Callable[[Path, Path], None]
) -> None:
    output = tmp_path / "labels"
    name = batch_of(folder, output, [ManifestRow(Path("/data/a.png"), "done", 1.0, score=0.5)])
    spoil(folder / name, output)
    http = serve(gated).http
    found = told(http, name)
    assert found.reason or spoil is _no_session
    assert found.eta_seconds is None
    files(http, name)
    assert len(http.get("/v1/batches").json()["batches"]) == 1
    (folder / name / RECORD_FILE).write_text("{")
    assert code(http.get(f"/v1/batches/{name}")) == (500, "checkpoint")
    assert http.get("/v1/batches").json() == {"batches": []}


def test_a_process_that_has_not_come_to_its_batch_yet(
    serve: Any, gated: Any, tmp_path: Path, folder: Path
) -> None:
    name = batch_of(folder, tmp_path / "labels", ["/data/a.png"])
    http = serve(gated).http
    with locked(folder / name):
        write_state(folder / name, "failed", "There is no detector.")
        found = told(http, name)
        assert (found.state, found.reason) == ("failed", "There is no detector.")
        write_state(folder / name, "running", seconds=9.0)
        found = told(http, name)
    assert (found.state, found.doing) == ("running", "The process starts.")
    assert found.seconds == pytest.approx(9, abs=2)
    assert told(http, name).state == "interrupted"


# ---- reviews ----


def review(http: httpx.Client, name: str, number: int, labels: Any = None) -> httpx.Response:
    body = b"" if labels is None else encode_review(labels)
    return http.put(f"/v1/batches/{name}/files/{number}/review", content=body)


def test_reviews(serve: Any, gated: Any, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clsclip.service.export_renewal.QUIET_SECONDS", 0.05)
    output = images.parent / "cell labels"
    http = serve(gated, None, STUB).http
    everything = {"instances": True, "formats": ["tiff", "png", "coco"]}
    name = started(post(http, images, **everything)).name
    eventually(lambda: told(http, name).state == "done")
    accepted = BatchFile.model_validate_json(review(http, name, 1).content)
    assert (accepted.accepted, accepted.corrected, accepted.number) == (True, False, 1)
    labels, _ = read_labels(label_file(output, "d"))
    labels[15:18, 2:9] = 7
    answer = review(http, name, 3, labels)
    assert answer.status_code == 200, answer.text
    corrected = BatchFile.model_validate_json(answer.content)
    assert (corrected.accepted, corrected.corrected) == (True, True)
    assert corrected.labels == str(output / "d.tif")
    np.testing.assert_array_equal(read_labels(label_file(output, "d"))[0], labels)
    np.testing.assert_array_equal(np.asarray(Image.open(output / "png" / "d.png")), labels)
    assert counts(told(http, name)) == (6, 5, 1, 2)
    eventually(lambda: not Reviews(output).exports_stale)
    coco = json.loads((output / "coco.json").read_text())
    areas = sorted(each["area"] for each in coco["annotations"])
    assert 21 in areas  # 3 x 7, what was drawn
    withdrawn = http.delete(f"/v1/batches/{name}/files/1/review")
    assert BatchFile.model_validate_json(withdrawn.content).accepted is False
    assert counts(told(http, name)) == (6, 5, 1, 1)

    # again, over all but what is accepted
    kept = label_file(output, "d").read_bytes()
    again = started(post(http, images, **everything, overwrite=True)).name
    eventually(lambda: told(http, again).state == "done")
    assert label_file(output, "d").read_bytes() == kept
    assert counts(told(http, again)) == (6, 5, 1, 1)


def test_reviews_that_are_refused(serve: Any, gated: Any, tmp_path: Path, folder: Path) -> None:
    output = tmp_path / "labels"
    rows: list[ManifestRow | str] = [
        ManifestRow(Path("/data/a.png"), "done", 1.0),
        ManifestRow(Path("/data/b.png"), "failed", 1.0, "It is bad."),
        "/data/c.png",
    ]
    name = batch_of(folder, output, rows)
    write_labels(label_file(output, "a"), np.ones((20, 24), np.uint16))
    http = serve(gated, max_request_mb=1).http
    assert code(review(http, name, 1)) == (409, "conflict")
    assert code(review(http, name, 2)) == (409, "conflict")
    assert code(review(http, name, 3)) == (404, "not_found")
    assert code(review(http, name, 0, np.zeros((3, 3), np.uint8))) == (422, "invalid_image")
    assert code(review(http, name, 0, np.full((20, 24), 3))) == (422, "invalid_image")
    assert code(review(http, name, 0, np.full((20, 24), -1))) == (422, "invalid_request")
    assert code(review(http, name, 0, np.zeros((20, 24)))) == (422, "invalid_request")
    assert code(review(http, name, 0, np.zeros((2000, 2000), np.uint8))) == (
        413, "request_too_large",
    )  # fmt: skip
    for body in (b"{}", b"PK\x03\x04", bytes(1000)):
        answer = http.put(f"/v1/batches/{name}/files/0/review", content=body)
        assert code(answer) == (422, "invalid_request")
    (output / "classes.csv").write_text("id,name\n1,rim\n")
    assert code(review(http, name, 0)) == (409, "conflict")
    assert counts(told(http, name)) == (3, 1, 1, 0)
    (output / "classes.csv").write_text("id,name\n1,cell\n")
    assert review(http, name, 0).json()["accepted"]


# ---- preview ----


def preview(http: httpx.Client, images: Path, **changes: Any) -> httpx.Response:
    asked = {"inputs": [str(images)], "words": ["cell"],
             "output": str(images.parent / "labels"), **changes}  # fmt: skip
    return http.post("/v1/batches/preview", json=asked)


def test_preview(serve: Any, gated: Any, images: Path) -> None:
    gated.gate.set()
    http = serve(gated).http
    answer = preview(http, images, instances=True)
    assert answer.status_code == 200, answer.text
    found = BatchPreview.model_validate_json(answer.content)
    assert (found.files, found.accepted, found.pixels) == (6, 0, 6 * 20 * 24)
    assert found.bytes == sum(file.stat().st_size for file in images.iterdir())
    assert found.first == tuple(str(images / f"{name}.png") for name in
                                ("a", "b", "c bad", "d", "e"))  # fmt: skip
    assert found.seconds is not None
    assert found.notes == ()
    assert gated.images == [(20, 24), (20, 24)]  # a quick one twice
    assert not (images.parent / "labels").exists()
    assert http.get("/v1/batches").json() == {"batches": []}
    assert code(preview(http, images, pattern="*.tif")) == (422, "invalid_request")


def test_preview_of_many_files(
    serve: Any, gated: Any, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clsclip.service.batch_preview.SAMPLE", 3)
    gated.gate.set()
    output = images.parent / "labels"
    output.mkdir()
    (output / "a.tif").touch()
    for name in ("a", "gone"):
        Manifest(output).write([ManifestRow(images / "a.png", "done", 1.0)])
        if name == "a":
            Reviews(output).accept(images / "a.png", "a", words=("cell",), formats=("tiff",))
    (images / "e.png").write_bytes((images / "e.png").read_bytes()[:20])
    found = BatchPreview.model_validate_json(preview(serve(gated).http, images).content)
    assert (found.files, found.accepted) == (6, 1)
    assert found.pixels == round(2 * 20 * 24 * 6 / 3)
    assert found.seconds is not None
    taken, bad = found.notes
    assert "is there already" in taken
    assert "e.png" in bad
    assert "of the 3 files that were looked at" in bad


def test_previews_that_are_given_up(
    serve: Any, gated: Any, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clsclip.service.batch_preview.TRY_SECONDS", 0.3)
    service = serve(gated)
    found = BatchPreview.model_validate_json(preview(service.http, images).content)
    assert (found.files, found.seconds) == (6, None)
    assert "given up after 0.3 s" in found.notes[0]
    eventually(lambda: service.jobs.counts() == (0, 0))  # its job has ended
    monkeypatch.setattr("clsclip.service.batch_preview.LARGE_FROM", 100)
    found = BatchPreview.model_validate_json(preview(service.http, images).content)
    assert found.seconds is None
    assert "zarr" in found.notes[0]
    assert len(gated.images) == 1  # none was tried

    def load(model: str, *, device: str) -> Any:
        raise ZeroDivisionError("by nought")

    monkeypatch.undo()
    found = BatchPreview.model_validate_json(preview(serve(load).http, images).content)
    assert found.seconds is None
    assert "by nought" in found.notes[0]


# ---- files that napari reads ----


def write_foreign(images: Path, *names: str) -> Path:
    """Files that no backend can read; returns the folder for their copies."""
    for name in names:
        (images / name).write_bytes(b"of another format")
    copies = images.parent / "cell labels" / COPIES_FOLDER
    copies.mkdir(parents=True)
    return copies


def write_copy(copies: Path, file: Path, planes: int = 1) -> dict[str, str]:
    copy = copies / f"{file.stem}.ome.tif"
    pixels = np.zeros((planes, 20, 24), np.uint8)
    pixels[:, 4:12] = 200
    imwrite(copy, pixels, photometric="minisblack", metadata={"axes": "ZYX"})
    return {"file": str(file), "copied_to": str(copy)}


def test_files_that_napari_reads(serve: Any, gated: Any, images: Path, folder: Path) -> None:
    http = serve(gated, None, STUB).http
    copies = write_foreign(images, "g.czi", "h.czi", "i.czi")
    unread = [{"file": str(images / f"{name}.czi")} for name in "ghi"]
    checked = http.post("/v1/batches/check", json=asked(images, copies=unread))
    assert checked.json() == {"files": 9}
    read = [
        write_copy(copies, images / "g.czi"),
        {"file": str(images / "h.czi"), "error": "'h.czi' is encrypted."},
        {"file": str(images / "gone.czi"), "error": "Not among the images."},
    ]
    batch = started(post(http, images, formats=["tiff", "coco"], copies=read))
    assert batch.request.copies == ()  # they are not told again and again
    assert "copies" not in http.get("/v1/batches").text
    eventually(lambda: told(http, batch.name).state == "done")
    assert counts(told(http, batch.name)) == (8, 6, 2, 0)
    found = files(http, batch.name).files
    assert [Path(each.file).name for each in found[-2:]] == ["g.czi", "h.czi"]
    assert found[-2].labels == str(images.parent / "cell labels" / "g.tif")
    assert (found[-2].copied_to, found[0].copied_to) == (read[0]["copied_to"], "")
    assert (found[-1].status, found[-1].error) == ("failed", "'h.czi' is encrypted.")
    assert "copied_to" not in http.get(f"/v1/batches/{batch.name}/files", params={"count": 1}).text
    listed = json.loads((images.parent / "cell labels" / "coco.json").read_text())
    assert "g.czi" in [image["file_name"] for image in listed["images"]]
    assert review(http, batch.name, 6).json()["accepted"]

    Path(read[0]["copied_to"]).unlink()  # nobody needs it any more
    (images / "good").touch()
    path = f"/v1/batches/{batch.name}/resume"
    gone = {"copies": [{"file": str(images / "h.czi"), "copied_to": str(copies / "no.ome.tif")}]}
    answer = http.post(path, json=gone)
    assert code(answer) == INVALID
    assert "does not see" in answer.json()["error"]["message"]
    again = {"copies": [write_copy(copies, images / "h.czi")]}
    assert http.post(path, json=again).status_code == 200
    eventually(lambda: told(http, batch.name).state == "done")
    assert counts(told(http, batch.name)) == (8, 8, 0, 1)


def test_copies_that_the_backend_does_not_see(serve: Any, gated: Any, images: Path) -> None:
    gated.gate.set()
    http = serve(gated, None, STUB).http
    copies = write_foreign(images, "g.czi")
    read = write_copy(copies, images / "g.czi")
    Path(read["copied_to"]).unlink()
    answer = post(http, images, copies=[read])
    assert code(answer) == INVALID
    assert "It probably runs on another machine" in answer.json()["error"]["message"]
    copies.rmdir()
    answer = http.post("/v1/batches/check", json=asked(images, copies=[{"file": read["file"]}]))
    assert code(answer) == INVALID
    assert f"the backend does not see '{copies}'" in answer.json()["error"]["message"]
    found = BatchPreview.model_validate_json(preview(http, images, copies=[read]).content)
    assert (found.files, len(found.notes)) == (7, 1)
    assert "does not see" in found.notes[0]
    assert http.get("/v1/batches").json() == {"batches": []}


def test_preview_with_files_that_napari_reads(serve: Any, gated: Any, images: Path) -> None:
    gated.gate.set()
    copies = write_foreign(images, "g.czi", "h.czi", "i.czi")
    for file in images.glob("*.png"):
        file.unlink()
    read = [write_copy(copies, images / "g.czi", planes=5)]
    read += [{"file": str(images / f"{name}.czi")} for name in "hi"]
    found = BatchPreview.model_validate_json(
        preview(serve(gated).http, images, copies=read).content
    )
    assert (found.files, found.pixels) == (3, 3 * 5 * 20 * 24)  # all like the one that was read
    assert found.bytes == 3 * len(b"of another format")
    assert found.seconds is not None
    assert found.notes == ()


# ---- the command itself ----


@pytest.mark.slow
def test_the_real_command(
    serve: Any, gated: Any, tiny_model: Path, images: Path, folder: Path
) -> None:
    (images / "c bad.png").write_bytes(b"no picture")
    output = images.parent / "cell labels"
    http = serve(gated).http
    settings = {"model": str(tiny_model), "formats": ["tiff", "png", "coco"], "zoom": 1.0,
             "threshold": 0.4, "pattern": "*.png", "recursive": True}  # fmt: skip
    name = started(post(http, images, **settings)).name
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
