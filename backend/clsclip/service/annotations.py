"""The routes of :mod:`clsclip.wire_annotations`. They convert and delegate."""

from __future__ import annotations

import threading
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool

from clsclip.config import MAX_WORD_LENGTH, BackendSettings
from clsclip.service.answers import NPZ_CONTENT, error_answers
from clsclip.service.security import read_body
from clsclip.store.store import AnnotationStore, opened_store
from clsclip.wire_annotations import LIST_LIMIT, Annotation, AnnotationList, decode_correction


class SharedStore:
    """The store of a backend, opened when it is first asked for.

    A backend whose store cannot be opened can still segment.

    Parameters
    ----------
    settings : BackendSettings
    """

    def __init__(self, settings: BackendSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._store: AnnotationStore | None = None

    def open(self) -> AnnotationStore:
        """The store, for use in any thread.

        Raises
        ------
        FileError, InvalidConfigError, StoreError
        """
        with self._lock:
            if self._store is None:
                self._store = opened_store(self._settings)
            return self._store

    def close(self) -> None:
        """Close the store, if it was opened."""
        with self._lock:
            if self._store is not None:
                self._store.close()
            self._store = None


def annotation_routes(settings: BackendSettings, store: SharedStore) -> APIRouter:
    """Routes that add and list annotations."""
    router = APIRouter()
    max_bytes = settings.max_request_mb * 2**20

    @router.post(
        "/annotations",
        status_code=201,
        responses=error_answers(404, 409, 413),
        openapi_extra={"requestBody": {"required": True, "content": NPZ_CONTENT}},
    )
    async def add(request: Request) -> Annotation:
        """Keep what a person accepted; once this is answered, it survives a crash."""
        body = await read_body(request, max_bytes)

        def keep() -> Annotation:
            correction, replaces = decode_correction(body, max_bytes)
            return store.open().add(correction, replaces=replaces)

        return await run_in_threadpool(keep)

    @router.get("/annotations")
    def annotations(
        word: Annotated[str, Query(max_length=MAX_WORD_LENGTH)] = "",
        offset: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=0, le=LIST_LIMIT)] = LIST_LIMIT,
    ) -> AnnotationList:
        """Latest versions, newest first."""
        opened = store.open()
        return AnnotationList(
            annotations=tuple(opened.list(word=word, offset=offset, limit=limit)),
            total=len(opened),
            words=opened.words(),
        )

    return router
