"""What a review tells the backend, outside the Qt thread: accepted, or not any more."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray

from clsclip.wire_batch import BatchFile
from napari_clsclip._client import Client
from napari_clsclip._review_files import changed_planes


class Sent(NamedTuple):
    """What was accepted.

    Attributes
    ----------
    file : BatchFile
        How it stands now.
    labels : ndarray of int, or None
        A copy of its labels; None if they were surely not changed.
    planes : list of tuple of int
        Positions of the planes in which they were.
    """

    file: BatchFile
    labels: NDArray[Any] | None
    planes: list[tuple[int, ...]]


def send(
    batch: str, file: BatchFile, known: NDArray[Any] | None, layer: Labels, client: Client
) -> Sent:
    """Accept a file of a batch, with its labels if they were changed.

    Parameters
    ----------
    batch : str
        Name of the batch.
    file : BatchFile
    known : ndarray of int, or None
        Its labels before; None if the layer surely still holds them.
    layer : Labels
        The labels as they are now.
    client : Client

    Raises
    ------
    ClsClipError
        Whatever the backend sends; the file is not accepted then.
    """
    labels, planes = None, []
    if known is not None:
        labels = np.array(layer.data)
        planes = changed_planes(known, labels)
    if file.accepted and not planes:
        return Sent(file, labels, planes)  # it is no longer corrected if it is accepted again
    return Sent(
        client.batches.accept(batch, file.number, labels if planes else None), labels, planes
    )


def withdraw(batch: str, number: int, client: Client) -> BatchFile:
    """Say that a file of a batch is not accepted any more.

    Raises
    ------
    ClsClipError
        Whatever the backend sends.
    """
    return client.batches.withdraw(batch, number)
