"""Names of models and the model directories behind them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import platformdirs

from clsclip.config import DEFAULT_MODEL
from clsclip.errors import UnknownModelError
from clsclip.model.config import CONFIG_FILE
from clsclip.model.description import describe_model, model_fault
from clsclip.model.versions import ActiveVersion, active_version, finished_versions
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
    for name, folder in finished_versions().items():
        found.setdefault(name, folder)
    return dict(sorted(found.items(), key=lambda item: item[0] != DEFAULT_MODEL))


def list_models() -> tuple[ModelInfo, ...]:
    """Models that have a name; the one that is active comes first, then the bundled one."""
    models = []
    for name, folder in _named().items():
        reason = model_fault(folder)
        models.append(
            ModelInfo(
                name=name, description="" if reason else describe_model(folder).text,
                available=reason is None, reason=reason,
            )
        )  # fmt: skip
    active = active_version(_available(models)).name
    return tuple(sorted(models, key=lambda model: model.name != active))


def active_model() -> ActiveVersion:
    """Which model is used unless another one is named."""
    return active_version(_available(list_models()))


def _available(models: Iterable[ModelInfo]) -> frozenset[str]:
    return frozenset(model.name for model in models if model.available)


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
