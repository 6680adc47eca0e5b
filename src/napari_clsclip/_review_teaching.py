"""Corrections of a review on their way to the annotation store, so that the model learns them."""

from __future__ import annotations

import threading
from functools import partial
from typing import Final

from qtpy.QtCore import QObject, Signal

from clsclip.errors import ConflictError
from clsclip.wire_annotations import Annotation
from napari_clsclip._acceptance import Acceptance
from napari_clsclip._backend_job import BackendJob
from napari_clsclip._client import Client
from napari_clsclip._connection import BackendConnection
from napari_clsclip._thread_job import Errand

_NOT_KEPT: Final = (
    "The labels are accepted, but were not kept as an example to learn from. {why} They will be "
    "offered again with the next correction."
)

_Place = tuple[str, int, tuple[int, ...]]
"""Batch, file, and plane of it."""


class Teaching(QObject):
    """Offers accepted planes to the annotation store, one after the other.

    Parameters
    ----------
    connection : BackendConnection
    parent : QObject

    Attributes
    ----------
    kept : Signal
        The store holds more than before.
    failed : Signal(str)
        Why something was not kept, for the user.
    """

    kept = Signal()
    failed = Signal(str)

    def __init__(self, connection: BackendConnection, parent: QObject) -> None:
        super().__init__(parent)
        self._supervisor = connection.supervisor
        self._closing = threading.Event()
        self.destroyed.connect(self._closing.set)
        self._errand = Errand(self)
        self._waiting: dict[_Place, Acceptance] = {}
        self._versions: dict[_Place, str] = {}

    @property
    def busy(self) -> bool:
        """Whether something is on its way."""
        return self._errand.busy

    def offer(self, file: tuple[str, int], examples: list[Acceptance]) -> None:
        """Keep planes of a file; returns at once.

        Parameters
        ----------
        file : (str, int)
            Batch, and number of the file in it; a later version replaces an earlier one of it.
        examples : list of Acceptance
        """
        for example in examples:
            self._waiting[(*file, example.plane.index.position)] = example
        self._start()

    def _start(self) -> None:
        if self._errand.busy or not self._waiting:
            return
        place, example = next(iter(self._waiting.items()))
        work = partial(_keep, example, self._versions.get(place, ""))
        job = BackendJob(self._supervisor, self._closing, work, "clsclip-teach")
        self._errand.run(job, partial(self._take, place, example), self._refuse)

    def _take(self, place: _Place, example: Acceptance, kept: Annotation) -> None:
        self._versions[place] = kept.id
        if self._waiting.get(place) is example:
            del self._waiting[place]
        self.kept.emit()
        self._start()

    def _refuse(self, message: str) -> None:
        self.failed.emit(_NOT_KEPT.format(why=message))


def _keep(example: Acceptance, replaces: str, client: Client) -> Annotation:
    correction = example.correction()
    try:
        return client.accept(correction, replaces)
    except ConflictError:  # somebody else has corrected it further: this is one of its own
        return client.accept(correction)
