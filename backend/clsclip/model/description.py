"""What lists of models say of a model directory of either kind. Nothing here loads torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clsclip.errors import CheckpointError
from clsclip.model.clipseg_config import (
    CLIPSEG_DESCRIPTION,
    clipseg_fault,
    read_clipseg_config,
)
from clsclip.model.config import WEIGHTS_FILE, is_clipseg, read_config


@dataclass(frozen=True)
class ModelDescription:
    """A model directory in short.

    Attributes
    ----------
    text : str
        One line for lists of models; may be empty.
    image_size : int
        Side in pixels of the square that the network reads at once.
    """

    text: str
    image_size: int


def describe_model(folder: Path) -> ModelDescription:
    """Read what a model directory says of itself.

    Raises
    ------
    CheckpointError
        If it is not one.
    """
    if is_clipseg(folder):
        return ModelDescription(CLIPSEG_DESCRIPTION, read_clipseg_config(folder).image_size)
    config = read_config(folder)
    return ModelDescription(config.description, config.head.image_size)


def model_fault(folder: Path) -> str | None:
    """Why a model directory cannot be used, as far as that shows without reading its weights."""
    if is_clipseg(folder):
        return clipseg_fault(folder)
    try:
        read_config(folder)
    except CheckpointError as error:
        return error.message
    if not (folder / WEIGHTS_FILE).is_file():
        return f"'{folder / WEIGHTS_FILE}' is missing. Copy the model directory again."
    return None
