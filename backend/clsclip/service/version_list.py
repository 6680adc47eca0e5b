"""Models as versions: where each comes from, how it was judged, and which one is in use."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from clsclip.errors import ClsClipError, ModelUnavailableError, UnknownModelError
from clsclip.model.hub_models import HUB_MODELS
from clsclip.model.registry import active_model, list_models
from clsclip.model.report import Report, read_report
from clsclip.model.run_state import read_state
from clsclip.model.versions import activate, run_folders
from clsclip.service.training_record import changes, read_record
from clsclip.wire import ModelInfo
from clsclip.wire_training import Version, VersionList


def list_versions() -> VersionList:
    """All models: those that a training made by the moment they were done, then the others.

    Models of the hub are none of them: no training goes on from them.
    """
    models = _models()
    made = {run.name: run for run in run_folders()}
    versions = [
        _version(model, made[name]) if name in made else _first(model)
        for name, model in models.items()
    ]
    versions += [_damaged(run) for name, run in made.items() if name not in models and _done(run)]
    active = active_model()
    return VersionList(
        versions=tuple(sorted(versions, key=_age, reverse=True)),
        active=active.name, back=active.back, notice=active.notice,
    )  # fmt: skip


def use_version(name: str) -> VersionList:
    """Use a version from now on unless another one is named.

    Raises
    ------
    UnknownModelError
        If no model has this name.
    ModelUnavailableError
        If it is damaged.
    FileError, BusyError
    """
    models = _models()
    if name not in models:
        raise UnknownModelError(
            f"There is no version '{name}'. Choose among {', '.join(models)}; a training that has "
            "not ended yet makes no version."
        )
    if not models[name].available:
        raise ModelUnavailableError(
            f"The version '{name}' cannot be used: {models[name].reason} Choose another one."
        )
    activate(name)
    return list_versions()


def _models() -> dict[str, ModelInfo]:
    return {model.name: model for model in list_models() if model.name not in HUB_MODELS}


def _age(version: Version) -> datetime:
    return version.created or datetime.min.replace(tzinfo=UTC)


def _first(model: ModelInfo) -> Version:
    return Version(
        name=model.name, description=model.description, available=model.available,
        reason=model.reason or "",
    )  # fmt: skip


def _version(model: ModelInfo, run: Path) -> Version:
    """A model that a training made; what cannot be read of its records is left out."""
    report, note, created = _report(run), "", None
    try:
        record, state = read_record(run), read_state(run)
        note = record.note if record is not None else ""
        created = datetime.fromtimestamp(state.time, UTC) if state is not None else None
    except ClsClipError:
        pass  # the model itself may be sound
    return _first(model).model_copy(
        update={
            "parent": report.model if report else "",
            "words": report.words if report else (),
            "changes": changes(report) if report else (),
            "promoted": report.promoted if report else None,
            "note": note,
            "created": created,
        }
    )


def _report(run: Path) -> Report | None:
    try:
        return read_report(run)
    except ClsClipError:
        return None


def _done(run: Path) -> bool:
    try:
        state = read_state(run)
    except ClsClipError:
        return False
    return state is not None and state.state == "done"


def _damaged(run: Path) -> Version:
    model = ModelInfo(
        name=run.name, description="", available=False,
        reason=f"Files of the model are missing in '{run}'. Copy them there again.",
    )  # fmt: skip
    return _version(model, run)
