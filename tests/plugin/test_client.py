from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from clsclip.errors import (
    AuthenticationError,
    BackendError,
    BackendUnreachableError,
    BusyError,
    ClsClipError,
    DeviceError,
    InvalidConfigError,
    InvalidImageError,
    NotFoundError,
)
from clsclip.segmentation import AttentionMaps, Segmentation
from clsclip.wire import error_json
from clsclip.wire_segmentation import encode_segmentation
from clsclip.wire_training import TrainingRequest
from napari_clsclip._client import Client
from stub_backend import ANSWER, GONE, HEALTH, IMAGE, JSON, REQUEST, Stub
from stub_training import TrainingStub

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


def test_largest_answers_fit(stub: Stub, client: Client) -> None:
    image = np.zeros((700, 900), np.uint8)  # one channel, so that the answer is far larger
    plane = np.zeros((1, *image.shape), np.uint8)
    maps = AttentionMaps(("cell",), (9,), plane.astype(np.float16), plane[None].astype(np.float16))
    answer = Segmentation(
        plane, ("cell",), "mini", "v", (1.0,), 0.5, owners=plane.astype(np.uint16), attention=maps
    )
    sent = [encode_segmentation(each) for each in (answer, replace(answer, attention=None))]
    stub.replies["POST"] = lambda path, body: (200, "application/x-npz", sent.pop(0))
    asked = REQUEST.model_copy(update={"attention": True})
    assert client.segment(image, asked, "id").attention is not None
    assert client.segment(image, REQUEST, "id").owners is not None


def test_trainings_and_versions_have_their_routes() -> None:
    server = TrainingStub()
    request = TrainingRequest(words=("rosette",), minutes=2.0, note="n")
    try:
        with Client(server.url, "secret") as client:
            begun = client.begin_training(request)
            assert server.asked == request
            assert client.trainings().trainings == (begun,)
            assert client.training(begun.name) == begun
            assert client.cancel_training(begun.name).state == "cancelled"
            assert client.resume_training(begun.name).state == "running"
            server.end(begun.name, promoted=False)
            assert client.versions().active == "mini"
            assert client.activate(begun.name).back == "mini"
            with pytest.raises(NotFoundError, match="'unknown'"):
                client.activate("unknown")
    finally:
        server.stop()
    assert [seen[:2] for seen in server.seen] == [
        ("POST", "/v1/trainings"),
        ("GET", "/v1/trainings"),
        ("GET", "/v1/trainings/mini-v2"),
        ("DELETE", "/v1/trainings/mini-v2"),
        ("POST", "/v1/trainings/mini-v2/resume"),
        ("GET", "/v1/versions"),
        ("PUT", "/v1/versions/active"),
        ("PUT", "/v1/versions/active"),
    ]


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
