"""Which file of a batch to look at next. No Qt."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from clsclip.wire_batch import MOST_FILES, BatchFile, FileOrder, FileStatus
from napari_clsclip._client import Client

_AT_ONCE: Final = 100


def neighbour(
    client: Client,
    batch: str,
    status: FileStatus | None,
    order: FileOrder,
    row: int,
    step: int,
) -> BatchFile | None:
    """Find the next labelled file of a list; None: there is none.

    Parameters
    ----------
    client : Client
    batch : str
    status, order
        Of the list; see :meth:`napari_clsclip._batch_routes.BatchRoutes.files`.
    row : int
        Where to begin; that row is not taken.
    step : 1 or -1
        Forwards or backwards.
    """
    if step > 0:
        start = row + 1
        while True:
            answer = client.batches.files(
                batch, start=start, count=_AT_ONCE, status=status, order=order
            )
            found = next((file for file in answer.files if file.labels), None)
            start += _AT_ONCE
            if found is not None or start >= answer.total:
                return found
    while row > 0:
        first = max(0, row - _AT_ONCE)
        answer = client.batches.files(
            batch, start=first, count=row - first, status=status, order=order
        )
        found = next((file for file in reversed(answer.files) if file.labels), None)
        if found is not None:
            return found
        row = first
    return None


def least_certain(client: Client, batch: str, visited: Collection[int]) -> BatchFile | None:
    """Find the least certain file that is neither accepted nor visited; None: there is none."""
    files = _labelled(client, batch)
    return next((f for f in files if not f.accepted and f.number not in visited), None)


def _labelled(client: Client, batch: str) -> Iterator[BatchFile]:
    start = 0
    while True:
        answer = client.batches.files(
            batch, start=start, count=MOST_FILES, status="done", order="score"
        )
        yield from (file for file in answer.files if file.labels)
        start += MOST_FILES
        if start >= answer.total:
            return
