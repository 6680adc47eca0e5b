"""Who may call the backend, under which name, and with how many bytes."""

from __future__ import annotations

import asyncio
import io
import secrets
from collections.abc import Awaitable, Callable, Iterable
from typing import Annotated, Final
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from clsclip.errors import (
    AuthenticationError,
    CancelledError,
    InvalidRequestError,
    RequestTooLargeError,
)
from clsclip.wire import TOKEN_VARIABLE, error_json

LOCAL_NAMES: Final = ("127.0.0.1", "localhost", "::1")
"""Names that always mean the machine on which they are used."""

UPLOAD_STALL_SECONDS: Final = 60.0
"""An upload from which nothing arrives for so long has lost its client."""

_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="token",
    description="The token that the backend was started with.",
)


def require_token(token: str) -> Callable[..., Awaitable[None]]:
    """Make a FastAPI dependency that lets only the holders of a token pass.

    Parameters
    ----------
    token : str
        What a request must carry as ``Authorization: Bearer <token>``.

    Returns
    -------
    callable
        Raises :class:`~clsclip.errors.AuthenticationError`.
    """
    expected = token.encode()

    async def check(
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    ) -> None:
        way_out = (
            "Enter the token that the backend printed when it started, or that was set with "
            f"--token-file or {TOKEN_VARIABLE}."
        )
        if credentials is None:
            raise AuthenticationError(f"The backend asks for a token. {way_out}")
        if not secrets.compare_digest(credentials.credentials.encode(), expected):
            raise AuthenticationError(f"The token is not the one of this backend. {way_out}")

    return check


class HostCheck:
    """ASGI middleware that answers only to known names of this machine.

    A web page that points a domain of its own at 127.0.0.1 (DNS rebinding) reaches the port,
    but its requests carry that domain in the ``Host`` header. Starlette's
    ``TrustedHostMiddleware`` does the same, but answers in plain text.

    Parameters
    ----------
    app : ASGI application
    allowed : iterable of str
        Names and addresses without port, beside those of ``LOCAL_NAMES``.
    """

    def __init__(self, app: ASGIApp, allowed: Iterable[str]) -> None:
        self._app = app
        self._allowed = {name.strip("[]").lower() for name in (*LOCAL_NAMES, *allowed)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it with an error."""
        if scope["type"] == "http":
            header = Headers(scope=scope).get("host", "")
            if _host_name(header) not in self._allowed:
                error = InvalidRequestError(
                    f"This backend does not answer to the host name '{header[:80]}'. "
                    "Start it with --allowed-hosts NAME to let clients call it so."
                )
                await _answer(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _host_name(header: str) -> str | None:
    try:
        return urlsplit(f"//{header}").hostname
    except ValueError:
        return None


def _answer(error: InvalidRequestError) -> Response:
    return Response(
        error_json(error.code, error.message), error.http_status, media_type="application/json"
    )


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Read a request's body, and stop as soon as it is too large.

    Parameters
    ----------
    request : Request
        Nobody else must have read its body.
    max_bytes : int
        Largest body. A ``Content-Length`` above it is refused before anything is read; one
        that is absent or too low does not help.

    Raises
    ------
    RequestTooLargeError
    InvalidRequestError
        If nothing arrives for ``UPLOAD_STALL_SECONDS``.
    CancelledError
        If the client closes the connection.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    body = io.BytesIO()
    clock = asyncio.get_running_loop().time
    try:
        async with asyncio.timeout(UPLOAD_STALL_SECONDS) as stalled:
            async for chunk in request.stream():
                if body.tell() + len(chunk) > max_bytes:
                    raise _too_large(max_bytes)
                body.write(chunk)
                stalled.reschedule(clock() + UPLOAD_STALL_SECONDS)
    except TimeoutError as error:
        raise InvalidRequestError(
            f"Nothing arrived for {UPLOAD_STALL_SECONDS:g} s in the middle of the request. "
            "Check the network and send it again."
        ) from error
    except ClientDisconnect as error:
        raise CancelledError("The client went away.") from error
    return body.getvalue()


def _too_large(max_bytes: int) -> RequestTooLargeError:
    return RequestTooLargeError(
        f"The request is larger than {max_bytes / 2**20:,.0f} MiB, the most that this backend "
        "accepts. Segment a smaller region, or start it with a larger --max-request-mb."
    )
