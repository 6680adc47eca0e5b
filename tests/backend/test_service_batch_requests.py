"""What is asked of the service about batches: refused, named, previewed."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tifffile import imwrite

from batch_service import asked, code, post, preview
from clsclip.batch.manifest import Manifest, ManifestRow
from clsclip.batch.reviews import Reviews
from clsclip.config import FolderSettings
from clsclip.service.batch_record import BatchRecord, command_arguments
from clsclip.service.batch_request import new_folder
from clsclip.wire import ErrorAnswer
from clsclip.wire_batch import BatchPreview, BatchRequest
from waiting import eventually

pytestmark = pytest.mark.usefixtures("batches")

INVALID = (422, "invalid_request")
OVERWRITE = FolderSettings.model_fields["overwrite"].title
OVERWRITE_OR_ANOTHER = (
    "is there already. Choose another output folder, or "
    f"'{OVERWRITE}' (--overwrite on the command line) to replace it"
)
"""What can be done, for people in napari and at a command line."""

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
    ({"output": "taken"}, INVALID, OVERWRITE_OR_ANOTHER),
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
    serve: Any, gated: Any, six_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = six_images.parent
    monkeypatch.chdir(root)
    for name in ("empty", "twice", "taken"):
        (root / name).mkdir()
    (root / "twice" / "a.png").write_bytes((six_images / "a.png").read_bytes())
    (root / "taken" / "a.tif").touch()
    http = serve(gated, None, [sys.executable, "-c", "pass"]).http
    for changes, expected, words in REFUSED:
        answer = post(http, six_images, **changes)
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


def test_preview(serve: Any, gated: Any, six_images: Path) -> None:
    gated.gate.set()
    http = serve(gated).http
    answer = preview(http, six_images, instances=True)
    assert answer.status_code == 200, answer.text
    found = BatchPreview.model_validate_json(answer.content)
    assert (found.files, found.accepted, found.pixels) == (6, 0, 6 * 20 * 24)
    assert found.bytes == sum(file.stat().st_size for file in six_images.iterdir())
    assert found.first == tuple(str(six_images / f"{name}.png") for name in
                                ("a", "b", "c bad", "d", "e"))  # fmt: skip
    assert found.seconds is not None
    assert found.notes == ()
    assert gated.images == [(20, 24), (20, 24)]  # a quick one twice
    assert not (six_images.parent / "labels").exists()
    assert http.get("/v1/batches").json() == {"batches": []}
    assert code(preview(http, six_images, pattern="*.tif")) == (422, "invalid_request")


def test_preview_of_many_files(
    serve: Any, gated: Any, six_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clsclip.service.batch_preview.SAMPLE", 3)
    gated.gate.set()
    output = six_images.parent / "labels"
    output.mkdir()
    (output / "a.tif").touch()
    for name in ("a", "gone"):
        Manifest(output).write([ManifestRow(six_images / "a.png", "done", 1.0)])
        if name == "a":
            Reviews(output).accept(six_images / "a.png", "a", words=("cell",), formats=("tiff",))
    (six_images / "e.png").write_bytes((six_images / "e.png").read_bytes()[:20])
    found = BatchPreview.model_validate_json(preview(serve(gated).http, six_images).content)
    assert (found.files, found.accepted) == (6, 1)
    assert found.pixels == round(2 * 20 * 24 * 6 / 3)
    assert found.seconds is not None
    taken, bad = found.notes
    assert OVERWRITE_OR_ANOTHER in taken
    assert "e.png" in bad
    assert "of the 3 files that were looked at" in bad


def test_previews_that_are_given_up(
    serve: Any, gated: Any, six_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clsclip.service.batch_preview.TRY_SECONDS", 0.3)
    service = serve(gated)
    found = BatchPreview.model_validate_json(preview(service.http, six_images).content)
    assert (found.files, found.seconds) == (6, None)
    assert "given up after 0.3 s" in found.notes[0]
    eventually(lambda: service.jobs.counts() == (0, 0))  # its job has ended
    monkeypatch.setattr("clsclip.service.batch_preview.LARGE_FROM", 100)
    found = BatchPreview.model_validate_json(preview(service.http, six_images).content)
    assert found.seconds is None
    assert "zarr" in found.notes[0]
    assert len(gated.images) == 1  # none was tried

    def load(model: str, *, device: str) -> Any:
        raise ZeroDivisionError("by nought")

    monkeypatch.undo()
    found = BatchPreview.model_validate_json(preview(serve(load).http, six_images).content)
    assert found.seconds is None
    assert "by nought" in found.notes[0]


def test_channels_are_previewed_and_labelled(
    serve: Any, gated: Any, six_images: Path, tmp_path: Path
) -> None:
    gated.gate.set()
    http = serve(gated).http
    for file in six_images.glob("*.png"):
        file.unlink()
    channels = np.zeros((2, 20, 24), np.uint8)
    imwrite(six_images / "a.tif", channels, ome=True, metadata={"axes": "CYX"})
    refused = BatchPreview.model_validate_json(preview(http, six_images).content)
    assert refused.seconds is None
    assert "has 2 channels; expected 1, 3 or 4" in refused.notes[0]
    found = BatchPreview.model_validate_json(preview(http, six_images, channels="1").content)
    assert (found.pixels, found.notes) == (20 * 24, ())
    assert found.seconds is not None
    request = BatchRequest.model_validate(asked(six_images, channels=" 1"))
    record = BatchRecord(request=request, started=datetime.now(UTC), device="cpu")
    assert "--channels=1" in command_arguments(tmp_path, record)
    assert code(post(http, six_images, channels="0,1")) == INVALID
