from __future__ import annotations

import gc
import io
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from clsclip.errors import (
    AuthenticationError,
    BackendDiedError,
    BackendError,
    BackendUnreachableError,
    BusyError,
    CancelledError,
    ClsClipError,
    DeviceError,
    InvalidConfigError,
    InvalidImageError,
    InvalidRequestError,
    NotFoundError,
)
from clsclip.wire import (
    HealthReport,
    Segmentation,
    SegmentRequest,
    encode_segmentation,
    error_json,
)
from napari_clsclip._client import Client

PATIENCE = 10.0
REQUEST = SegmentRequest(words=("cell",))
IMAGE = np.zeros((3, 4), np.uint8)
HEALTH = HealthReport(
    version="0.1.0", device="CPU", pid=1, uptime_seconds=2.0, queued=0, running=0,
    loaded_models=(),
)  # fmt: skip
ANSWER = encode_segmentation(
    Segmentation(np.full((1, 3, 4), 7, np.uint8), ("cell",), "mini", "v", (1.0,), 0.5)
)

Reply = tuple[int, str, bytes]
JSON = "application/json"
GONE: Reply = (404, JSON, error_json(NotFoundError.code, "gone").encode())


class Stub:
    """A server that answers as a test tells it: ``replies[method](path, body)``."""

    def __init__(self) -> None:
        self.replies: dict[str, Callable[[str, bytes], Reply]] = {}
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                stub.seen.append((self.command, self.path, dict(self.headers)))
                status, kind, content = stub.replies[self.command](self.path, body)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_DELETE = answer  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                if not isinstance(sys.exception(), ConnectionError):  # clients may hang up
                    super().handle_error(request, client_address)

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self._thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self._thread.join(PATIENCE)
        self.server.server_close()

    def count(self, method: str) -> int:
        return sum(seen[0] == method for seen in self.seen)


@pytest.fixture
def stub() -> Iterator[Stub]:
    server = Stub()
    server.replies["GET"] = lambda path, body: (200, JSON, HEALTH.model_dump_json().encode())
    server.replies["POST"] = lambda path, body: (200, "application/x-npz", ANSWER)
    server.replies["DELETE"] = lambda path, body: GONE
    yield server
    server.stop()


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


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not true within {PATIENCE} s"
        time.sleep(0.01)


class InThread:
    """A segmentation in a thread, and how it ended."""

    def __init__(self, client: Client, image: Any = IMAGE, request_id: str = "id") -> None:
        self.outcome: Segmentation | ClsClipError | None = None

        def run() -> None:
            try:
                self.outcome = client.segment(image, REQUEST, request_id)
            except ClsClipError as error:
                self.outcome = error

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def wait(self) -> Segmentation | ClsClipError | None:
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        return self.outcome


# ---- what it sends ----


def test_every_method_sends_token_and_path(stub: Stub, client: Client) -> None:
    assert client.health() == HEALTH
    stub.replies["GET"] = lambda path, body: (
        200, JSON, b'{"models": [{"name": "mini", "description": "d", "available": true}]}'
    )  # fmt: skip
    assert [model.name for model in client.models()] == ["mini"]
    stub.replies["GET"] = lambda path, body: (
        200, JSON, b'{"state": "running", "done": 1, "total": 4}'
    )  # fmt: skip
    step = client.progress("id")
    assert step is not None
    assert (step.state, step.done, step.total) == ("running", 1, 4)
    stub.replies["DELETE"] = lambda path, body: (204, JSON, b"")
    client.cancel("id")
    result = client.segment(IMAGE, REQUEST, "id")
    np.testing.assert_array_equal(result.probabilities, np.full((1, 3, 4), 7))
    assert [seen[:2] for seen in stub.seen] == [
        ("GET", "/v1/health"),
        ("GET", "/v1/models"),
        ("GET", "/v1/segment/id"),
        ("DELETE", "/v1/segment/id"),
        ("POST", "/v1/segment?request_id=id"),
    ]
    assert {seen[2]["Authorization"] for seen in stub.seen} == {"Bearer secret"}
    assert "Transfer-Encoding" not in stub.seen[-1][2]


