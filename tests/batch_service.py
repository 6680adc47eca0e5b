"""Batches that are asked of a service, and folders of batches as their processes leave them."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from clsclip.batch.job import FILES_FILE
from clsclip.batch.manifest import Manifest, ManifestRow
from clsclip.model.run_state import write_state
from clsclip.service.batch_record import RECORD_FILE, BatchRecord
from clsclip.service.run_processes import write_record
from clsclip.wire import ErrorAnswer
from clsclip.wire_batch import Batch, BatchFiles, BatchRequest, encode_review

STUB = [sys.executable, str(Path(__file__).with_name("stub_label.py"))]
"""Command that labels without a model."""


def asked(images: Path, **changes: Any) -> dict[str, Any]:
    """A batch of a folder of images."""
    output = str(images.parent / "cell labels")
    return {"inputs": [str(images)], "words": ["cell", "rim"], "output": output, **changes}


def post(http: httpx.Client, images: Path, **changes: Any) -> httpx.Response:
    """Ask for such a batch."""
    return http.post("/v1/batches", json=asked(images, **changes))


def preview(http: httpx.Client, images: Path, **changes: Any) -> httpx.Response:
    """Ask what such a batch would do."""
    output = str(images.parent / "labels")
    return http.post("/v1/batches/preview", json=asked(images, output=output, **changes))


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
    """Files; of them done, failed, accepted."""
    return batch.files, batch.done, batch.failed, batch.accepted


def review(http: httpx.Client, name: str, number: int, labels: Any = None) -> httpx.Response:
    """Accept labels as they are on disk, or others."""
    body = b"" if labels is None else encode_review(labels)
    return http.put(f"/v1/batches/{name}/files/{number}/review", content=body)


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
