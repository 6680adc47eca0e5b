"""The routes of :mod:`clsclip.wire` as a FastAPI application. They convert and delegate."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Final

from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

import clsclip
from clsclip.config import BackendSettings
from clsclip.errors import (
    AuthenticationError,
    BusyError,
    ClsClipError,
    InvalidRequestError,
    NotFoundError,
)
from clsclip.model.description import describe_model
from clsclip.model.device import describe_device
from clsclip.model.registry import find_model, list_models
from clsclip.segmentation import Segmentation
from clsclip.service.annotations import SharedStore, annotation_routes
from clsclip.service.answers import NPZ_CONTENT, error_answers
from clsclip.service.batch_processes import BatchProcesses
from clsclip.service.batches import batch_routes
from clsclip.service.downloads import Downloads, download_routes
from clsclip.service.jobs import JobQueue, LoadPredictor, Segmenter, unexpected_error
from clsclip.service.ranking import ranking_routes
from clsclip.service.security import HostCheck, require_token
from clsclip.service.training_processes import TrainingProcesses, settle_or_warn
from clsclip.service.trainings import training_routes
from clsclip.service.waiting import RequestId, read_segment_request, wait_for
from clsclip.wire import (
    API_PREFIX,
    NPZ_MEDIA_TYPE,
    REQUEST_ID_PATTERN,
    HealthReport,
    ModelList,
    ModelWindow,
    Progress,
    error_json,
)
from clsclip.wire_segmentation import encode_segmentation

RETRY_AFTER_SECONDS: Final = 5
"""When a client that was told to come back should do so."""

_CHUNK: Final = 2**20
_PathRequestId = Annotated[str, Path(pattern=REQUEST_ID_PATTERN, description="Id of a request.")]


def create_app(
    settings: BackendSettings,
    token: str,
    load_predictor: LoadPredictor | None = None,
    train_command: Sequence[str] | None = None,
    label_command: Sequence[str] | None = None,
) -> FastAPI:
    """Build the service.

    Parameters
    ----------
    settings : BackendSettings
        ``port`` and ``exit_with_parent`` are for whoever runs the application.
    token : str
        Bearer token that every route under ``/v1`` asks for.
    load_predictor : LoadPredictor, optional
        Loads the models that requests name; by default :class:`PartPredictor
        <clsclip.predict.parts.PartPredictor>`.
    train_command : sequence of str, optional
        What runs a training; see :class:`~clsclip.service.training_processes.TrainingProcesses`.
    label_command : sequence of str, optional
        What runs a batch; see :class:`~clsclip.service.batch_processes.BatchProcesses`.

    Returns
    -------
    FastAPI
        Its ``state.jobs`` is the :class:`~clsclip.service.jobs.JobQueue`, which the
        application closes when it shuts down.

    Raises
    ------
    DeviceError
        If the device of the settings is not there.
    """
    device = describe_device(settings.device)
    jobs = JobQueue(
        load_predictor or _load_predictor,
        device=settings.device,
        size=settings.queue_size,
        preload=settings.preload,
    )
    store = SharedStore(settings)
    trainings = TrainingProcesses(settings, train_command)
    batches = BatchProcesses(settings, label_command)
    downloads = Downloads()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(trainings.look)
        await run_in_threadpool(batches.look)
        yield
        jobs.close()
        store.close()
        batches.close()
        downloads.close()

    app = FastAPI(
        title="napari-clsclip backend",
        version=clsclip.__version__,
        description="Zero-shot segmentation with ClsCLIP. Every route asks for a bearer token.",
        lifespan=lifespan,
    )
    app.state.jobs = jobs
    for router in (
        _routes(settings, jobs, device),
        annotation_routes(settings, store),
        training_routes(store, trainings),
        ranking_routes(settings, jobs, store),
        batch_routes(settings, jobs, batches),
        download_routes(downloads),
    ):
        app.include_router(
            router,
            prefix=API_PREFIX,
            dependencies=[Depends(require_token(token))],
            responses=error_answers(401, 422, 500),
        )
    app.add_middleware(HostCheck, allowed=(settings.host, *settings.allowed_hosts))
    _add_error_answers(app)
    return app


def _load_predictor(model: str, *, device: str) -> Segmenter:
    """Import what a predictor needs in the worker's thread, for it takes seconds."""
    from clsclip.predict.parts import PartPredictor

    return PartPredictor(model, device=device)


