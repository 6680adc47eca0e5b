"""A server with the routes of the Hugging Face hub that a download uses, for one repository.

It stands in for the hub, which tests cannot ask: what the routes answer, and in which headers, is
what huggingface_hub of the installed version reads. Large files are redirected to another host name
of the same server, as the hub does, and come in parts if parts are asked for. A test can hold the
large file at a gate, cut connections, change what is sent, or take revisions away.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

from clsclip.model.hub_models import HUB_MODELS

PATIENCE = 20.0
MODEL = HUB_MODELS["clipseg"]
WEIGHTS = "model.safetensors"
HEAD_COMMIT = "f" * 40
PIECE = 2**16


def small_files() -> dict[str, bytes]:
    """What a repository holds: all that is needed, and what nobody needs."""
    rng = np.random.default_rng(0)
    needed = {name: f"content of {name}\n".encode() for name in MODEL.files}
    needed[WEIGHTS] = rng.bytes(24 * PIECE)
    return {**needed, "README.md": b"# CLIPSeg", "pytorch_model.bin": b"\x80pickle"}


class HubStub:
    """Serves a repository; the attributes may be changed while it runs.

    Attributes
    ----------
    files : dict of str to bytes
    revisions : dict of str to str
        Commit of each revision that there is.
    gate : threading.Event
        The weights stop in the middle until it is set, as it is at first.
    cut_after : int
        Connections end after so many pieces of the weights; 0: they do not.
    ranges : bool
        Whether parts of files can be had.
    broken : bool
        Whether the weights that are sent are others than those described.
    status : int
        Of all answers; 0: as it should be.
    seen : list of (method, path, range)
    """

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        self.files = files or small_files()
        self.revisions = {MODEL.revisions[0]: MODEL.revisions[0], "main": HEAD_COMMIT}
        self.gate = threading.Event()
        self.gate.set()
        self.at_gate = threading.Event()
        self.cut_after = 0
        self.ranges, self.broken, self.status = True, False, 0
        self.seen: list[tuple[str, str, str]] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                stub.answer(self)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # clients hang up, and so does the server when it cuts

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.content_url = f"http://localhost:{self.server.server_port}"  # no host of the hub
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self._thread.start()

    def stop(self) -> None:
        """End it; does nothing the second time."""
        if not self._thread.is_alive():
            return
        self.gate.set()
        self.server.shutdown()
        self._thread.join(PATIENCE)
        self.server.server_close()

    def fetched(self) -> list[str]:
        """Contents that were asked for: names of files, in the order of the requests."""
        return [path.rpartition("/")[2] for method, path, _ in self.seen if method == "GET"
                and not path.startswith("/api/")]  # fmt: skip

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = unquote(urlsplit(handler.path).path)
        self.seen.append((handler.command, path, handler.headers.get("Range", "")))
        parts = path.strip("/").split("/")
        if self.status:
            _send(handler, self.status, b"no")
        elif path.startswith(f"/api/models/{MODEL.repo}/revision/"):
            self._describe(handler, path.rpartition("/revision/")[2])
        elif path.startswith(f"/{MODEL.repo}/resolve/") and len(parts) == 5:
            self._resolve(handler, revision=parts[3], name=parts[4])
        elif parts[0] == "content":
            self._content(handler, parts[1])
        else:
            _send(handler, 404, b"")

    def _describe(self, handler: BaseHTTPRequestHandler, revision: str) -> None:
        if revision not in self.revisions:
            _send(handler, 404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = []
        for name, content in self.files.items():
            about: dict[str, Any] = {
                "rfilename": name, "size": len(content), "blobId": git_digest(content),
            }  # fmt: skip
            if _is_large(name):
                digest = hashlib.sha256(content).hexdigest()
                about["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
            siblings.append(about)
        body = {"id": MODEL.repo, "sha": self.revisions[revision], "siblings": siblings}
        _send(handler, 200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _resolve(self, handler: BaseHTTPRequestHandler, revision: str, name: str) -> None:
        commit = self.revisions.get(revision)
        if commit is None and revision in self.revisions.values():
            commit = revision
        if commit is None or name not in self.files:
            code = "RevisionNotFound" if commit is None else "EntryNotFound"
            _send(handler, 404, b"", {"X-Error-Code": code})
            return
        content = self.files[name]
        about = {"X-Repo-Commit": commit}
        if _is_large(name):
            about["X-Linked-Etag"] = f'"{hashlib.sha256(content).hexdigest()}"'
            about["X-Linked-Size"] = str(len(content))
            about["Location"] = f"{self.content_url}/content/{name}"
            _send(handler, 302, b"", about)
        else:
            _send(handler, 200, content, {**about, "ETag": f'"{git_digest(content)}"'})

    def _content(self, handler: BaseHTTPRequestHandler, name: str) -> None:
        content = self.files[name]
        if self.broken:
            content = bytes(len(content))
        asked = handler.headers.get("Range") if self.ranges else None
        start = 0 if asked is None else int(asked.removeprefix("bytes=").partition("-")[0])
        if start >= len(content):
            _send(handler, 416, b"")
            return
        handler.send_response(200 if asked is None else 206)
        handler.send_header("Content-Length", str(len(content) - start))
        handler.end_headers()
        pieces = range(start, len(content), PIECE)
        for number, begin in enumerate(pieces):
            if self.cut_after and number == self.cut_after:
                handler.close_connection = True
                return
            if number == len(pieces) // 2 and not self.gate.is_set():
                handler.wfile.flush()
                self.at_gate.set()
                self.gate.wait(PATIENCE)
            handler.wfile.write(content[begin : begin + PIECE])


def _is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))


def git_digest(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _send(
    handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str] | None = None
) -> None:
    handler.send_response(status)
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


@contextmanager
def hub_in_this_process(stub: HubStub, cache: Path) -> Iterator[Path]:
    """Let huggingface_hub of this process ask the stub, with a cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("HF_HUB_OFFLINE", False), ("ENDPOINT", stub.url), ("HF_HUB_CACHE", str(cache)),
            ("HUGGINGFACE_CO_URL_TEMPLATE", stub.url + "/{repo_id}/resolve/{revision}/{filename}"),
        ):  # fmt: skip
            patch.setattr(f"huggingface_hub.constants.{name}", value)
        yield cache


def hub_environment(stub: HubStub, home: Path) -> dict[str, str]:
    """What lets another process do so."""
    return {"HF_ENDPOINT": stub.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
