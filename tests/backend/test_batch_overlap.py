"""Reading ahead within bounds, and writing behind in order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from clsclip.batch.overlap import WriteBehind, read_ahead
from waiting import eventually


class Made:
    """Counts what was made, and in which thread."""

    def __init__(self) -> None:
        self.items: list[int] = []
        self.threads: set[str] = set()

    def __call__(self, sizes: list[int]) -> Iterator[int]:
        for size in sizes:
            self.items.append(size)
            self.threads.add(threading.current_thread().name)
            yield size


def test_items_are_made_ahead_within_bounds() -> None:
    made = Made()
    with closing(read_ahead(made([1] * 9), lambda size: size, most=3, most_bytes=99)) as items:
        assert next(items) == 1
        eventually(lambda: len(made.items) == 5)  # one taken, three wait, one finds no room
        assert list(items) == [1] * 8
    assert made.threads == {"read ahead"}
    made = Made()
    with closing(read_ahead(made([1, 50, 70, 1]), lambda n: n, most=9, most_bytes=60)) as items:
        assert next(items) == 1
        eventually(lambda: len(made.items) == 3)
        assert list(items) == [50, 70, 1]  # the one that is too large for itself comes, too


def test_what_reading_raises_comes_after_what_was_read() -> None:
    def broken() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("cannot go on")

    items = read_ahead(broken(), lambda size: size)
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(ValueError, match="cannot go on"):
        next(items)


def test_a_closed_reader_ends() -> None:
    made = Made()
    items = read_ahead(made([1] * 1000), lambda size: size, most=2)
    next(items)
    items.close()
    assert len(made.items) <= 5
    assert "read ahead" not in {thread.name for thread in threading.enumerate()}


def test_writes_happen_in_order_behind_and_all_before_the_end() -> None:
    gate, done = threading.Event(), list[int]()

    def write(number: int) -> None:
        assert gate.wait(30)
        done.append(number)

    with WriteBehind(most=2) as behind:
        for number in range(3):
            behind.add(lambda number=number: write(number))
        assert done == []
        adding = threading.Thread(target=lambda: behind.add(lambda: write(3)))
        adding.start()
        adding.join(0.2)
        assert adding.is_alive()  # no room
        gate.set()
        adding.join(30)
    assert done == [0, 1, 2, 3]


def test_a_write_that_fails_ends_the_others() -> None:
    def full() -> None:
        raise OSError("the disk is full")

    later = list[int]()

    def write() -> None:
        with WriteBehind(most=0) as behind:
            behind.add(full)
            behind.add(lambda: later.append(1))

    with pytest.raises(OSError, match="disk is full"):
        write()
    assert later == []
