"""A stub of the backend, a client of it, and raw bytes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from napari_clsclip._client import Client
from napari_clsclip._connection import BackendConnection
from often_asked import often_asked
from stub_backend import ANSWER, GONE, HEALTH, JSON, PATIENCE, Stub


@pytest.fixture
def stub() -> Iterator[Stub]:
    server = Stub()
    server.replies["GET"] = lambda path, body: (200, JSON, HEALTH.model_dump_json().encode())
    server.replies["POST"] = lambda path, body: (200, "application/x-npz", ANSWER)
    server.replies["DELETE"] = lambda path, body: GONE
    yield server
    server.stop()


@pytest.fixture
def connection(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, qapp: object
) -> Iterator[BackendConnection]:
    """The connection that widgets share is one to the stub of a file, which is asked often."""
    yield from often_asked(stub.url, monkeypatch)


@pytest.fixture
def client(stub: Stub) -> Iterator[Client]:
    with Client(stub.url, "secret", answer_seconds=0.5) as connection:
        yield connection


@pytest.fixture
def talk() -> Iterator[Callable[..., str]]:
    """Serve raw bytes: ``talk(answer)`` reads a request, answers, and closes."""
    listeners: list[tuple[socket.socket, threading.Thread]] = []

    def serve(answer: bytes) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.settimeout(PATIENCE)

        def run() -> None:
            try:
                connection, _ = listener.accept()
            except OSError:  # the test has ended
                return
            with connection:
                connection.settimeout(PATIENCE)
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        listeners.append((listener, thread))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield serve
    for listener, thread in listeners:
        thread.join(PATIENCE)
        listener.close()
