"""Reading ahead of the model, and writing behind it, in a thread each."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Final, Generic, TypeVar

READ_AHEAD: Final = 4
"""Pieces that are read before they are needed, at most."""

READ_AHEAD_BYTES: Final = 256 * 2**20
"""Memory that they take, at most; one piece is read ahead however large it is."""

WRITE_BEHIND: Final = 2
"""Pieces that wait to be written, at most."""

T = TypeVar("T")


def read_ahead(
    items: Iterable[T], size: Callable[[T], int], *,
    most: int = READ_AHEAD, most_bytes: int = READ_AHEAD_BYTES,
) -> Generator[T, None, None]:  # fmt: skip
    """The same items, made in a thread before they are asked for.

    The thread ends when the iterator is closed; what it waits for then is finished first.

    Parameters
    ----------
    items : iterable
        Iterated over in the thread only. What it raises is raised by this iterator, after the
        items before it.
    size : callable
        Bytes of an item.
    most, most_bytes : int
        How many items, of how many bytes together, may wait.
    """
    ready = _Shelf(size, most, most_bytes)

    def produce() -> None:
        try:
            for item in items:
                if not ready.put(item):
                    return
            ready.end(None)
        except BaseException as error:  # handed to the consumer, who raises it
            ready.end(error)

    thread = threading.Thread(target=produce, name="read ahead", daemon=True)
    thread.start()
    try:
        while (taken := ready.take()) is not None:
            yield taken[0]
            del taken
    finally:
        ready.close()
        thread.join()


class _Shelf(Generic[T]):
    """A queue that is full when its items take too much memory."""

    def __init__(self, size: Callable[[T], int], most: int, most_bytes: int) -> None:
        self._size, self._most, self._most_bytes = size, most, most_bytes
        self._items: deque[T] = deque()
        self._bytes = 0
        self._closed = self._ended = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def _full(self, more: int) -> bool:
        if not self._items:
            return False
        return len(self._items) >= self._most or self._bytes + more > self._most_bytes

    def put(self, item: T) -> bool:
        """Add an item when there is room; False where nobody wants it any more."""
        size = self._size(item)
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._full(size))
            if self._closed:
                return False
            self._items.append(item)
            self._bytes += size
            self._changed.notify_all()
            return True

    def take(self) -> tuple[T] | None:
        """The next item when there is one; None after the last one."""
        with self._changed:
            # with time-outs, because Ctrl+C does not end a wait without one everywhere
            while not self._items and not self._ended:
                self._changed.wait(0.5)
            if self._items:
                item = self._items.popleft()
                self._bytes -= self._size(item)
                self._changed.notify_all()
                return (item,)
            if self._error is not None:
                raise self._error
            return None

    def end(self, error: BaseException | None) -> None:
        """No item comes any more."""
        with self._changed:
            self._error, self._ended = error, True
            self._changed.notify_all()

    def close(self) -> None:
        """No item is wanted any more."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()


class WriteBehind:
    """Calls functions in a thread, in order; use it in a ``with`` statement.

    At its end, all that was added is done, unless an earlier call raised.

    Parameters
    ----------
    most : int
        Calls that may wait.
    """

    def __init__(self, most: int = WRITE_BEHIND) -> None:
        self._most = most
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="write behind")
        self._pending: deque[Future[None]] = deque()

    def add(self, call: Callable[[], None]) -> None:
        """Have something done, after what was added before.

        Waits as long as too many calls wait, and raises what an earlier call raised.
        """
        self._settle(self._most)
        self._pending.append(self._thread.submit(call))

    def _settle(self, left: int) -> None:
        while len(self._pending) > left or (self._pending and self._pending[0].done()):
            try:
                self._pending.popleft().result()
            except BaseException:
                for each in self._pending:
                    each.cancel()
                self._pending.clear()
                raise

    def __enter__(self) -> WriteBehind:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._settle(0)
        finally:
            self._thread.shutdown()
