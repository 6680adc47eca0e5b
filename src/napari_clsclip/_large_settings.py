"""From which size on planes are segmented block by block, and where their labels lie."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import platformdirs
from pydantic import ValidationError

from clsclip.config import LargePlaneSettings
from clsclip.errors import InvalidConfigError
from clsclip.wire import describe_validation

LARGE_VARIABLE: Final = "NAPARI_CLSCLIP_LARGE_FROM"
"""Environment variable with the pixels from which on a plane counts as large."""

RESULTS_VARIABLE: Final = "NAPARI_CLSCLIP_RESULTS"
"""Environment variable with the folder for the labels of large planes."""


def large_settings() -> LargePlaneSettings:
    """What the environment says about large planes.

    Raises
    ------
    InvalidConfigError
        If a variable has a value that it cannot have.
    """
    named = {"large_from": LARGE_VARIABLE, "folder": RESULTS_VARIABLE}
    values = {field: os.environ.get(variable, "").strip() for field, variable in named.items()}
    try:
        return LargePlaneSettings.model_validate({k: v for k, v in values.items() if v})
    except ValidationError as error:
        raise InvalidConfigError(
            f"The environment variable {LARGE_VARIABLE} cannot be used. "
            f"{describe_validation(error)} Correct or unset it, and start napari again."
        ) from error


def results_folder(settings: LargePlaneSettings) -> Path:
    """Where the labels of large planes lie."""
    if settings.folder:
        return Path(settings.folder).expanduser()
    return platformdirs.user_data_path("napari-clsclip") / "large-results"
