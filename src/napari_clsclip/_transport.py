"""How a client reaches a backend: its address, connections, and what their faults mean."""

from __future__ import annotations

import ipaddress
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import httpx

from clsclip.errors import (
    BackendDiedError,
    BackendError,
    BackendUnreachableError,
    InvalidConfigError,
)

_IDLE_SECONDS: Final = 5.0
_LAST_PORT: Final = 65535

# Without an answer for 30 s, then three times for 10 s, a connection is given up. The names
# differ between operating systems.
_KEEPALIVE: Final = (
    ("TCP_KEEPIDLE", 30),
    ("TCP_KEEPALIVE", 30),
    ("TCP_KEEPINTVL", 10),
    ("TCP_KEEPCNT", 3),
)


def checked_url(url: str) -> str:
    """Return the address of a backend without a slash at its end.

    Raises
    ------
    InvalidConfigError
        If it is no such address.
    """
    text = url.strip().rstrip("/")
    try:
        parts = httpx.URL(text)
        plain = parts.copy_with(username=None, password=None, query=None, fragment=None)
        usable = (
            parts.scheme in ("http", "https")
            and parts.host
            and (parts.port or 0) <= _LAST_PORT
            and parts == plain
        )
    except httpx.InvalidURL:
        usable = False
    if not usable:
        raise InvalidConfigError(
            f"'{url}' is not the address of a backend. Write it like http://127.0.0.1:8000."
        )
    return text


def transport(url: httpx.URL) -> httpx.HTTPTransport:
    """Make connections that notice when the other machine is gone; no proxy to this machine."""
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in _KEEPALIVE:
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    proxy = None
    if not _is_loopback(url.host) and not urllib.request.proxy_bypass(url.host):
        proxy = urllib.request.getproxies().get(url.scheme)
    return httpx.HTTPTransport(
        proxy=proxy,
        socket_options=options,
        limits=httpx.Limits(max_connections=None, keepalive_expiry=_IDLE_SECONDS),
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def transport_errors(method: str, url: str) -> Iterator[None]:
    """Say what a fault of the network means.

    Parameters
    ----------
    method : str
        Of the request that is made in the context. One that was being worked on when its
        connection ended says that the backend died.
    url : str
        Address of the backend.

    Raises
    ------
    BackendUnreachableError, BackendDiedError, BackendError
    """
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise BackendUnreachableError(
            f"No backend answers at {url} ({error}). Check the address, and that the backend runs."
        ) from error
    except httpx.ReadTimeout as error:
        raise BackendUnreachableError(
            f"The backend at {url} accepts connections but does not answer. "
            "Wait a moment, or restart it."
        ) from error
    except httpx.ProxyError as error:
        raise BackendUnreachableError(
            f"The proxy on the way to {url} refuses ({error}). "
            "Add the host to the environment variable NO_PROXY."
        ) from error
    except httpx.RemoteProtocolError as error:
        if not _has_ended(error):
            raise BackendError(
                f"What answers at {url} does not speak HTTP ({error}). Check the port."
            ) from error
        raise _lost(method, url, error) from error
    except (httpx.TransportError, httpx.DecodingError) as error:
        raise _lost(method, url, error) from error


def _lost(method: str, url: str, error: Exception) -> BackendError:
    if method != "POST":
        return BackendUnreachableError(
            f"{url} closes the connection instead of answering ({error}). "
            "Check the address, and that the backend runs."
        )
    return BackendDiedError(
        f"The connection to the backend at {url} was lost before it answered ({error}). "
        "It may have run out of memory; its log tells. Start it again and repeat the request."
    )


def _has_ended(error: httpx.RemoteProtocolError) -> bool:
    """Whether the connection ended in the middle of an answer, or before it."""
    return any(words in str(error) for words in ("disconnected", "closed connection"))
