"""Things of the backend that are fetched as they come into view: pages of files, thumbnails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, Final, Generic, TypeVar

from qtpy.QtCore import QObject, QTimer, Signal

from napari_clsclip._backend_job import BackendJob
from napari_clsclip._client import Client
from napari_clsclip._connection import BackendConnection
from napari_clsclip._thread_job import Errand

_MOST_WANTED: Final = 200
"""What was wanted longest ago has been scrolled out of view."""

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")


class Fetcher(QObject, Generic[_K, _V]):
    """Fetches what is wanted, the latest first, a few at a time, in threads.

    Parameters
    ----------
    connection : BackendConnection
    parent : QObject
    fetch : callable
        Called in a thread with the client and a key.
    at_once : int
        How many are fetched before they are handed over.

    Attributes
    ----------
    fetched : Signal(key, value)
    failed : Signal(str)
        Why something could not be fetched, for the user. It is wanted no more.
    """

    fetched = Signal(object, object)
    failed = Signal(str)

    def __init__(
        self,
        connection: BackendConnection,
        parent: QObject,
        fetch: Callable[[Client, _K], _V],
        at_once: int,
    ) -> None:
        super().__init__(parent)
        self._supervisor = connection.supervisor
        self._fetch = fetch
        self._at_once = at_once
        self._wanted: dict[_K, None] = {}
        self._fetching: frozenset[_K] = frozenset()
        self._closing = threading.Event()
        self.destroyed.connect(self._closing.set)
        self._errand = Errand(self)
        self._soon = QTimer(self, singleShot=True, interval=0)
        self._soon.timeout.connect(self._start)

    def want(self, key: _K) -> None:
        """Ask for something; returns at once. What is on its way is not asked for again."""
        if key in self._fetching:
            return
        self._wanted.pop(key, None)
        self._wanted[key] = None  # the last one
        while len(self._wanted) > _MOST_WANTED:
            self._wanted.pop(next(iter(self._wanted)))
        if not self._errand.busy:
            self._soon.start()

    def forget(self) -> None:
        """Want nothing any more, also not what is on its way."""
        self._wanted.clear()
        self._fetching = frozenset()
        self._errand.forget()

    def _start(self) -> None:
        if self._errand.busy or not self._wanted:
            return
        keys = [self._wanted.popitem()[0] for _ in range(min(self._at_once, len(self._wanted)))]
        self._fetching = frozenset(keys)
        work = partial(_fetch_all, self._fetch, keys)
        job = BackendJob(self._supervisor, self._closing, work, "clsclip-fetch")
        self._errand.run(job, self._take, self._refuse)

    def _take(self, values: Sequence[tuple[_K, _V]]) -> None:
        self._fetching = frozenset()
        for key, value in values:
            self.fetched.emit(key, value)
        self._start()

    def _refuse(self, message: str) -> None:
        self._fetching = frozenset()
        self._wanted.clear()
        self.failed.emit(message)


def _fetch_all(
    fetch: Callable[[Client, Any], _V], keys: Sequence[Any], client: Client
) -> list[tuple[Any, _V]]:
    return [(key, fetch(client, key)) for key in keys]