def _routes(settings: BackendSettings, jobs: JobQueue, device: str) -> APIRouter:
    router = APIRouter()
    started = time.monotonic()
    max_bytes = settings.max_request_mb * 2**20

    @router.get("/health")
    async def health() -> HealthReport:
        """State of the backend; answered also while a segmentation runs."""
        queued, running = jobs.counts()
        return HealthReport(
            version=clsclip.__version__,
            device=device,
            pid=os.getpid(),
            uptime_seconds=time.monotonic() - started,
            queued=queued,
            running=running,
            loaded_models=jobs.loaded_models(),
        )

    @router.get("/models")
    def models() -> ModelList:
        """Models that a request may name; the one that is active comes first."""
        settle_or_warn()
        return ModelList(models=list_models())

    @router.get("/window", responses=error_answers(404))
    def window(model: Annotated[str, Query(min_length=1)]) -> ModelWindow:
        """How much of an image a model looks at at once."""
        return ModelWindow(image_size=describe_model(find_model(model)).image_size)

    @router.post(
        "/segment",
        response_class=StreamingResponse,
        responses={
            200: {"description": "npz of the segmentation", "content": NPZ_CONTENT},
            **error_answers(404, 409, 413, 503),
        },
        openapi_extra={"requestBody": {"required": True, "content": NPZ_CONTENT}},
    )
    async def segment(request: Request, request_id: RequestId) -> StreamingResponse:
        """Segment one image plane; the answer comes when the device has done it."""
        job = jobs.reserve(request_id)
        try:
            image, asked = await read_segment_request(request, max_bytes)
            jobs.submit(job, image, asked)
            result: Segmentation = await wait_for(request, job)
        finally:
            jobs.release(job)
        content = await run_in_threadpool(encode_segmentation, result)
        return StreamingResponse(
            _chunks(content),
            media_type=NPZ_MEDIA_TYPE,
            headers={"Content-Length": str(len(content))},
        )

    @router.get("/segment/{request_id}", responses=error_answers(404))
    async def progress(request_id: _PathRequestId) -> Progress:
        """How far a request is that waits or runs."""
        return jobs.progress(request_id)

    @router.delete("/segment/{request_id}", status_code=204, responses=error_answers(404))
    async def cancel(request_id: _PathRequestId) -> None:
        """End a request that waits or runs; it is answered with ``cancelled``."""
        jobs.cancel(request_id)

    return router


async def _chunks(content: bytes) -> AsyncIterator[memoryview]:
    """Pieces small enough that other requests are answered in between."""
    view = memoryview(content)
    for start in range(0, len(view), _CHUNK):
        yield view[start : start + _CHUNK]


def _add_error_answers(app: FastAPI) -> None:
    """Answer every error as JSON; see :class:`clsclip.wire.ErrorAnswer`."""

    @app.exception_handler(ClsClipError)
    async def expected(_: Request, error: ClsClipError) -> Response:
        headers = {}
        if isinstance(error, AuthenticationError):
            headers["WWW-Authenticate"] = "Bearer"
        if isinstance(error, BusyError):
            headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
        return _answer(error.http_status, error.code, error.message, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        faults = " ".join(
            f"'{fault['loc'][-1]}': {fault['msg']} (got {str(fault['input'])[:80]!r})."
            for fault in error.errors()
        )
        return _answer(422, InvalidRequestError.code, faults, {})

    @app.exception_handler(HTTPException)
    async def unrouted(request: Request, error: HTTPException) -> Response:
        text = f"{request.method} {request.url.path[:200]}: {error.detail}. /docs lists the routes."
        missing = error.status_code in (404, 405)
        code = NotFoundError.code if missing else InvalidRequestError.code
        return _answer(error.status_code, code, text, dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> Response:
        fault = unexpected_error(error)
        return _answer(fault.http_status, fault.code, fault.message, {})


def _answer(status: int, code: str, message: str, headers: dict[str, str]) -> Response:
    return Response(error_json(code, message), status, headers, "application/json")
