"""How long the backend takes to say how a large batch stands, asked as often as a window asks.

    python benchmarks/batch_polls.py --files 10000

A batch whose manifest grows by a row between two questions, and one that stands still.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from clsclip.batch.job import FILES_FILE
from clsclip.batch.manifest import Manifest, ManifestRow
from clsclip.config import BackendSettings
from clsclip.model.run_state import write_process, write_state
from clsclip.service.batch_processes import BatchProcesses
from clsclip.service.batch_record import (
    BATCHES_VARIABLE,
    RECORD_FILE,
    SESSION_FILE,
    BatchRecord,
    BatchSession,
)
from clsclip.service.run_processes import write_record
from clsclip.wire_batch import BatchRequest


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--polls", type=int, default=30)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        os.environ[BATCHES_VARIABLE] = f"{root}/batches"
        measure(Path(root), args.files, args.polls)


def measure(root: Path, files: int, polls: int) -> None:
    """Print the median time of each question; of the processor, for the machine may be busy."""
    output, folder = root / "labels", root / "batches" / "large"
    for each in (output, folder):
        each.mkdir(parents=True)
    request = BatchRequest(inputs=(str(root),), words=("cell",), output=str(output))
    now = datetime.now(UTC)
    write_record(folder / RECORD_FILE, BatchRecord(request=request, started=now, device="cpu"))
    write_record(folder / SESSION_FILE, BatchSession(begun=time.time(), before=0))
    paths = [root / "images" / f"plate{k % 96:02}" / f"image{k:05}.tif" for k in range(files)]
    listed = [{"file": str(path), "key": path.stem} for path in paths]
    (folder / FILES_FILE).write_text(json.dumps(listed))
    manifest = Manifest(output)
    rows = [ManifestRow(path, "done", 1.5, score=0.5 + 0.4 * (k % 7) / 7)
            for k, path in enumerate(paths)]  # fmt: skip
    manifest.write(rows[: files - polls])
    write_state(folder, "running")
    write_process(folder, os.getpid())  # stands for the process that labels
    batches = BatchProcesses(BackendSettings(device="cpu"))

    def page() -> object:
        return batches.files("large", start=0, count=100, status=None, order="score")

    for what, ask in (("batch", lambda: batches.get("large")), ("list", batches.list),
                      ("page by score", page)):  # fmt: skip
        ask()
        print(f"{what}, unchanged: {1000 * statistics.median(timed(ask, polls)):.1f} ms")
    grown = []
    for row in rows[files - polls :]:
        manifest.append(row)
        grown += timed(lambda: (batches.get("large"), page()), 1)
    print(f"batch and page by score, a row more: {1000 * statistics.median(grown):.1f} ms")


def timed(ask: Callable[[], object], times: int) -> list[float]:
    """Seconds that each of some calls takes."""
    taken = []
    for _ in range(times):
        started = time.process_time()
        ask()
        taken.append(time.process_time() - started)
    return taken


if __name__ == "__main__":
    main()
