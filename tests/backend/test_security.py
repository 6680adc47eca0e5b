from __future__ import annotations

import io
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from clsclip.service import security
from clsclip.wire import SegmentRequest

TOKEN = "a-token-for-tests"
PATIENCE = 10.0
MB = 2**20


@pytest.fixture
def service(serve: Any, gated: Any) -> Any:
    return serve(gated, max_request_mb=1, queue_size=2, allowed_hosts=("gpu-server", "::abcd"))


def test_every_route_asks_for_the_token(service: Any) -> None:
    paths = service.http.get("/openapi.json").json()["paths"]
    routes = [(method, path) for path, methods in paths.items() for method in methods]
    assert len(routes) == 32
    for method, template in routes:
        path = template.replace("{request_id}", "a").replace("{name}", "a")
        path = path.replace("{number}", "0")
        for headers in ({}, {"Authorization": f"Basic {TOKEN}"}, {"Authorization": "Bearer"}):
            answer = httpx.request(
                method, f"http://127.0.0.1:{service.port}{path}", headers=headers, trust_env=False
            )
            assert answer.status_code == 401, (method, path)
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.json()["error"]["code"] == "authentication"
            assert "--token-file" in answer.json()["error"]["message"]


@pytest.mark.parametrize("wrong", ["x", TOKEN[:-1], TOKEN + "x", TOKEN.upper()])
def test_a_wrong_token_is_refused(service: Any, wrong: str) -> None:
    answer = service.http.get("/v1/health", headers={"Authorization": f"Bearer {wrong}"})
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "authentication"
    assert TOKEN not in answer.text


def test_a_token_that_is_no_ascii_is_refused(service: Any) -> None:
    answer = service.http.get("/v1/health", headers={"Authorization": "Bearer é".encode("latin1")})
    assert answer.status_code == 401


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:1234", "localhost:99", "LOCALHOST", "gpu-server:8000", "[::1]:80",
     "[::abcd]"],
)  # fmt: skip
def test_known_hosts(service: Any, host: str) -> None:
    assert service.http.get("/v1/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example:80", "evil.example:127", "localhost@evil.example",
     "[::2]", "[", "", "xlocalhost", "localhost.", "127.0.0.1, evil.example"],
)  # fmt: skip
def test_unknown_hosts(service: Any, host: str) -> None:
    for path in ("/v1/health", "/docs", "/openapi.json"):
        answer = service.http.get(path, headers={"Host": host})
        assert answer.status_code == 422
        assert answer.json()["error"]["code"] == "invalid_request"
        assert "--allowed-hosts" in answer.json()["error"]["message"]


def test_a_web_page_gets_no_permission(service: Any) -> None:
    preflight = service.http.options(
        "/v1/segment",
        headers={
            "Origin": "https://evil.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization",
        },
    )
    answer = service.http.get("/v1/health", headers={"Origin": "https://evil.example"})
    assert preflight.status_code == 405
    assert not [name for name in (*preflight.headers, *answer.headers)
                if name.startswith("access-control")]  # fmt: skip


class RawPost:
    """A POST whose every byte the test decides."""

    def __init__(self, port: int, *headers: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        lines = (
            "POST /v1/segment?request_id=raw HTTP/1.1",
            "Host: 127.0.0.1",
            f"Authorization: Bearer {TOKEN}",
            *headers,
        )
        self.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())

    def send_chunk(self, content: bytes) -> None:
        self.socket.sendall(f"{len(content):x}\r\n".encode() + content + b"\r\n")

    def answer(self) -> tuple[int, dict[str, Any]]:
        """Status and JSON; the connection need not end."""
        received = b""
        while b"\r\n\r\n" not in received or not received.rstrip().endswith(b"}"):
            more = self.socket.recv(65536)
            assert more, f"the connection ended after {received!r}"
            received += more
        return int(received.split()[1]), json.loads(received.partition(b"\r\n\r\n")[2])


@pytest.fixture
def raw_post(service: Any) -> Iterator[Any]:
    posts: list[RawPost] = []

    def start(*headers: str) -> RawPost:
        posts.append(RawPost(service.port, *headers))
        return posts[-1]

    yield start
    for post in posts:
        post.socket.close()


def assert_too_large(answer: tuple[int, dict[str, Any]]) -> None:
    status, body = answer
    assert (status, body["error"]["code"]) == (413, "request_too_large")
    assert "1 MiB" in body["error"]["message"]
    assert "--max-request-mb" in body["error"]["message"]


def test_a_declared_length_is_refused_before_the_body(raw_post: Any) -> None:
    assert_too_large(raw_post(f"Content-Length: {10**12}").answer())


def test_a_body_of_no_declared_length_is_stopped_at_the_limit(raw_post: Any) -> None:
    post = raw_post("Transfer-Encoding: chunked")
    for _ in range(20):
        post.send_chunk(bytes(MB // 16))  # and never a last chunk
    assert_too_large(post.answer())


def test_a_request_of_exactly_the_limit_is_read(service: Any) -> None:
    assert service.post("a", bytes(MB)).json()["error"]["code"] == "invalid_request"
    assert service.post("b", bytes(MB + 1)).json()["error"]["code"] == "request_too_large"


def test_a_whole_body_that_is_too_large_still_gets_its_answer(service: Any) -> None:
    # A server that closed the connection at once would reset it, and the answer with it.
    for number in range(5):
        answer = service.post(f"r{number}", bytes(40 * MB))
        assert answer.json()["error"]["code"] == "request_too_large"


def test_what_it_holds_unpacked_counts_too(service: Any) -> None:
    buffer = io.BytesIO()
    meta = SegmentRequest(words=("cell",)).model_dump_json().encode()
    np.savez_compressed(buffer, image=np.zeros((4096, 4096)), meta=np.frombuffer(meta, np.uint8))
    assert len(buffer.getvalue()) < MB
    answer = service.post("bomb", buffer.getvalue())
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


def test_an_upload_that_stalls_gives_its_place_back(
    service: Any, raw_post: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(security, "UPLOAD_STALL_SECONDS", 0.3)
    post = raw_post("Content-Length: 1000")
    post.socket.sendall(b"PK")
    status, body = post.answer()
    assert (status, body["error"]["code"]) == (422, "invalid_request")
    assert service.jobs.counts() == (0, 0)


def test_an_upload_that_is_slow_but_steady_is_read(
    service: Any, raw_post: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(security, "UPLOAD_STALL_SECONDS", 1.0)
    post = raw_post("Content-Length: 6")
    for _ in range(6):
        time.sleep(0.3)
        post.socket.sendall(b"x")
    assert "readable .npz" in post.answer()[1]["error"]["message"]


def test_an_upload_whose_client_goes_away_gives_its_place_back(service: Any, raw_post: Any) -> None:
    post = raw_post("Content-Length: 1000")
    deadline = time.monotonic() + PATIENCE
    while service.jobs.counts() != (1, 0):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    post.socket.close()
    while service.jobs.counts() != (0, 0):
        assert time.monotonic() < deadline
        time.sleep(0.01)
