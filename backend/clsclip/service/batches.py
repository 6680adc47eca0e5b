"""The routes of :mod:`clsclip.wire_batch`. They convert and delegate."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool

from clsclip.config import BackendSettings
from clsclip.service.answers import NPZ_CONTENT, error_answers
from clsclip.service.batch_preview import preview_batch
from clsclip.service.batch_processes import BatchProcesses
from clsclip.service.jobs import JobQueue
from clsclip.service.security import read_body
from clsclip.wire_batch import (
    BATCH_PATTERN,
    MOST_FILES,
    Batch,
    BatchCheck,
    BatchCopies,
    BatchFile,
    BatchFiles,
    BatchList,
    BatchPreview,
    BatchRequest,
    FileOrder,
    FileStatus,
    decode_review,
)

_Name = Annotated[str, Path(pattern=BATCH_PATTERN, description="Name of a batch.")]
_Number = Annotated[int, Path(ge=0, description="Number of a file in it, from 0.")]

_PNG: Final = {"image/png": {"schema": {"type": "string", "format": "binary"}}}


def batch_routes(settings: BackendSettings, jobs: JobQueue, processes: BatchProcesses) -> APIRouter:
    """Routes that start, watch and end batches, and review what they have labelled."""
    router = APIRouter()
    max_bytes = settings.max_request_mb * 2**20

    @router.post("/batches/preview", responses=error_answers(404))
    async def preview(request: Request, asked: BatchRequest) -> BatchPreview:
        """What a batch would do; one of the files is segmented to tell how long it takes."""
        return await preview_batch(asked, jobs, request)

    @router.post("/batches/check", responses=error_answers(404, 503))
    def check(asked: BatchRequest) -> BatchCheck:
        """Whether a batch could be started now; asked before napari reads files for it."""
        return processes.check(asked)

    @router.get("/batches")
    def batches() -> BatchList:
        """All batches, the newest first."""
        return BatchList(batches=processes.list())

    @router.post("/batches", status_code=201, responses=error_answers(404, 503))
    def start(asked: BatchRequest) -> Batch:
        """Start a batch; it goes on whatever becomes of the backend."""
        return processes.start(asked)

    @router.get("/batches/{name}", responses=error_answers(404))
    def batch(name: _Name) -> Batch:
        """How a batch stands."""
        return processes.get(name)

    @router.post("/batches/{name}/pause", responses=error_answers(404, 409))
    def pause(name: _Name) -> Batch:
        """Ask a batch to wait after the present file."""
        return processes.pause(name)

    @router.post("/batches/{name}/resume", responses=error_answers(404, 409, 503))
    def resume(name: _Name, read: BatchCopies | None = None) -> Batch:
        """Go on with a batch that waits, was ended, failed or broke off, or has failed files."""
        return processes.resume(name, () if read is None else read.copies)

    @router.delete("/batches/{name}", responses=error_answers(404))
    def cancel(name: _Name) -> Batch:
        """Ask a batch to end after the present file; what is done stays."""
        return processes.cancel(name)

    @router.get("/batches/{name}/files", responses=error_answers(404))
    def files(
        name: _Name,
        start: Annotated[int, Query(ge=0)] = 0,
        count: Annotated[int, Query(ge=0, le=MOST_FILES)] = 100,
        status: FileStatus | Literal[""] = "",
        order: FileOrder = "name",
    ) -> BatchFiles:
        """How some of the files of a batch stand."""
        return processes.files(name, start=start, count=count, status=status or None, order=order)

    @router.get(
        "/batches/{name}/files/{number}/thumbnail",
        response_class=FileResponse,
        responses={200: {"description": "A small picture", "content": _PNG}, **error_answers(404)},
    )
    def thumbnail(name: _Name, number: _Number) -> FileResponse:
        """A small picture of a file with its labels drawn over it."""
        file = processes.thumbnail(name, number)
        return FileResponse(file, media_type="image/png", headers={"Cache-Control": "no-cache"})

    @router.put(
        "/batches/{name}/files/{number}/review",
        responses=error_answers(404, 409, 413, 503),
        openapi_extra={"requestBody": {"required": False, "content": NPZ_CONTENT}},
    )
    async def accept(name: _Name, number: _Number, request: Request) -> BatchFile:
        """Accept labels as they are, or corrected ones; this survives a crash once answered."""
        body = await read_body(request, max_bytes)

        def keep() -> BatchFile:
            labels = decode_review(body, max_bytes) if body else None
            return processes.accept(name, number, labels)

        return await run_in_threadpool(keep)

    @router.delete("/batches/{name}/files/{number}/review", responses=error_answers(404, 503))
    def withdraw(name: _Name, number: _Number) -> BatchFile:
        """No longer accept a file; its labels stay until they are made again."""
        return processes.withdraw(name, number)

    return router
