"""Work with the client of a backend, in a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from napari_clsclip._client import Client
from napari_clsclip._supervisor import BackendSupervisor
from napari_clsclip._thread_job import ThreadJob

_T = TypeVar("_T")


class BackendJob(ThreadJob[_T]):
    """Waits for the backend and asks it something; the Qt thread polls it.

    Parameters
    ----------
    supervisor : BackendSupervisor
    closing : threading.Event
        Set when nobody waits for the answer any more. What has been ordered happens.
    work : callable
        Called in the thread with the client of the backend.
    name : str
        Of the thread.
    """

    def __init__(
        self,
        supervisor: BackendSupervisor,
        closing: threading.Event,
        work: Callable[[Client], _T],
        name: str,
    ) -> None:
        def ask() -> _T:
            with supervisor.asking(closing.is_set) as client:
                return work(client)

        super().__init__(ask, name)
