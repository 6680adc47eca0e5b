"""A server that answers as a backend with batches would, without labelling anything.

For states that are hard to provoke, and to know what the plugin has asked. Its files are real:
images and labels that napari opens. What a real backend does is tested in ``end_to_end``.
"""

from __future__ import annotations

import io
import json
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import tifffile
from PIL import Image
from pydantic import BaseModel

from clsclip.errors import (
    ClsClipError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    StoreError,
)
from clsclip.wire import error_json
from clsclip.wire_annotations import Correction, decode_correction
from clsclip.wire_batch import (
    MOST_FILES,
    Batch,
    BatchCheck,
    BatchCopies,
    BatchFile,
    BatchFiles,
    BatchList,
    BatchPreview,
    BatchRequest,
    decode_review,
)
from stub_backend import JSON, Reply
from stub_training import TrainingStub, annotation

BEGUN = datetime(2026, 11, 25, 9, 0, tzinfo=UTC)
SHAPE = (60, 80)


def batch(name: str = "nucleus-1", **changes: Any) -> Batch:
    """A batch that runs, unless something else is said."""
    about: dict[str, Any] = {
        "name": name, "started": BEGUN, "state": "running", "doing": "cell 3.png: 12 objects",
        "files": 10, "done": 4, "failed": 1, "accepted": 0, "seconds": 61.0, "eta_seconds": 52.0,
        "request": BatchRequest(
            inputs=("/data/cells",), words=("nucleus", "cell"), output="/data/labels"
        ),
    }  # fmt: skip
    return Batch(**{**about, **changes})


def write_pair(folder: Path, name: str, number: int) -> BatchFile:
    """An image on disk with its labels: a square of class 1, and one of class 2."""
    rng = np.random.default_rng(number)
    image, labels = folder / f"{name}.png", folder / "labels" / f"{name}.tif"
    labels.parent.mkdir(exist_ok=True)
    Image.fromarray(rng.integers(0, 255, SHAPE, dtype=np.uint8)).save(image)
    ids = np.zeros(SHAPE, np.uint16)
    ids[10 : 20 + number, 10:30], ids[30:50, 40:60] = 1, 2
    tifffile.imwrite(labels, ids, compression="zlib")
    return BatchFile(
        number=number, file=str(image), status="done", seconds=0.4 + number, labels=str(labels),
        score=round(0.9 - 0.1 * number, 2),
    )  # fmt: skip