def test_the_path_of_the_url_is_a_prefix(stub: Stub) -> None:
    with Client(f" {stub.url}/lab/clsclip/ ", "t") as client:
        client.health()
    assert stub.seen[0][1] == "/lab/clsclip/v1/health"


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:8000", "localhost", "ftp://host", "http://", "http:///x", "http://h:99999",
     "http://user:pw@host", "http://host?x=1", "http://host#x", "http://[::1", "file:///etc"],
)  # fmt: skip
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(InvalidConfigError, match=r"http://127\.0\.0\.1:8000"):
        Client(url, "t")


@pytest.mark.parametrize("token", ["", "  ", "a b", "é", "a\nb"])
def test_tokens_that_are_refused(token: str) -> None:
    with pytest.raises(AuthenticationError):
        Client("http://127.0.0.1:1", token)


def test_no_proxy_to_this_machine(stub: Stub, talk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = Stub()
    proxy.replies["GET"] = lambda path, body: (200, JSON, HEALTH.model_dump_json().encode())
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy.url)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "direct.invalid")
    try:
        for url in (stub.url, stub.url.replace("127.0.0.1", "localhost")):
            with Client(url, "t") as client:
                client.health()
        assert not proxy.seen
        with Client("http://far.invalid:81", "t") as client:
            client.health()
        assert [seen[1] for seen in proxy.seen] == ["http://far.invalid:81/v1/health"]
        with (
            Client("http://direct.invalid:81", "t") as client,
            pytest.raises(BackendUnreachableError),
        ):
            client.health()
        assert len(proxy.seen) == 1
    finally:
        proxy.stop()


# ---- answers that are errors ----


@pytest.mark.parametrize(
    "error", [BusyError("full"), DeviceError("no memory"), InvalidImageError("no pixels")]
)
def test_errors_of_the_backend_keep_their_type(
    stub: Stub, client: Client, error: ClsClipError
) -> None:
    text = error_json(error.code, error.message).encode()
    stub.replies["POST"] = lambda path, body: (error.http_status, JSON, text)
    with pytest.raises(type(error), match=error.message):
        client.segment(IMAGE, REQUEST, "id")


def test_progress_of_an_unknown_request(stub: Stub, client: Client) -> None:
    stub.replies["GET"] = lambda path, body: GONE
    assert client.progress("id") is None


@pytest.mark.parametrize(
    ("status", "kind", "content"),
    [
        (200, "text/html", b"<html>It works!</html>"),
        (404, "text/html", b"<html>Not found</html>"),
        (502, "text/html", b"Bad gateway"),
        (302, "text/html", b""),
        (200, JSON, b"{}"),
        (200, JSON, b'{"version": "99.0", "novelty": 1}'),
        (404, JSON, b'{"detail": "Not Found"}'),
        (200, JSON, b"\xff\xfe"),
    ],
)
def test_another_server(stub: Stub, client: Client, status: int, kind: str, content: bytes) -> None:
    stub.replies["GET"] = lambda path, body: (status, kind, content)
    with pytest.raises(BackendError, match="napari-clsclip") as caught:
        client.health()
    assert type(caught.value) is BackendError
    assert stub.url in caught.value.message


@pytest.mark.parametrize("content", [b"", b"<html>", ANSWER[:-30]])
def test_a_segmentation_that_cannot_be_read(stub: Stub, client: Client, content: bytes) -> None:
    stub.replies["POST"] = lambda path, body: (200, "application/x-npz", content)
    with pytest.raises(BackendError, match="cannot be read"):
        client.segment(IMAGE, REQUEST, "id")


def test_a_segmentation_larger_than_the_image(stub: Stub, client: Client) -> None:
    buffer = io.BytesIO()
    meta = json.dumps({"words": ["cell"], "model": "m", "model_version": "v", "zooms": [1.0],
                       "seconds": 0.0}).encode()  # fmt: skip
    np.savez_compressed(
        buffer, probabilities=np.zeros((1, 4000, 4000), np.uint8),
        meta=np.frombuffer(meta, np.uint8),
    )  # fmt: skip
    stub.replies["POST"] = lambda path, body: (200, "application/x-npz", buffer.getvalue())
    with pytest.raises(BackendError, match="bytes unpacked"):
        client.segment(IMAGE, REQUEST, "id")


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
