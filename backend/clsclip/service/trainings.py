"""The routes of :mod:`clsclip.wire_training`. They convert and delegate."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from clsclip.service.annotations import SharedStore
from clsclip.service.answers import error_answers
from clsclip.service.training_processes import TrainingProcesses, settle_or_warn
from clsclip.service.version_list import list_versions, use_version
from clsclip.wire_training import (
    VERSION_PATTERN,
    Activation,
    Training,
    TrainingList,
    TrainingRequest,
    VersionList,
)

_Name = Annotated[str, Path(pattern=VERSION_PATTERN, description="Name of a training.")]


def training_routes(store: SharedStore, processes: TrainingProcesses) -> APIRouter:
    """Routes that start, watch and end trainings, and choose among the versions they make."""
    router = APIRouter()

    @router.get("/trainings")
    def trainings() -> TrainingList:
        """All trainings without their curves, the newest first."""
        return TrainingList(trainings=processes.list())

    @router.post("/trainings", status_code=201, responses=error_answers(404, 503))
    def start(request: TrainingRequest) -> Training:
        """Start a training on what was accepted; it goes on whatever becomes of the backend."""
        return processes.start(request, store.open())

    @router.get("/trainings/{name}", responses=error_answers(404))
    def training(name: _Name) -> Training:
        """How a training stands, with its curve."""
        return processes.get(name)

    @router.post("/trainings/{name}/resume", responses=error_answers(404, 409, 503))
    def resume(name: _Name) -> Training:
        """Go on with a training that failed or broke off, from its checkpoint."""
        return processes.resume(name)

    @router.delete("/trainings/{name}", responses=error_answers(404))
    def cancel(name: _Name) -> Training:
        """Ask a training to end with what is best so far."""
        return processes.cancel(name)

    @router.get("/versions")
    def versions() -> VersionList:
        """Models that can be used, and which one is used unless another one is named."""
        settle_or_warn()
        return list_versions()

    @router.put("/versions/active", responses=error_answers(404, 503))
    def activate(asked: Activation) -> VersionList:
        """Use a version from now on unless another one is named."""
        settle_or_warn()
        return use_version(asked.name)

    return router