class BatchStub(TrainingStub):
    """Keeps batches and their files, which a test may change.

    Attributes
    ----------
    batches, files
        Batches, the newest first; the files of each by its name.
    previewed, checked, resumed, reviews
        What was asked: requests for a preview and for a check, copies for a batch that goes on, and
        (batch, file, corrected labels or None).
    old
        Whether it is of before there were copies.
    asked_files
        Which parts of the files were asked for.
    kept, full
        What was offered to the annotation store, and whether it refuses.
    gate
        Reviews wait until it is set.
    """

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Batch] = []
        self.files: dict[str, list[BatchFile]] = {}
        self.previewed: list[BatchRequest] = []
        self.checked: list[BatchRequest] = []
        self.begun: list[BatchRequest] = []
        self.resumed: list[BatchCopies] = []
        self.old = False
        self.reviews: list[tuple[str, int, np.ndarray | None]] = []
        self.asked_files: list[dict[str, str]] = []
        self.full = False
        self.kept: list[Correction] = []
        self.gate = threading.Event()
        self.gate.set()

    def change(self, name: str, **changes: Any) -> Batch:
        """Let something happen to a batch."""
        new = self._batch(name).model_copy(update=changes)
        self.batches = [new if each.name == name else each for each in self.batches]
        return new

    def _answering(self, method: str) -> Any:
        other = super()._answering(method)

        def reply(path: str, body: bytes) -> Reply:
            parts = urlsplit(path.removeprefix("/v1"))
            route = parts.path.strip("/").split("/")
            if (method, route) == ("POST", ["annotations"]):
                return self._keep(body, parse_qs(parts.query))
            if route[0] != "batches":
                return other(path, body)
            try:
                if method != "GET" and self.refusal is not None:
                    raise self.refusal
                asked = {key: values[0] for key, values in parse_qs(parts.query).items()}
                answer = self._answer_batches(method, route[1:], asked, body)
            except ClsClipError as error:
                return error.http_status, JSON, error_json(error.code, error.message).encode()
            if isinstance(answer, bytes):
                return 200, "image/png", answer
            return 200, JSON, answer.model_dump_json().encode()

        return reply

    def _answer_batches(
        self, method: str, route: list[str], asked: dict[str, str], body: bytes
    ) -> BaseModel | bytes:
        match method, route:
            case "GET", []:
                return BatchList(batches=tuple(self.batches))
            case "POST", ["preview"]:
                self.previewed.append(BatchRequest(**json.loads(body)))
                if self.old and self.previewed[-1].copies:
                    raise InvalidRequestError(
                        "'copies': Extra inputs are not permitted (got '[...]')."
                    )
                return BatchPreview(
                    files=4000, accepted=12, bytes=312_000_000, pixels=1_870_000_000,
                    first=("/data/a.png", "/data/b.png", "/data/c.png", "/data/d.png"),
                    seconds=7300.0, notes=("3 files have more than one plane.",),
                )  # fmt: skip
            case "POST", ["check"] if not self.old:
                self.checked.append(BatchRequest(**json.loads(body)))
                return BatchCheck(files=4)
            case "POST", []:
                self.begun.append(BatchRequest(**json.loads(body)))
                new = batch(
                    f"nucleus-{len(self.batches) + 1}", request=self.begun[-1], files=0, done=0,
                    failed=0, seconds=0.0, eta_seconds=None, doing="Loading the model",
                )  # fmt: skip
                self.batches.insert(0, new)
                return new
            case "GET", [name]:
                return self._batch(name)
            case "POST", [name, "pause"]:
                return self._batch(name)  # it goes on until its present file is done
            case "POST", [name, "resume"]:
                if body:
                    self.resumed.append(BatchCopies(**json.loads(body)))
                return self.change(name, state="running", reason="")
            case "DELETE", [name]:
                return self.change(name, state="cancelled", reason="Cancelled by the user.")
            case "GET", [name, "files"]:
                return self._list_files(name, asked)
            case "GET", [name, "files", number, "thumbnail"]:
                return self._thumbnail(self._file(name, int(number)))
            case "PUT", [name, "files", number, "review"]:
                return self._accept(name, self._file(name, int(number)), body)
            case "DELETE", [name, "files", number, "review"]:
                withdrawn = {"accepted": False, "corrected": False}
                return self._replace_file(name, self._file(name, int(number)), withdrawn)
        raise NotFoundError(f"{method} {route}: Not Found.")

    def _keep(self, body: bytes, asked: dict[str, list[str]]) -> Reply:
        if self.full:
            error = StoreError("The store is full.")
            return error.http_status, JSON, error_json(error.code, error.message).encode()
        correction, _ = decode_correction(body, 2**26)
        self.kept.append(correction)
        kept = annotation(BEGUN, *correction.words)
        self.annotations.insert(0, kept)
        return 201, JSON, kept.model_dump_json().encode()

    def _list_files(self, name: str, asked: dict[str, str]) -> BatchFiles:
        self._batch(name)
        self.asked_files.append(asked)
        start, count = int(asked["start"]), int(asked["count"])
        assert 0 < count <= MOST_FILES
        status = asked.get("status", "")
        files = [each for each in self.files.get(name, []) if status in ("", each.status)]
        if asked["order"] == "score":
            files.sort(key=lambda each: 2.0 if each.score is None else each.score)
        return BatchFiles(total=len(files), files=tuple(files[start : start + count]))

    def _accept(self, name: str, file: BatchFile, body: bytes) -> BatchFile:
        assert self.gate.wait(30)
        if file.status != "done":
            raise ConflictError(f"'{file.file}' is not labelled yet.")
        labels = decode_review(body, 2**26) if body else None
        self.reviews.append((name, file.number, labels))
        if labels is not None:
            tifffile.imwrite(file.labels, labels.astype(np.uint16), photometric="minisblack")
        accepted = {"accepted": True, "corrected": labels is not None}
        return self._replace_file(name, file, accepted)

    def _thumbnail(self, file: BatchFile) -> bytes:
        if file.number % 3 == 2:
            raise NotFoundError("There is no thumbnail.")
        made = io.BytesIO()
        Image.new("RGB", (64, 48), (40 * file.number % 255, 90, 200)).save(made, "PNG")
        return made.getvalue()

    def _batch(self, name: str) -> Batch:
        for each in self.batches:
            if each.name == name:
                return each
        raise NotFoundError(f"There is no batch '{name}'.")

    def _file(self, name: str, number: int) -> BatchFile:
        for each in self.files.get(name, []):
            if each.number == number:
                return each
        raise NotFoundError(f"'{name}' has no file {number}.")

    def _replace_file(self, name: str, old: BatchFile, changes: dict[str, Any]) -> BatchFile:
        new = old.model_copy(update=changes)
        self.files[name] = [new if each.number == old.number else each for each in self.files[name]]
        self.change(name, accepted=sum(each.accepted for each in self.files[name]))
        return new
