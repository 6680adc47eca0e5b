"""What was asked of a batch, and how it stands: read from its folder and the output folder alone.

So a backend knows of every batch, whichever backend started it, and whether that one lives. Files
are read again only if they have changed: a batch of 10,000 files can be asked for every second.
Nothing here loads torch.
"""

from __future__ import annotations

import os
import time
from datetime import datetime
from pathlib import Path
from typing import Final

import platformdirs
from pydantic import Field

from clsclip.batch.job import PAUSE_FILE
from clsclip.config import Settings
from clsclip.errors import BusyError
from clsclip.model.run_state import CANCEL_FILE, RunState
from clsclip.service.batch_files import BatchContents, FileCounts
from clsclip.service.run_processes import log_lines, reason_of, state_of
from clsclip.wire_batch import Batch, BatchRequest, BatchState

BATCHES_VARIABLE: Final = "NAPARI_CLSCLIP_BATCHES"
"""Environment variable with the folder of the batches."""

RECORD_FILE: Final = "batch.json"
SESSION_FILE: Final = "session.json"
LOG_FILE: Final = "batch.log"


class BatchRecord(Settings):
    """Content of ``batch.json``: what was asked for, written once when it is started."""

    request: BatchRequest
    started: datetime
    device: str


class BatchSession(Settings):
    """Content of ``session.json``: the last time that a process was started for a batch."""

    begun: float = Field(description="When, in seconds since 1970.")
    before: int = Field(description="Files that were labelled before.")


def batches_folder() -> Path:
    """Folder of the batches: what ``BATCHES_VARIABLE`` says, else one of this user."""
    named = os.environ.get(BATCHES_VARIABLE, "").strip()
    if named:
        return Path(named).expanduser()
    return platformdirs.user_data_path("napari-clsclip") / "batches"


def batch_folders() -> list[Path]:
    """Folders of all batches, by name."""
    try:
        entries = sorted(batches_folder().iterdir())
    except OSError:  # there is none yet
        return []
    return [entry for entry in entries if entry.is_dir() and entry.name[0] != "."]


def batch_state(folder: Path) -> RunState:
    """How a batch stands but for pauses, with the reason that people are told."""
    state = state_of(folder)
    reason = reason_of(state, folder / LOG_FILE, "batch", "Resume goes on with what is left.")
    return state.model_copy(update={"reason": reason})


def refuse_second() -> None:
    """Refuse to start a batch while one runs.

    Raises
    ------
    BusyError
    """
    for folder in batch_folders():
        if batch_state(folder).state == "running":
            raise BusyError(
                f"The batch '{folder.name}' runs, and one runs at a time. Wait for its end, or "
                "cancel it: what is done stays, and it can be resumed."
            )


def command_arguments(folder: Path, record: BatchRecord) -> list[str]:
    """Arguments of ``napari-clsclip-label`` that do what was asked for."""
    asked = record.request
    arguments = [
        *asked.inputs, f"--words={','.join(asked.words)}", f"--output={asked.output}",
        f"--format={','.join(asked.formats)}", f"--device={record.device}",
        f"--job={folder.absolute()}",
    ]  # fmt: skip
    for name, value in asked.model_dump(
        exclude={"inputs", "words", "output", "formats", "copies"}
    ).items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            arguments.append(f"--{option}" if value else f"--no-{option}")
        elif value is not None:
            arguments.append(f"--{option}={value}")
    return arguments


def read_batch(
    folder: Path, record: BatchRecord, session: BatchSession | None, contents: BatchContents
) -> Batch:
    """How a batch stands.

    Parameters
    ----------
    folder : Path
    record : BatchRecord
    session : BatchSession or None
        None if it is not known.
    contents : BatchContents
        Of its files.
    """
    now, state, output = time.time(), batch_state(folder), Path(record.request.output)
    shown: BatchState = state.state
    seconds, eta = state.seconds, None
    counts, fault = contents.counts(folder, output)
    if state.state == "running":
        paused = _paused_at(folder)
        seconds += max(0.0, min(now, paused or now) - state.time)
        shown = "running" if paused is None else "paused"
        if session is not None and paused is None:
            finished = counts.done + counts.failed - session.before
            took = contents.read(folder, output).last_seconds(max(0, finished))
            eta = _eta(counts, took, now - session.begun)
    return Batch(
        name=folder.name, request=record.request, started=record.started, state=shown,
        reason=state.reason or fault, doing=_doing(folder, shown), files=counts.files,
        done=counts.done, failed=counts.failed, accepted=counts.accepted,
        seconds=round(seconds, 1), eta_seconds=eta,
    )  # fmt: skip


def _paused_at(folder: Path) -> float | None:
    """When a pause was asked for."""
    try:
        return (folder / PAUSE_FILE).stat().st_mtime
    except OSError:
        return None


def _doing(folder: Path, state: BatchState) -> str:
    if state not in ("running", "paused"):
        return ""
    if (folder / CANCEL_FILE).exists():
        return "It was told to end, and does so after the present file."
    lines = log_lines(folder / LOG_FILE)
    return lines[-1] if lines else "The process starts."


def _eta(counts: FileCounts, took: list[float], seconds: float) -> float | None:
    """Seconds until all files are done, as fast as those of this session were.

    The time since it began holds the loading of the model and pauses; the time that files took
    themselves does not, but counts double where they overlap. The shorter one is nearer.

    Parameters
    ----------
    counts : FileCounts
    took : list of float
        Seconds that each file of this session took.
    seconds : float
        Since it began.
    """
    if not took:
        return None
    left = counts.files - counts.done - counts.failed
    return max(0.0, round(left * min(seconds, sum(took)) / len(took), 1))
