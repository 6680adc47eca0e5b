"""The paper's training recipe as settings, and what they come to on some data.

AdamW from 1e-3, cosine annealing with warm restarts, 200 epochs, batches of 64 (PASCAL-5^i) or 512
(COCO-20^i) images (section 5 of the paper). Ours, for the paper does not say: how often the rate
restarts, the short rise before its first fall, that images are drawn at random instead of each
once per epoch, and that a batch goes through the network in parts, whose gradients are averaged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Final

from pydantic import Field

from clsclip.errors import InvalidConfigError
from clsclip.training.batches import ViewSettings
from clsclip.training.folds import FoldSettings
from clsclip.training.run import BudgetSettings, Clock

PAPER_BATCH: Final = 64
"""Images per optimizer step, for PASCAL-5^i and whatever the paper does not speak of."""

PAPER_BATCH_COCO: Final = 512
"""The same for COCO-20^i."""


class RecipeSettings(ViewSettings, FoldSettings):
    """How the head is trained."""

    alternatives: ClassVar[tuple[tuple[str, ...], ...]] = (
        *BudgetSettings.alternatives, ("accumulate", "effective_batch"),
    )  # fmt: skip

    epochs: float = Field(
        200.0,
        title="Epochs",
        description="As many views as there are images in the data folders, so many times; drawn "
        "scenes are not counted.",
        gt=0,
    )
    minutes: float = Field(
        0.0, title="Minutes", description="Training time, instead of epochs; 0: by epochs.", ge=0
    )
    steps: int = Field(
        0,
        title="Steps",
        description="Optimizer steps, instead of epochs or minutes; 0: by these.",
        ge=0,
    )
    batch_size: int = Field(
        4,
        title="Batch size",
        description="Images that go through the network together in one process, at the image "
        "size; more at the first size, for as many pixels. As many as fit into memory are fastest.",
        ge=1,
    )
    accumulate: int = Field(
        0,
        title="Accumulate",
        description="Batches of each process whose gradients are averaged for one optimizer step; "
        "0: as many as the effective batch takes.",
        ge=0,
    )
    effective_batch: int = Field(
        0,
        title="Effective batch",
        description="Images per optimizer step, of all processes together; rounded up to whole "
        f"batches. 0: as in the paper, {PAPER_BATCH}, or {PAPER_BATCH_COCO} for coco-20i.",
        ge=0,
    )
    cycles: int = Field(
        4, title="Cycles", description="Cosine falls of the learning rate (warm restarts).", ge=1
    )
    warm_up: float = Field(
        0.02,
        title="Warm up",
        description="Part of the run in which the learning rate rises, before its first fall.",
        ge=0,
        lt=1,
    )


@dataclass(frozen=True)
class Schedule:
    """What a recipe comes to.

    Attributes
    ----------
    settings : RecipeSettings
    images : int
        Of the data folders.
    processes : int
        How many train together.
    """

    settings: RecipeSettings
    images: int
    processes: int = 1

    @property
    def accumulate(self) -> int:
        """Batches of each process per optimizer step."""
        settings = self.settings
        if settings.accumulate:
            return settings.accumulate
        paper = PAPER_BATCH_COCO if settings.dataset == "coco-20i" else PAPER_BATCH
        wanted = settings.effective_batch or paper
        return max(1, math.ceil(wanted / (settings.batch_size * self.processes)))

    @property
    def effective_batch(self) -> int:
        """Images per optimizer step at the image size, of all processes together."""
        return self.settings.batch_size * self.accumulate * self.processes

    @property
    def budget(self) -> BudgetSettings:
        """The settings with optimizer steps, where epochs are asked for.

        Raises
        ------
        InvalidConfigError
            If there are no images of which an epoch could consist.
        """
        settings = self.settings
        if settings.steps or settings.minutes:
            return settings
        if not self.images:
            raise InvalidConfigError(
                "There are only drawn scenes to train on, which epochs do not count. Give --steps "
                "or --minutes."
            )
        first, full = settings.plan(0.0)[0], settings.plan(1.0)[0]
        share = settings.first_part if first != full else 0.0
        views = self.accumulate * self.processes * (share * first + (1 - share) * full)
        steps = math.ceil(settings.epochs * self.images / views)
        return settings.model_copy(update={"steps": steps})

    def require_same(self, effective_batch: int) -> None:
        """Refuse to go on with a run by epochs whose steps were of another size.

        Raises
        ------
        InvalidConfigError
            Its steps so far would count as more, or fewer, epochs than they were.
        """
        settings = self.settings
        if settings.steps or settings.minutes or effective_batch == self.effective_batch:
            return
        raise InvalidConfigError(
            f"The run takes {effective_batch} images per step, and would take "
            f"{self.effective_batch} with {self.processes} processes, --batch-size "
            f"{settings.batch_size} and --accumulate {self.accumulate}. Go on with as many "
            "processes as before, or train by --steps."
        )

    def plan(self, number: int, clock: Clock) -> tuple[int, int]:
        """Images of a batch and their side.

        Parameters
        ----------
        number : int
            Of the batch, among those of all processes.
        clock : Clock
            Where the run stands, which decides only if it trains by time.
        """
        budget = self.budget
        step = number // (self.accumulate * self.processes) if budget.steps else clock.step
        return self.settings.plan(Clock(step, clock.seconds).part(budget))

    def describe(self) -> str:
        """One line for people."""
        budget, shared = self.budget, ""
        if self.processes > 1:
            shared = f" in each of {self.processes} processes"
        length = f"{budget.steps} steps" if budget.steps else f"{budget.minutes:g} minutes"
        return (
            f"{length} of {self.effective_batch} images, {self.settings.batch_size} at a time"
            f"{shared}; {self.images} images in all"
        )
