"""What fine-tuning says of the new version of a model: ``report.json`` of its run directory.

Nothing here loads torch, so that others can ask about a version at no cost.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import Field

from clsclip.config import Settings
from clsclip.model.files import read_json

REPORT_FILE: Final = "report.json"


class WordFigures(Settings):
    """Figures of one word, in [0, 1]; null where nothing of it was there to be measured."""

    miou: float | None
    fb_iou: float | None


class Figures(Settings):
    """Figures of one version of a model, in [0, 1].

    ``miou``, ``fb_iou`` and ``per_word`` are of the held-out images, as the predictor with its
    automatic zoom segments them; ``old_words`` of words that the older model knows, on drawn
    scenes that no training draws, and of those it was taught, on the images of that lesson.
    """

    miou: float | None = Field(description="Mean over the learnt words; null: nothing held out.")
    fb_iou: float | None
    per_word: dict[str, WordFigures]
    old_words: dict[str, WordFigures]

    @property
    def old(self) -> float | None:
        """Mean IoU of the old words; None where none was measured."""
        found = [each.miou for each in self.old_words.values() if each.miou is not None]
        return sum(found) / len(found) if found else None

    def describe(self) -> str:
        """One line for people."""
        figures = {word: each.miou for word, each in {**self.per_word, **self.old_words}.items()}
        shown = (f"{word} {miou:.3f}" for word, miou in figures.items() if miou is not None)
        return f"IoU {', '.join(shown) or 'of nothing'}"


class Report(Settings):
    """Content of ``report.json``."""

    model: str = Field(description="The model that was gone on from.")
    model_version: str
    words: tuple[str, ...]
    before: Figures
    after: Figures
    promoted: bool
    reason: str
    held_out: tuple[str, ...] = Field(
        description="Names of the images that were held out; SHA-256 of those of the store."
    )
    learnt_from: int = Field(description="Number of images that were learnt from.")
    steps: int
    best_step: int = Field(description="Step whose weights were kept.")
    part: float = Field(
        description="How far the weights went from the older ones to those of that step; see "
        "clsclip.training.checks.mildest."
    )
    seconds: float = Field(description="All in all, over all sessions of the run.")


def read_report(run: Path) -> Report | None:
    """The report of a run that has ended with a model; None where there is none.

    Raises
    ------
    CheckpointError
        If it is there but cannot be read.
    """
    return read_json(run / REPORT_FILE, Report)
