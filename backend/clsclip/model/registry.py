"""Names of models and the model directories behind them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import platformdirs

from clsclip.config import DEFAULT_MODEL
from clsclip.errors import ModelUnavailableError, UnknownModelError
from clsclip.model.config import CONFIG_FILE
from clsclip.model.description import describe_model, model_fault
from clsclip.model.hub_models import HUB_MODELS, cached_folder, not_downloaded
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
    """Models that have a name: the active one, the bundled one, others, those of the hub."""
    models = []
    for name, folder in _named().items():
        reason = model_fault(folder)
        models.append(
            ModelInfo(
                name=name, description="" if reason else describe_model(folder).text,
                available=reason is None, reason=reason,
            )
        )  # fmt: skip
    names = {model.name for model in models}
    models += [_of_hub(name) for name in HUB_MODELS if name not in names]
    active = active_version(_available(models)).name
    return tuple(sorted(models, key=lambda model: model.name != active))


def active_model() -> ActiveVersion:
    """Which model is used unless another one is named."""
    return active_version(_available(list_models()))


def _of_hub(name: str) -> ModelInfo:
    model, here = HUB_MODELS[name], cached_folder(name) is not None
    return ModelInfo(
        name=name, description=f"{model.description} {model.licence}.", available=here,
        reason=None if here else not_downloaded(model),
    )  # fmt: skip


def _available(models: Iterable[ModelInfo]) -> frozenset[str]:
    return frozenset(model.name for model in models if model.available)


def find_model(name: str) -> Path:
    """The model directory of a name or a path; the directory of an ended run is one.

    That of a model of the hub is laid out as the hub has it; see
    :mod:`clsclip.model.hub_models`.

    Raises
    ------
    UnknownModelError
        If there is neither a model of this name nor a folder at this path.
    ModelUnavailableError
        If it is a model of the hub that is not on this machine.
    """
    named = _named()
    if name in named:
        return named[name]
    if name in HUB_MODELS:
        fetched = cached_folder(name) or _local(name)
        if fetched is None:
            raise ModelUnavailableError(
                f"The model '{name}' cannot be used. {not_downloaded(HUB_MODELS[name])} Get it "
                f"with 'napari-clsclip-train download --model {name}', or choose it in napari and "
                "press Download."
            )
        return fetched
    folder = _local(name)
    if folder is not None:
        return folder
    known = ", ".join((*named, *HUB_MODELS))
    raise UnknownModelError(
        f"There is no model '{name}'. Known models: {known}. A path must be a folder that "
        "training wrote, on the machine where the backend runs."
    )


def _local(name: str) -> Path | None:
    folder = Path(name).expanduser()
    return folder if folder.is_dir() else None
