"""A server that answers as a test tells it, and segmentations in threads."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from clsclip.errors import (
    ClsClipError,
    NotFoundError,
)
from clsclip.segmentation import Segmentation
from clsclip.wire import (
    HealthReport,
    SegmentRequest,
    error_json,
)
from clsclip.wire_segmentation import encode_segmentation
from napari_clsclip._client import Client
from napari_clsclip._supervisor import BackendSupervisor, RemoteAddress

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

            do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

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


class OneClient(BackendSupervisor):
    """A supervisor whose backend, of another machine, is always ready."""

    def __init__(self, client: Client) -> None:
        super().__init__(lambda _: None, RemoteAddress("http://elsewhere:1", "token"))
        self.client = client
        self.suspected = 0

    def ready_client(self, cancelled: Callable[[], bool]) -> Client:
        return self.client

    def suspect(self) -> None:
        self.suspected += 1
