from __future__ import annotations

import gc
import socket
import threading
import time
from typing import Any

import numpy as np
import pytest

from clsclip.errors import (
    BackendDiedError,
    BackendError,
    BackendUnreachableError,
    CancelledError,
    InvalidImageError,
    InvalidRequestError,
)
from clsclip.segmentation import Segmentation
from clsclip.wire import (
    error_json,
)
from napari_clsclip._client import Client
from stub_backend import ANSWER, GONE, HEALTH, IMAGE, JSON, PATIENCE, REQUEST, InThread, Reply, Stub
from waiting import eventually

# ---- the network ----


def test_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with Client(url, "t") as client:
        for call in (
            client.health,
            client.models,
            lambda: client.progress("id"),
            lambda: client.cancel("id"),
            lambda: client.segment(IMAGE, REQUEST, "id"),
        ):
            with pytest.raises(BackendUnreachableError, match=f"No backend answers at {url}"):
                call()


def test_what_does_not_speak_http(talk: Any) -> None:
    with Client(talk(b"220 mail.example ESMTP\r\n\r\n"), "t") as client:
        with pytest.raises(BackendError, match="does not speak HTTP") as caught:
            client.health()
        assert type(caught.value) is BackendError
    with (
        Client(talk(b"SSH-2.0-OpenSSH_9.9\r\n"), "t") as client,
        pytest.raises(BackendUnreachableError, match="closes the connection"),
    ):
        client.health()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nPK",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nPK",
    ],
)
def test_a_connection_that_is_lost(talk: Any, answer: bytes) -> None:
    url = talk(answer)
    with Client(url, "t") as client, pytest.raises(BackendDiedError, match=url):
        client.segment(IMAGE, REQUEST, "id")


def test_a_backend_that_does_not_answer(stub: Stub, client: Client) -> None:
    release = threading.Event()
    stub.replies["GET"] = lambda path, body: (release.wait(PATIENCE), GONE)[1]
    with pytest.raises(BackendUnreachableError, match="does not answer"):
        client.health()
    release.set()


def test_a_segmentation_may_take_longer_than_other_answers(stub: Stub, client: Client) -> None:
    stub.replies["POST"] = lambda path, body: (time.sleep(1.5), (200, "", ANSWER))[1]  # type: ignore[func-returns-value]
    assert client.segment(IMAGE, REQUEST, "id").words == ("cell",)


# ---- cancel and close ----


def test_cancel_of_what_has_ended(stub: Stub, client: Client) -> None:
    client.cancel("id")
    assert stub.count("DELETE") == 1


def test_cancel_that_overtakes_its_request(stub: Stub, client: Client) -> None:
    cancelled = threading.Event()
    stub.replies["POST"] = lambda path, body: (
        cancelled.wait(PATIENCE), (409, JSON, error_json("cancelled", "so").encode())
    )[1]  # fmt: skip

    def delete(path: str, body: bytes) -> Reply:
        if stub.count("DELETE") < 3:
            return GONE
        cancelled.set()
        return 204, JSON, b""

    stub.replies["DELETE"] = delete
    work = InThread(client)
    eventually(lambda: stub.count("POST") == 1)
    client.cancel("id")
    assert isinstance(work.wait(), CancelledError)
    assert stub.count("DELETE") == 3


def test_cancel_stops_an_upload() -> None:
    """A network of about 3 MB/s, over which the image would take half a minute."""
    listener = socket.create_server(("127.0.0.1", 0))
    received = 0
    ended = threading.Event()

    def read_slowly(connection: socket.socket) -> None:
        nonlocal received
        with connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            first = connection.recv(4096)
            if first.startswith(b"DELETE"):
                connection.sendall(
                    b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n" % len(GONE[2]) + GONE[2]
                )
                return
            try:
                while more := connection.recv(32768):
                    received += len(more)
                    time.sleep(0.01)
            except ConnectionResetError:
                ended.set()
        ended.set()

    def accept() -> None:
        for _ in range(40):
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=read_slowly, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    size = 100 * 2**20
    with Client(f"http://127.0.0.1:{listener.getsockname()[1]}", "t") as client:
        work = InThread(client, np.zeros((size // 1000, 1000), np.uint8))
        eventually(lambda: received > 0)
        client.cancel("id")
        assert isinstance(work.wait(), CancelledError)
        assert ended.wait(PATIENCE)
    assert received < size / 2
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def test_close_cancels_what_is_unfinished(stub: Stub) -> None:
    cancelled = threading.Event()

    def delete(path: str, body: bytes) -> Reply:
        cancelled.set()
        return 204, JSON, b""

    stub.replies["DELETE"] = delete
    stub.replies["POST"] = lambda path, body: (
        cancelled.wait(PATIENCE), (409, JSON, error_json("cancelled", "so").encode())
    )[1]  # fmt: skip
    client = Client(stub.url, "t")
    work = InThread(client)
    eventually(lambda: stub.count("POST") == 1)
    client.close()
    assert isinstance(work.wait(), (CancelledError, BackendDiedError))
    assert stub.count("DELETE") == 1
    with pytest.raises(BackendUnreachableError, match="closed"):
        client.health()
    client.close()


def test_an_unfinished_id_is_refused_and_freed(stub: Stub, client: Client) -> None:
    release = threading.Event()
    stub.replies["POST"] = lambda path, body: (release.wait(PATIENCE), (200, "", ANSWER))[1]
    work = InThread(client)
    eventually(lambda: stub.count("POST") == 1)
    with pytest.raises(InvalidRequestError, match="'id'"):
        client.segment(IMAGE, REQUEST, "id")
    release.set()
    assert isinstance(work.wait(), Segmentation)
    with pytest.raises(InvalidImageError):
        client.segment(np.array([["text"]]), REQUEST, "id")
    assert client.segment(IMAGE, REQUEST, "id").words == ("cell",)


def test_many_threads(stub: Stub, client: Client) -> None:
    outcomes: list[object] = []

    def work(number: int) -> None:
        for step in range(5):
            result = client.segment(IMAGE, REQUEST, f"{number}-{step}")
            outcomes.append((client.health() == HEALTH, result.probabilities.sum()))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert outcomes == [(True, 84)] * 40


def test_no_socket_is_left_open(stub: Stub) -> None:
    with Client(stub.url, "t") as client:
        client.health()
    del client
    gc.collect()  # a ResourceWarning would be an error
