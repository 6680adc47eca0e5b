"""Downloads of models: one thread each, beside all other work. The routes of wire_models."""

from __future__ import annotations

import logging
import threading
from typing import Final

from fastapi import APIRouter

from clsclip.errors import BusyError, CancelledError, ClsClipError
from clsclip.model.hub_models import cached_folder, download, hub_model
from clsclip.service.answers import error_answers
from clsclip.service.jobs import unexpected_error
from clsclip.wire_models import ModelDownload, State

STOP_SECONDS: Final = 15.0
"""How long a download that was cancelled may take to hear of it before it is begun anew."""

_log = logging.getLogger(__name__)


class Downloads:
    """What is being fetched, and how the last download of each model ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: dict[str, _Download] = {}

    def start(self, name: str) -> ModelDownload:
        """Fetch a model, unless it is there or on its way.

        Raises
        ------
        UnknownModelError
            If it is none of the hub.
        BusyError
            If an earlier download of it was cancelled and has not ended yet.
        """
        with self._lock:
            here = cached_folder(name) is not None
            before = self._latest.get(name)
            if not here and (before is None or before.state != "running"):
                if before is not None and not before.join(STOP_SECONDS):
                    raise BusyError(
                        f"The earlier download of '{name}' has not ended yet. Try again soon."
                    )
                self._latest[name] = _Download(name)
        return self.get(name)

    def get(self, name: str) -> ModelDownload:
        """How the download of a model stands.

        Raises
        ------
        UnknownModelError
        """
        size, latest = hub_model(name).size, self._latest.get(name)
        if latest is not None and latest.state == "running":
            return _told(name, "running", latest.done, latest.total)
        if cached_folder(name) is not None:
            size = size if latest is None else latest.total
            return _told(name, "done", size, size)
        if latest is None or latest.state == "done":  # somebody has removed it since
            return _told(name, "absent", 0, size)
        return _told(name, latest.state, latest.done, latest.total, latest.reason)

    def cancel(self, name: str) -> ModelDownload:
        """End a download; what has come is kept. Does nothing if there is none.

        Raises
        ------
        UnknownModelError
        """
        latest = self._latest.get(name)
        if latest is not None:
            latest.cancel()
        return self.get(name)

    def close(self) -> None:
        """End all downloads."""
        for latest in self._latest.values():
            latest.cancel()


class _Download:
    """One download in a thread of its own; it is over for all others once it is cancelled."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.state: State = "running"
        self.done, self.total = 0, hub_model(name).size
        self.reason = ""
        self._cancelled = threading.Event()
        # a daemon: a server that does not answer must not keep the backend from ending
        self._thread = threading.Thread(target=self._run, name=f"download-{name}", daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """End it if it runs."""
        if self.state == "running":
            self.state = "cancelled"
        self._cancelled.set()

    def join(self, seconds: float) -> bool:
        """Wait until nothing is done any more; false if that takes longer."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            download(self.name, self._follow, self._cancelled)
        except CancelledError:
            self.state = "cancelled"
        except ClsClipError as error:
            self._fail(error)
        except Exception as error:
            _log.exception("The download of '%s' failed", self.name)
            self._fail(unexpected_error(error))
        else:
            self.done, self.state = self.total, "done"

    def _follow(self, done: int, total: int) -> None:
        self.done, self.total = done, total

    def _fail(self, error: ClsClipError) -> None:
        if not self._cancelled.is_set():
            _log.warning("%s", error.message)
            self.reason, self.state = error.message, "failed"


def _told(name: str, state: State, done: int, total: int, reason: str = "") -> ModelDownload:
    model = hub_model(name)
    return ModelDownload(
        name=name, state=state, done=done, total=total, licence=model.licence, source=model.repo,
        reason=reason,
    )  # fmt: skip


def download_routes(downloads: Downloads) -> APIRouter:
    """Routes that fetch models of the hub. They convert and delegate."""
    router = APIRouter()

    @router.get("/models/{name}/download", responses=error_answers(404))
    def stands(name: str) -> ModelDownload:
        """How the download of a model stands."""
        return downloads.get(name)

    @router.post("/models/{name}/download", status_code=202, responses=error_answers(404, 503))
    def start(name: str) -> ModelDownload:
        """Fetch a model; it goes on where an earlier download ended."""
        return downloads.start(name)

    @router.delete("/models/{name}/download", responses=error_answers(404))
    def cancel(name: str) -> ModelDownload:
        """End a download; what has come is kept."""
        return downloads.cancel(name)

    return router
