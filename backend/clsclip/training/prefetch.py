"""Prepare batches in a thread while the network computes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator
from typing import TypeVar, cast

T = TypeVar("T")


def prefetch(make: Callable[[], T], ahead: int) -> Generator[T, None, None]:
    """Endless results of a function that one thread calls.

    The thread ends when the iterator is closed or no longer referenced.

    Parameters
    ----------
    make : callable
        Runs in the thread only. What it raises is raised by the iterator, after the results
        before it.
    ahead : int
        Results to keep ready.
    """
    ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(ahead)
    stop = threading.Event()

    def put(item: tuple[T | None, BaseException | None]) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.2)
            except queue.Full:
                continue

    def produce() -> None:
        try:
            while not stop.is_set():
                put((make(), None))
        except BaseException as error:  # handed to the consumer, who raises it
            put((None, error))

    thread = threading.Thread(target=produce, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            result, error = ready.get()
            if error is not None:
                raise error
            yield cast(T, result)
    finally:
        stop.set()
        thread.join()
