"""What was asked of a training, and how it stands: read from its run directory alone.

So a backend knows of every training, whichever backend started it, and whether that one lives.
Nothing here loads torch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from pydantic import Field

from clsclip.config import Settings
from clsclip.errors import ClsClipError
from clsclip.model.files import read_json
from clsclip.model.report import Report, read_report
from clsclip.model.run_state import CANCEL_FILE, METRICS_FILE, RunState
from clsclip.service.run_processes import log_lines, reason_of, state_of
from clsclip.wire_training import CURVE_POINTS, Change, CurvePoint, Training

RECORD_FILE: Final = "training.json"
LOG_FILE: Final = "training.log"

LOSSES: Final = ("mask", "presence", "recall")
"""What adds up to the loss of a step; see :class:`clsclip.training.lesson_loss.LessonLoss`."""

CLOSING: Final = 2.0
"""How often the older model's measuring time the end of a training takes: mixtures, the report."""


class TrainingRecord(Settings):
    """Content of ``training.json``: what was asked for, written once when it is started."""

    words: tuple[str, ...]
    model: str = Field(description="Name or path.")
    minutes: float
    note: str
    started: datetime
    store: str = Field(description="Folder of the annotation store.")
    device: str
    images: int = Field(description="Annotations with these words when it was started.")


def read_record(run: Path) -> TrainingRecord | None:
    """What was asked of a training; None for a folder that no backend has made.

    Raises
    ------
    CheckpointError
        If it cannot be read.
    """
    return read_json(run / RECORD_FILE, TrainingRecord)


def read_training(run: Path, record: TrainingRecord, *, curve: bool = True) -> Training:
    """How a training stands.

    Parameters
    ----------
    run : Path
        Its run directory.
    record : TrainingRecord
    curve : bool
        Whether to tell the curve, too.
    """
    state, report = training_state(run), _report(run)
    lines = _since_checkpoint(_metrics(run))
    finished = report is not None and state.state in ("done", "cancelled")
    seconds = state.seconds
    if state.state == "running":
        seconds += max(0.0, time.time() - state.time)
    part = 1.0 if finished else _part(lines, record)
    running = state.state == "running"
    images = next((line["images"] for line in reversed(lines) if "images" in line), record.images)
    return Training(
        name=run.name, words=record.words, model=record.model, started=record.started,
        state=state.state, reason=state.reason, doing=_last_line(run) if running else "",
        minutes=record.minutes, seconds=round(seconds, 1), part=part,
        eta_seconds=_eta(lines, record) if running else None,
        images=int(images), curve=_thinned(_curve(lines)) if curve else (),
        changes=changes(report) if report is not None and finished else (),
        promoted=report.promoted if report is not None and finished else None, note=record.note,
    )  # fmt: skip


def changes(report: Report) -> tuple[Change, ...]:
    """IoU of every word before and after, the learnt ones first."""
    return tuple(
        Change(
            word=word, before=figures.miou, learnt=learnt,
            after=after[word].miou if word in after else None,
        )
        for learnt, before, after in (
            (True, report.before.per_word, report.after.per_word),
            (False, report.before.old_words, report.after.old_words),
        )
        for word, figures in before.items()
    )  # fmt: skip


def training_state(run: Path) -> RunState:
    """How a run stands, with the reason that people are told."""
    state = state_of(run)
    way_out = "Resume goes on from its last checkpoint."
    return state.model_copy(
        update={"reason": reason_of(state, run / LOG_FILE, "training", way_out)}
    )


def _report(run: Path) -> Report | None:
    try:
        return read_report(run)
    except ClsClipError:
        return None


def _last_line(run: Path) -> str:
    if (run / CANCEL_FILE).exists():
        return "It was told to end, and keeps what is best so far."
    lines = log_lines(run / LOG_FILE)
    return lines[-1] if lines else "The process starts."


def _metrics(run: Path) -> Iterator[dict[str, Any]]:
    """Lines of ``metrics.jsonl``; the last one may be cut off, if its writer was killed."""
    try:
        text = (run / METRICS_FILE).read_text()
    except (OSError, UnicodeDecodeError):
        return
    for line in text.splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict) and {"step", "seconds", "time"} <= found.keys():
            yield found


def _since_checkpoint(lines: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines without those of steps that were lost and taken again, after a crash."""
    kept: list[dict[str, Any]] = []
    for line in lines:
        if "images" in line:  # a process that begins, from a checkpoint or anew
            kept = [each for each in kept if each["step"] <= line["step"]]
            if not line["step"]:
                kept.clear()
        kept.append(line)
    return kept


def _curve(lines: list[dict[str, Any]]) -> list[CurvePoint]:
    """One point per step and process: what was reported of one step belongs together."""
    points: dict[int, CurvePoint] = {}
    for line in lines:
        step = line["step"]
        losses = [line[name] for name in LOSSES if name in line]
        loss = sum(losses) if losses else None
        found = {"loss": loss, "iou": line.get("miou"), "old_iou": line.get("old")}
        known = points.get(step) or CurvePoint(step=step, seconds=line["seconds"])
        update = {name: value for name, value in found.items() if value is not None}
        points[step] = known.model_copy(update=update)
    return [points[step] for step in sorted(points)]


def _thinned(points: list[CurvePoint]) -> tuple[CurvePoint, ...]:
    """At most ``CURVE_POINTS``: points with an IoU, and of the others every n-th."""
    if len(points) <= CURVE_POINTS:
        return tuple(points)
    looks = [k for k, point in enumerate(points) if point.iou is not None]
    looks = looks[-CURVE_POINTS // 2 :]
    others = sorted(set(range(len(points))) - set(looks))
    room = CURVE_POINTS - len(looks)
    chosen = {others[round(k * (len(others) - 1) / (room - 1))] for k in range(room)}
    return tuple(points[k] for k in sorted(chosen | set(looks)))


def _part(lines: list[dict[str, Any]], record: TrainingRecord) -> float:
    """How much of the training time is over; it counts from the first step to the last."""
    return min(1.0, lines[-1]["seconds"] / (60 * record.minutes)) if lines else 0.0


def _eta(lines: list[dict[str, Any]], record: TrainingRecord) -> float | None:
    """Seconds to the end at most; None until it has measured the older model."""
    if not lines:
        return None
    measuring = next((line["measuring"] for line in reversed(lines) if "measuring" in line), 0.0)
    rest = max(0.0, 60 * record.minutes - lines[-1]["seconds"])
    left = float(lines[-1]["time"]) + rest + CLOSING * measuring - time.time()
    return max(0.0, round(float(left), 1))
