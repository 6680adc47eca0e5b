"""From a request to its job, and from the job back to who waits for it."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import Query, Request
from numpy.typing import NDArray
from starlette.concurrency import run_in_threadpool

from clsclip.errors import CancelledError
from clsclip.service.jobs import Job
from clsclip.service.security import read_body
from clsclip.wire import REQUEST_ID_PATTERN, SegmentRequest, decode_segment_request

RequestId = Annotated[str, Query(pattern=REQUEST_ID_PATTERN, description="Chosen by the client.")]


async def read_segment_request(
    request: Request, max_bytes: int
) -> tuple[NDArray[Any], SegmentRequest]:
    """Image and settings of a request's body."""
    body = await read_body(request, max_bytes)
    return await run_in_threadpool(decode_segment_request, body, max_bytes)


async def wait_for(request: Request, job: Job) -> Any:
    """Wait for the result of a job, or for the client to close the connection.

    Raises
    ------
    ClsClipError
        That the job ended with; :class:`~clsclip.errors.CancelledError` if the client went away.
    """
    result = asyncio.wrap_future(job.result)
    gone = asyncio.create_task(_disconnect(request))
    try:
        await asyncio.wait((result, gone), return_when=asyncio.FIRST_COMPLETED)
        if not result.done():
            raise CancelledError("The client went away.")
        return result.result()
    finally:
        result.cancel()
        gone.cancel()


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
