"""What an evaluation is asked for, and what fits together."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from clsclip.config import (
    DetectorSettings,
    DeviceSettings,
    InstanceSettings,
    SegmentSettings,
    ThresholdSettings,
)
from clsclip.errors import InvalidConfigError
from clsclip.training.disturb import SCALES, Change
from clsclip.training.folds import FoldSettings
from clsclip.training.methods import NO_BOXES, Method
from clsclip.training.sources import SCENES

ANNOTATED: Final = ("boxes", "manual")
"""Regions that are the annotated boxes."""

CLIPSEG_MODEL: Final = "clipseg"
"""Name of the published CLIPSeg."""

MOST_IMAGES: Final = 300
"""Of a data folder, unless more are asked for."""


class EvaluateSettings(
    SegmentSettings, DetectorSettings, ThresholdSettings, InstanceSettings, FoldSettings,
    DeviceSettings,
):  # fmt: skip
    """What an evaluation is asked for."""

    images: str = Field(
        "", title="Images", description="Folder of images, with --labels and --word."
    )
    labels: str = Field(
        "", title="Labels", description="Folder of label images of the same names; nonzero = word."
    )
    word: str = Field(
        "",
        title="Word",
        description="The class word to ask for. With --data: ask this word of every image that "
        "does not show it, to see what it marks by mistake.",
    )
    data: str = Field(
        "",
        title="Data",
        description="Instead of --images: a data folder, whose validation part is measured, or "
        f"'{SCENES}' for drawn ones.",
    )
    limit: int | None = Field(
        None,
        title="Limit",
        description=f"Largest number of images, drawn at random, the same ones every time. Empty: "
        f"{MOST_IMAGES} of a data folder, all of a dataset or of --images.",
        ge=1,
    )
    pairs: int = Field(
        4, title="Pairs", description="Largest number of words asked of one scene.", ge=1
    )
    method: Method | None = Field(
        None,
        title="Method",
        description=f"What is measured. clsclip, clipseg: such a model; for clipseg, --model is "
        f"'{CLIPSEG_MODEL}' unless another one is named. boxes: region proposals, taken as masks "
        "(Table 6). Empty: what --model is.",
    )
    regions: Literal[
        "none", "auto", "detector", "yolo", "open-vocabulary", "tiles", "boxes", "manual"
    ] = Field(
        "none",
        title="Regions",
        description="boxes: the annotated boxes are the region proposals, and are measured as "
        "masks themselves too. manual: likewise, and as if a person vouched for their words, so "
        "that what the network does not see is outlined by its colours. "
        "The others are those of the label command, and yolo is another name of detector; boxes "
        "of a detector are measured as masks too.",
    )
    whole: bool = Field(
        False,
        title="Whole image",
        description="Look once at the whole image, as plain ClsCLIP does, instead of choosing a "
        "zoom.",
    )
    shuffled: bool = Field(
        False,
        title="Shuffled",
        description="Ask another word than the one whose mask is compared, to see whether the "
        "word decides.",
    )
    unseen: str = Field(
        "",
        title="Unseen words",
        description="Words whose masks training withheld, to be measured apart: with commas, or "
        "a .txt file.",
    )
    change: Change = Field(
        "none", title="Change", description="Change every image first, to see what it costs."
    )


def plain(settings: EvaluateSettings) -> EvaluateSettings:
    """The settings without other names and with the model that the method means."""
    changes: dict[str, str] = {}
    if settings.regions == "yolo":
        changes["regions"] = "detector"
    if settings.method == "clipseg" and "model" not in settings.model_fields_set:
        changes["model"] = CLIPSEG_MODEL
    return settings.model_copy(update=changes)


def require_consistent(settings: EvaluateSettings) -> None:
    """Refuse settings that do not fit together.

    Raises
    ------
    InvalidConfigError
    """
    labelled = (settings.images, settings.labels, settings.word)
    if settings.dataset and not settings.data:
        raise InvalidConfigError(
            f"--dataset {settings.dataset} needs the folder of its images: --data."
        )
    if settings.data and (settings.images or settings.labels):
        raise InvalidConfigError("Give either --data, or --images with --labels and --word.")
    if not settings.data and not all(labelled):
        raise InvalidConfigError(
            "Give --images, --labels and --word, or --data with a data folder (or 'scenes')."
        )
    if settings.whole and settings.zoom is not None:
        raise InvalidConfigError("--whole chooses the zoom: leave --zoom out.")
    if settings.regions in ANNOTATED and settings.change in SCALES:
        raise InvalidConfigError("Annotated regions cannot be joined with a change of size.")
    if settings.instances and settings.change in SCALES:
        raise InvalidConfigError("--instances cannot be joined with a change of size.")
    if settings.method == "boxes" and settings.regions in NO_BOXES:
        raise InvalidConfigError(
            f"--method boxes takes region proposals as masks, which --regions {settings.regions} "
            "does not name. Use detector (yolo), open-vocabulary, boxes or manual."
        )
    if settings.method == "boxes" and settings.instances:
        raise InvalidConfigError("--instances cannot be joined with --method boxes.")
