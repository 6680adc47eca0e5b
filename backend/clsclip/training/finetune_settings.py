"""What a fine-tuning run is asked for, and how it is planned."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from pydantic import Field

from clsclip.config import DEFAULT_MODEL, StoreSettings
from clsclip.training.corrections import LabelledSettings
from clsclip.training.run import BudgetSettings

VIEWS_PER_EPOCH: Final = 16
"""Views of each image in one pass."""

FIRST_PART: Final = 0.75
"""Part of the run with smaller, cheaper views."""

FIRST_SIZE: Final = 0.64
"""Side of those views, as a part of the side of what the network reads at once."""

REMEMBERED: Final = 32
"""Drawn views of full size; more of the smaller ones."""


class FinetuneSettings(LabelledSettings, StoreSettings, BudgetSettings):
    """What a model is to learn from corrected images: of two folders, or of the store."""

    images: str = Field(
        "",
        title=LabelledSettings.model_fields["images"].title,
        description=f"{LabelledSettings.model_fields['images'].description} Without it and "
        "--labels, accepted annotations of the store are learnt from.",
    )
    labels: str = Field(
        "",
        title=LabelledSettings.model_fields["labels"].title,
        description=LabelledSettings.model_fields["labels"].description,
    )
    words: str = Field(
        "",
        title="Words",
        description="Words of accepted annotations in the store, with commas, each with all that "
        "was accepted for it.",
    )
    model: str = Field(
        DEFAULT_MODEL, title="Model", description="Name or path of the model to go on from."
    )
    minutes: float = Field(
        1.5, title="Minutes", description="Longest training time; it may end earlier.", gt=0
    )
    epochs: float = Field(
        0,
        title="Epochs",
        description=f"Passes over the images with {VIEWS_PER_EPOCH} views of each, instead of "
        "minutes; 0: by time.",
        ge=0,
    )
    holdout: float = Field(
        0.2,
        title="Hold out",
        description="Part of the images that is not learnt from, but shows whether the new version "
        "is better; at least one of three or more images. 0: none, and no promotion.",
        ge=0,
        lt=1,
    )
    most_lost: float = Field(
        0.05,
        title="Most lost",
        description="IoU that a learnt word may lose where it was known before (drawn scenes, "
        "images of earlier lessons) for the new version to be promoted.",
        ge=0,
        le=1,
    )
    batch_size: int = Field(
        4,
        title="Batch size",
        description="Views that go through the network together at its full input size; more of "
        "the smaller views in the first part of the run.",
        ge=2,
    )
    accumulate: int = Field(
        1,
        title="Accumulate",
        description="Batches whose gradients are averaged for one optimizer step.",
        ge=1,
    )
    replay: float = Field(
        0.25,
        title="Replay",
        description="Part of the views that are drawn scenes: most do not show the words, in the "
        "others the older model says where they are.",
        ge=0,
        lt=1,
    )
    learning_rate: float = Field(1e-3, title="Learning rate", description="Peak of AdamW's.", gt=0)
    description: str = Field("", title="Description", description="One line for lists of models.")

    @property
    def folders(self) -> bool:
        """Whether folders are learnt from, instead of the store."""
        return bool(self.images or self.labels or self.word)


@dataclass(frozen=True)
class Plan:
    """How many views of which size a step takes.

    Attributes
    ----------
    settings : FinetuneSettings
    size : int
        Side in pixels of what the network reads at once.
    patch : int
        p, which sides are multiples of.
    """

    settings: FinetuneSettings
    size: int
    patch: int

    @property
    def first_size(self) -> int:
        """Side of the smaller views."""
        return max(1, round(FIRST_SIZE * self.size / self.patch)) * self.patch

    def side(self, part: float) -> int:
        """Side of the views once ``part`` (0 to 1) of the run is over."""
        return self.first_size if part < FIRST_PART else self.size

    def views(self, side: int) -> tuple[int, int]:
        """Views of corrected images and drawn ones per batch."""
        count = round(self.settings.batch_size * (self.size / side) ** 2)
        remembered = min(round(count * self.settings.replay), count - 1)
        return count - remembered, remembered

    def remembered(self, side: int) -> int:
        """Drawn views, which are used again and again."""
        return round(REMEMBERED * (self.size / side) ** 2)

    def budget(self, images: int, processes: int = 1) -> FinetuneSettings:
        """The settings with steps, where epochs are asked for; processes share their views."""
        if not self.settings.epochs:
            return self.settings
        first, full = (self.views(side)[0] for side in (self.first_size, self.size))
        batches = self.settings.accumulate * processes
        views = batches * (FIRST_PART * first + (1 - FIRST_PART) * full)
        steps = math.ceil(self.settings.epochs * VIEWS_PER_EPOCH * images / views)
        return self.settings.model_copy(update={"steps": steps})
