"""What there is to say about trainings and versions, in words for the user."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from clsclip.wire_training import Change, Training, Version, VersionList

_OLD_WORDS_SHOWN: Final = 3
_ON_THE_BAR: Final = re.compile(r"[\d.]+(%| min)")
_MINUTE: Final = 60.0
_HOUR: Final = 3600.0


def headline(training: Training) -> str:
    """Say in a few words which training it is, and how it stands."""
    words = ", ".join(training.words)
    if training.state == "cancelled" and training.promoted is not None:
        return f"Learnt {words}, ended early"
    return {
        "running": f"Learning {words}",
        "done": f"Learnt {words}",
        "failed": f"Learning {words} failed",
        "cancelled": f"Learning {words} was cancelled",
        "interrupted": f"Learning {words} was interrupted",
    }[training.state]


def doing(training: Training) -> str:
    """What it told last, without what the progress bar tells; its columns become one line."""
    columns = re.split(r"\s{2,}", training.doing.strip())
    return ", ".join(each for each in columns if not _ON_THE_BAR.fullmatch(each))


def can_go_on(training: Training) -> bool:
    """Whether a training has ended before its time, and has made no version."""
    return training.state not in ("running", "done") and training.promoted is None


def outcome(training: Training, versions: VersionList) -> str:
    """Say what came of a training that does not run any more.

    Parameters
    ----------
    training : Training
    versions : VersionList
        Say whether the version that it made exists, and whether it is the active one.

    Returns
    -------
    str
        Empty while it runs.
    """
    if training.state == "running":
        return ""
    if training.state == "interrupted":
        done = f"{training.part:.0%} of its time was over. " if training.part else ""
        return f"{done}Continue goes on from its last checkpoint."
    reason = _sentence(training.reason.partition("\n")[0])
    figures = changes_line(training.changes)
    parts = [f"{figures}."] if figures else []
    if training.name == versions.active:
        how = "now" if training.promoted else "because you have chosen it"
        parts += [f"{training.name} is the active version {how}.", reason]
    elif training.name in (version.name for version in versions.versions):
        parts += [f"{training.name} is kept, but not active.", reason]
    else:
        parts.append(reason or "No new version was made.")
    return " ".join(part for part in parts if part)


def changes_line(changes: Sequence[Change], old_words: int = _OLD_WORDS_SHOWN) -> str:
    """IoU of each word before and after, on held-out images and where it was known before.

    Parameters
    ----------
    changes : sequence of Change
    old_words : int
        Most words to name of those that were known before, the worst first.

    Returns
    -------
    str
        One line without a full stop; empty without changes.
    """
    learnt = [change for change in changes if change.learnt]
    measured = [change_words(change) for change in learnt if not _unmeasured(change)]
    old = sorted((change for change in changes if not change.learnt), key=_gain)
    parts = []
    if measured:
        parts.append(f"{', '.join(measured)} on held-out images")
    parts += [change_words(change) for change in learnt if _unmeasured(change)]
    if old:
        more = len(old) - old_words
        shown = [change_words(change) for change in old[:old_words]]
        named = ", ".join(shown) + (f" and {more} more" if more > 0 else "")
        parts.append(f"{named} where known before")
    return "; ".join(parts)


def change_words(change: Change) -> str:
    """One word's IoU: ``rosette 0.02 → 0.51``."""
    if _unmeasured(change):
        return f"{change.word} not measured"
    return f"{change.word} {_figure(change.before)} → {_figure(change.after)}"


def scores_after(version: Version) -> str:
    """Words that a version learnt, with their IoU since: ``rosette 0.51``."""
    known = {change.word: change.after for change in version.changes if change.learnt}
    figures = ((word, known.get(word)) for word in version.words or tuple(known))
    return ", ".join(word if iou is None else f"{word} {iou:.2f}" for word, iou in figures)


def version_details(
    version: Version, trainings: Sequence[Training] = (), old_words: int = _OLD_WORDS_SHOWN
) -> str:
    """What is known of a version, a fact per line.

    Parameters
    ----------
    version : Version
    trainings : sequence of Training
        The one that made the version knows why it was promoted or not.
    old_words : int
        See :func:`changes_line`.
    """
    reason = next((_sentence(each.reason) for each in trainings if each.name == version.name), "")
    judged = {True: "Promoted.", False: "Not promoted.", None: ""}[version.promoted]
    figures = changes_line(version.changes, old_words)
    lines = [
        version.description,
        _origin(version),
        f"IoU before → after: {figures}." if figures else "",
        f"{judged} {reason}" if judged else "",
        f"Note: {version.note}" if version.note else "",
        "" if version.available else f"It cannot be used now. {_sentence(version.reason)}",
    ]
    return "\n".join(line.strip() for line in lines if line)


def day(moment: datetime | None) -> str:
    """Day on which something was, on this machine: ``24 Nov``; empty if it is not known."""
    return "" if moment is None else f"{moment.astimezone().day} {moment.astimezone():%b}"


def eta_words(seconds: float | None) -> str:
    """How long it will take: ``about 40 s left``; empty if it is not known."""
    if seconds is None or not math.isfinite(seconds):
        return ""
    seconds = max(0.0, seconds)
    if seconds < 2 * _MINUTE:
        return f"about {5 * math.ceil(seconds / 5)} s left"
    if seconds < 2 * _HOUR:
        return f"about {round(seconds / _MINUTE)} min left"
    return f"about {seconds / _HOUR:.1f} h left"


def _origin(version: Version) -> str:
    made = "" if version.created is None else f"Made {version.created.astimezone():%Y-%m-%d %H:%M}"
    if not version.parent:
        return f"{made}." if made else ""
    return f"{made or 'Made'} from {version.parent}."


def _unmeasured(change: Change) -> bool:
    return change.before is None and change.after is None


def _gain(change: Change) -> float:
    if change.before is None or change.after is None:
        return math.inf
    return change.after - change.before


def _figure(iou: float | None) -> str:
    return "?" if iou is None else f"{iou:.2f}"


def _sentence(text: str) -> str:
    text = text.strip()
    return text if not text or text.endswith((".", "!", "?")) else f"{text}."
