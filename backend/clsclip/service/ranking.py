"""The routes of :mod:`clsclip.wire_ranking`. They convert and delegate."""

from __future__ import annotations

import logging
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request
from numpy.typing import NDArray
from starlette.concurrency import run_in_threadpool

from clsclip.config import DEFAULT_MODEL, BackendSettings
from clsclip.errors import CancelledError, ClsClipError
from clsclip.ranking import expected_iou
from clsclip.service.annotations import SharedStore
from clsclip.service.answers import NPZ_CONTENT, error_answers
from clsclip.service.jobs import Job, JobQueue, Segmenter, segment_for
from clsclip.service.waiting import RequestId, read_segment_request, wait_for
from clsclip.store.store import AnnotationStore
from clsclip.wire import SegmentRequest
from clsclip.wire_ranking import NEWEST, Embeddings, ImageGain

_log = logging.getLogger(__name__)


def ranking_routes(settings: BackendSettings, jobs: JobQueue, store: SharedStore) -> APIRouter:
    """Routes that say what an image would teach."""
    router = APIRouter()
    max_bytes = settings.max_request_mb * 2**20

    @router.post(
        "/gain",
        responses=error_answers(404, 409, 413, 503),
        openapi_extra={"requestBody": {"required": True, "content": NPZ_CONTENT}},
    )
    async def gain(request: Request, request_id: RequestId) -> ImageGain:
        """Segment one image plane, and say how sure the model is of it."""
        job = jobs.reserve(request_id)
        try:
            image, asked = await read_segment_request(request, max_bytes)
            accepted = await run_in_threadpool(lambda: store.open().has_image(image))
            jobs.submit_work(job, asked.model, lambda p, j: _gain(p, j, image, asked, accepted))
            answer: ImageGain = await wait_for(request, job)
        finally:
            jobs.release(job)
        return answer

    @router.get("/annotations/embeddings", responses=error_answers(404, 409, 503))
    async def embeddings(
        request: Request,
        request_id: RequestId,
        model: Annotated[str, Query(description="Model that looks at them.")] = DEFAULT_MODEL,
    ) -> Embeddings:
        """What the newest accepted images look like."""
        job = jobs.reserve(request_id)
        try:
            opened = await run_in_threadpool(store.open)
            jobs.submit_work(job, model, lambda p, j: _embeddings(p, j, opened))
            answer: Embeddings = await wait_for(request, job)
        finally:
            jobs.release(job)
        return answer

    return router


def _gain(
    predictor: Segmenter, job: Job, image: NDArray[Any], asked: SegmentRequest, accepted: bool
) -> ImageGain:
    found = segment_for(predictor, job, image, asked)
    return ImageGain(
        words=found.words,
        expected=tuple(expected_iou(each) for each in found.probabilities),
        embedding=_numbers(predictor.embedding(image, asked.contrast_limits)),
        accepted=accepted,
    )


def _embeddings(predictor: Segmenter, job: Job, store: AnnotationStore) -> Embeddings:
    found, seen = [], set()
    for annotation in store.list(limit=NEWEST):
        if job.ended():
            raise CancelledError("The request was cancelled.")
        if annotation.image_sha256 in seen:
            continue
        seen.add(annotation.image_sha256)
        try:
            image = store.read(annotation).image
            found.append(_numbers(predictor.embedding(image, annotation.details.contrast_limits)))
        except ClsClipError as error:  # a damaged one takes nothing from the others
            _log.warning("Annotation %s is left out: %s", annotation.id, error.message)
    return Embeddings(embeddings=tuple(found))


def _numbers(embedding: NDArray[np.float32]) -> tuple[float, ...]:
    return tuple(np.round(embedding, 5).tolist())
