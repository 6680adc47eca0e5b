"""The files of a batch through the service: pages, thumbnails, reviews, damaged folders."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from batch_service import STUB, batch_of, code, counts, files, post, review, started, told
from clsclip.batch.files import label_file, read_labels, write_labels
from clsclip.batch.job import FILES_FILE
from clsclip.batch.manifest import Manifest, ManifestRow
from clsclip.batch.reviews import Reviews
from clsclip.model.run_state import locked, write_process, write_state
from clsclip.service.batch_record import RECORD_FILE
from clsclip.wire_batch import BatchFile
from waiting import eventually


def test_pages_status_and_order(serve: Any, gated: Any, tmp_path: Path, batches: Path) -> None:
    output = tmp_path / "labels"
    scores = {"a": 0.9, "b": None, "d": 0.2, "e": 0.6}
    rows: list[ManifestRow | str] = [
        ManifestRow(Path(f"/data/{name}.png"), "done", 1.5, objects=3, score=score)
        for name, score in scores.items()
    ]
    rows.insert(2, ManifestRow(Path("/data/c.png"), "failed", 0.1, "It is\nbad."))
    rows.append("/data/f.png")
    name = batch_of(batches, output, rows)
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


def test_thumbnails(serve: Any, gated: Any, tmp_path: Path, batches: Path) -> None:
    name = batch_of(batches, tmp_path / "labels", ["/data/a.png", "/data/b.png"])
    pictures = batches / name / "thumbnails"
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
    serve: Any, gated: Any, tmp_path: Path, batches: Path, spoil: Callable[[Path, Path], None]
) -> None:
    output = tmp_path / "labels"
    name = batch_of(batches, output, [ManifestRow(Path("/data/a.png"), "done", 1.0, score=0.5)])
    spoil(batches / name, output)
    http = serve(gated).http
    found = told(http, name)
    assert found.reason or spoil is _no_session
    assert found.eta_seconds is None
    files(http, name)
    assert len(http.get("/v1/batches").json()["batches"]) == 1
    (batches / name / RECORD_FILE).write_text("{")
    assert code(http.get(f"/v1/batches/{name}")) == (500, "checkpoint")
    assert http.get("/v1/batches").json() == {"batches": []}


def test_a_process_that_has_not_come_to_its_batch_yet(
    serve: Any, gated: Any, tmp_path: Path, batches: Path
) -> None:
    name = batch_of(batches, tmp_path / "labels", ["/data/a.png"])
    http = serve(gated).http
    with locked(batches / name):
        write_state(batches / name, "failed", "There is no detector.")
        found = told(http, name)
        assert (found.state, found.reason) == ("failed", "There is no detector.")
        write_state(batches / name, "running", seconds=9.0)
        found = told(http, name)
    assert (found.state, found.doing) == ("running", "The process starts.")
    assert found.seconds == pytest.approx(9, abs=2)
    assert told(http, name).state == "interrupted"


def test_reviews(serve: Any, gated: Any, six_images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clsclip.service.export_renewal.QUIET_SECONDS", 0.05)
    output = six_images.parent / "cell labels"
    http = serve(gated, None, STUB).http
    everything = {"instances": True, "formats": ["tiff", "png", "coco"]}
    name = started(post(http, six_images, **everything)).name
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
    again = started(post(http, six_images, **everything, overwrite=True)).name
    eventually(lambda: told(http, again).state == "done")
    assert label_file(output, "d").read_bytes() == kept
    assert counts(told(http, again)) == (6, 5, 1, 1)


def test_reviews_that_are_refused(serve: Any, gated: Any, tmp_path: Path, batches: Path) -> None:
    output = tmp_path / "labels"
    rows: list[ManifestRow | str] = [
        ManifestRow(Path("/data/a.png"), "done", 1.0),
        ManifestRow(Path("/data/b.png"), "failed", 1.0, "It is bad."),
        "/data/c.png",
    ]
    name = batch_of(batches, output, rows)
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
