"""What a client asks about models that are fetched once: one method per route."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from clsclip.errors import NotFoundError
from clsclip.wire_models import ModelDownload
from napari_clsclip._backend_calls import BackendCalls, answer_within

BEGIN_SECONDS: Final = 60.0
"""How long a backend may take to end an earlier download and to begin a new one."""


class DownloadRoutes:
    """The downloads of one backend. Any thread may call any method at any time.

    Parameters
    ----------
    calls : BackendCalls
    """

    def __init__(self, calls: BackendCalls) -> None:
        self._calls = calls

    def get(self, model: str) -> ModelDownload | None:
        """How the download of a model stands; None: it is none that can be downloaded."""
        try:
            return self._calls.ask(ModelDownload, "GET", _path(model))
        except NotFoundError:
            return None

    def begin(self, model: str) -> ModelDownload:
        """Fetch a model; it goes on without this client.

        Raises
        ------
        ClsClipError
            Whatever the backend sends.
        """
        timeout = answer_within(BEGIN_SECONDS)
        return self._calls.ask(ModelDownload, "POST", _path(model), timeout=timeout)

    def cancel(self, model: str) -> ModelDownload:
        """End a download; what has come is kept."""
        return self._calls.ask(ModelDownload, "DELETE", _path(model))


def _path(model: str) -> str:
    return f"/models/{quote(model, safe='')}/download"
