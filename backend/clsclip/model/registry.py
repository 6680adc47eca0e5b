"""Names of models and the model directories behind them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import platformdirs

from clsclip.config import DEFAULT_MODEL
from clsclip.errors import CheckpointError, UnknownModelError
from clsclip.model.config import CONFIG_FILE, read_config
from clsclip.wire import ModelInfo

BUNDLED: Final = Path(__file__).parent.parent / "weights"


def user_models() -> Path:
    """Folder whose subfolders are models of this user, named by the subfolder."""
    return platformdirs.user_data_path("napari-clsclip") / "models"


def _named() -> dict[str, Path]:
    """Model directories by name; a bundled name cannot be taken by a user's model."""
    found: dict[str, Path] = {}
    for root in (BUNDLED, user_models()):
        if root.is_dir():
            for folder in sorted(root.iterdir()):
                if (folder / CONFIG_FILE).is_file():
                    found.setdefault(folder.name, folder)
    return dict(sorted(found.items(), key=lambda item: item[0] != DEFAULT_MODEL))


def list_models() -> tuple[ModelInfo, ...]:
    """Models that have a name, the default one first."""
    models = []
    for name, folder in _named().items():
        try:
            description, reason = read_config(folder).description, None
        except CheckpointError as error:
            description, reason = "", error.message
        models.append(
            ModelInfo(name=name, description=description, available=reason is None, reason=reason)
        )
    return tuple(models)


def find_model(name: str) -> Path:
    """The model directory of a name or a path; the directory of an ended run is one.

    Raises
    ------
    UnknownModelError
        If there is neither a model of this name nor a folder at this path.
    """
    named = _named()
    if name in named:
        return named[name]
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    known = ", ".join(named) or "none is installed"
    raise UnknownModelError(
        f"There is no model '{name}'. Known models: {known}. A path must be a folder that "
        "training wrote, on the machine where the backend runs."
    )
