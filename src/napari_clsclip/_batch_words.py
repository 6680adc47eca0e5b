"""What there is to say about batches and their files, in words for the user."""

from __future__ import annotations

import math
from pathlib import PurePath
from typing import Final

from clsclip.wire_batch import Batch, BatchFile, BatchPreview
from napari_clsclip._training_words import eta_words

_FIRST_SHOWN: Final = 3
_UNITS: Final = ("bytes", "kB", "MB", "GB", "TB")
_MEGA: Final = 1e6
_MINUTE: Final = 60.0
_HOUR: Final = 3600.0


def preview_words(preview: BatchPreview) -> str:
    """What a batch would do, a fact per line."""
    files = _count(preview.files, "file")
    took = duration_words(preview.seconds)
    time = f"about {took}" if took else "time unknown"  # a note says why
    lines = [f"{files}, {bytes_words(preview.bytes)}, {pixels_words(preview.pixels)}, {time}."]
    if preview.accepted:
        lines.append(f"{preview.accepted:,} of them are accepted and stay as they are.")
    names = [PurePath(path).name for path in preview.first[:_FIRST_SHOWN]]
    if names:
        more = ", …" if preview.files > len(names) else ""
        lines.append(f"{', '.join(names)}{more}")
    return "\n".join((*lines, *preview.notes))


def batch_title(batch: Batch) -> str:
    """Say in a few words which batch it is, and how it stands."""
    words = ", ".join(batch.request.words)
    return {
        "running": f"Labelling {words}",
        "paused": f"Labelling {words} is paused",
        "done": f"Labelled {words}",
        "failed": f"Labelling {words} failed",
        "cancelled": f"Labelling {words} was cancelled",
        "interrupted": f"Labelling {words} was interrupted",
    }[batch.state]


def batch_choice(batch: Batch) -> str:
    """One line for a list of batches: ``nuclei-2 · nucleus · done``."""
    return f"{batch.name} · {', '.join(batch.request.words)} · {batch.state}"


def batch_details(batch: Batch) -> str:
    """What is known of a batch, a fact per line."""
    request = batch.request
    return "\n".join(
        (
            f"From {', '.join(request.inputs)} ({request.pattern})",
            f"to {request.output} as {', '.join(request.formats)}",
            f"with {request.model}, begun {batch.started.astimezone():%Y-%m-%d %H:%M}",
        )
    )


def counts_words(batch: Batch) -> str:
    """How many files are done, failed and accepted."""
    if not batch.files:
        return "The files are being listed." if batch.state == "running" else ""
    parts = [f"{batch.done:,} of {batch.files:,} done"]
    if batch.failed:
        parts.append(f"{batch.failed:,} failed")
    if batch.accepted:
        parts.append(f"{batch.accepted:,} accepted")
    took = duration_words(batch.seconds)
    if batch.state != "running" and took:
        parts.append(f"in {took}")
    return f"{', '.join(parts)}."


def progress_words(batch: Batch) -> str:
    """What stands on the bar: ``42%, about 55 s left``."""
    left = eta_words(batch.eta_seconds) if batch.state == "running" else ""
    return f"{finished_part(batch):.0%}{', ' if left else ''}{left}"


def finished_part(batch: Batch) -> float:
    """Which part of the files is done or has failed, 0 to 1."""
    return (batch.done + batch.failed) / batch.files if batch.files else 0.0


def state_words(file: BatchFile) -> str:
    """How one file stands, in a word or two."""
    if file.accepted:
        return "corrected" if file.corrected else "accepted"
    return file.status


def file_details(file: BatchFile) -> str:
    """What is known of one file, a fact per line."""
    took = duration_words(file.seconds)
    facts = (
        file.file,
        "accepted after correction" if file.corrected else state_words(file),
        "" if file.score is None else f"Expected IoU, least certain word: {file.score:.2f}",
        "" if file.objects is None else _count(file.objects, "object"),
        f"in {took}" if took else "",
        file.error,
    )
    return "\n".join(fact for fact in facts if fact)


def duration_words(seconds: float | None) -> str:
    """``40 s``, ``12 min`` or ``3.5 h``; empty if it is not known."""
    if seconds is None or not math.isfinite(seconds):
        return ""
    if seconds < 2 * _MINUTE:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 2 * _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    return f"{seconds / _HOUR:.1f} h"


def bytes_words(count: float) -> str:
    """``312 MB``."""
    size = float(count)
    for unit in _UNITS[:-1]:
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} {_UNITS[-1]}"


def pixels_words(pixels: float) -> str:
    """``18.7 megapixels``."""
    if pixels < _MEGA:
        return f"{pixels:,.0f} pixels"
    return f"{pixels / _MEGA:,.1f} megapixels"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun if number == 1 else noun + 's'}"
