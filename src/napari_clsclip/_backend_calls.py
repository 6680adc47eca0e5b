"""Calls of a backend over HTTP, and what their answers and errors mean."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from clsclip.errors import (
    AuthenticationError,
    BackendError,
    BackendUnreachableError,
    error_from_code,
)
from clsclip.wire import API_PREFIX, ErrorAnswer
from napari_clsclip._transport import checked_url, transport, transport_errors

CONNECT_SECONDS: Final = 5.0
"""How long a machine may take to accept a connection."""

SEND_SECONDS: Final = 60.0
"""How long the network may accept no further byte of an image."""

_JSON: Final = MappingProxyType({"Content-Type": "application/json"})

_M = TypeVar("_M", bound=BaseModel)


def answer_within(seconds: float | None) -> httpx.Timeout:
    """Time limits of a call whose answer may take so long; None: any time."""
    return httpx.Timeout(seconds, connect=CONNECT_SECONDS, write=SEND_SECONDS)


class BackendCalls:
    """Calls of one backend. Any thread may call any method at any time.

    Parameters
    ----------
    url, token, answer_seconds
        See :class:`napari_clsclip._client.Client`.

    Raises
    ------
    InvalidConfigError, AuthenticationError
    """

    def __init__(self, url: str, token: str, answer_seconds: float) -> None:
        self.url: Final = checked_url(url)
        token = token.strip()
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise AuthenticationError(
                "The token is empty or holds characters that no token has. "
                "Copy the one that the backend printed when it started."
            )
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=answer_within(answer_seconds),
            transport=transport(httpx.URL(self.url)),
        )

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Call a route.

        Parameters
        ----------
        method, path : str
        **options
            Of :meth:`httpx.Client.request`.

        Raises
        ------
        ClsClipError
            What the backend answers, or why it does not.
        """
        if self._http.is_closed:
            raise BackendUnreachableError(f"The connection to {self.url} has been closed.")
        with transport_errors(method, self.url):
            answer = self._http.request(method, f"{API_PREFIX}{path}", **options)
        if answer.is_success:
            return answer
        try:
            fault = ErrorAnswer.model_validate_json(answer.content).error
        except ValidationError:
            raise BackendError(
                f"{self.url} answers with status {answer.status_code} and not as a backend of "
                "napari-clsclip would. Check the address; another program may listen there."
            ) from None
        raise error_from_code(fault.code, fault.message)

    def ask(self, model: type[_M], method: str, path: str, **options: Any) -> _M:
        """Call a route, and read its answer; see :meth:`call`."""
        return self.read(model, self.call(method, path, **options))

    def send(
        self, model: type[_M], method: str, path: str, message: BaseModel, **options: Any
    ) -> _M:
        """Call a route with a message as JSON, and read its answer; see :meth:`call`."""
        body = message.model_dump_json()
        return self.ask(model, method, path, content=body, headers=_JSON, **options)

    def read(self, model: type[_M], answer: httpx.Response) -> _M:
        """Read an answer.

        Raises
        ------
        BackendError
            If it is none of this version.
        """
        try:
            return model.model_validate_json(answer.content)
        except ValidationError as error:
            raise BackendError(
                f"{self.url} does not answer as this version of napari-clsclip expects. Check "
                "the address, and install the same version here and on the backend's machine."
            ) from error
