"""One segmentation on its way: read the plane, wait for the backend, ask, follow the progress."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final

from numpy.typing import NDArray

from clsclip.config import InstanceSettings
from clsclip.errors import CancelledError, ClsClipError, InvalidImageError
from clsclip.segmentation import Segmentation
from clsclip.wire import Progress, SegmentRequest
from napari_clsclip._attention_maps import ShownAttention, shown_attention
from napari_clsclip._client import Client
from napari_clsclip._layers import Plane
from napari_clsclip._predicted_objects import PredictedObjects, find_objects
from napari_clsclip._supervisor import BackendSupervisor

PROGRESS_SECONDS: Final = 0.25
"""Time between two questions for the progress."""


class SegmentJob:
    """A request in daemon threads of its own; the Qt thread polls it and never waits.

    The threads are not those of Qt's global pool: napari waits for that pool when it quits, so
    a request to a backend that hangs would keep napari from closing.

    Parameters
    ----------
    supervisor : BackendSupervisor
        Gives the client, and is told when the backend did not answer.
    plane : Plane
        What to segment; read in the thread.
    request : SegmentRequest
    objects : tuple of float and InstanceSettings, optional
        Threshold and settings with which single objects are to be found in the answer, in the
        same thread.
    read : callable, optional
        Gives the pixels of the plane. None: they are read by :func:`read_plane`.

    Attributes
    ----------
    plane, request
        The parameters.
    objects : PredictedObjects or None
        What was found, if it was asked for; only once :attr:`done`.
    attention : ShownAttention or None
        What the [CLS] look at, if it was asked for and the model has it; only once :attr:`done`.
    progress : Progress or None
        The latest answer of the backend.
    """

    def __init__(
        self,
        supervisor: BackendSupervisor,
        plane: Plane,
        request: SegmentRequest,
        objects: tuple[float, InstanceSettings] | None = None,
        read: Callable[[], NDArray[Any]] | None = None,
    ) -> None:
        self.plane: Final = plane
        self.request: Final = request
        self.objects: PredictedObjects | None = None
        self.attention: ShownAttention | None = None
        self.progress: Progress | None = None
        self._wanted = objects
        self._supervisor = supervisor
        self._read = read or partial(read_plane, plane)
        self._id = uuid.uuid4().hex
        self._cancelled = threading.Event()
        self._ended = threading.Event()
        self._outcome: Segmentation | Exception = CancelledError("Not started.")

    def start(self) -> None:
        """Begin; returns at once."""
        threading.Thread(target=self.run, name="clsclip-segment", daemon=True).start()

    def cancel(self) -> None:
        """End the job now. The backend is told in the background, until it has stopped too."""
        self._cancelled.set()

    @property
    def done(self) -> bool:
        """Whether :meth:`result` has something to say."""
        return self._cancelled.is_set() or self._ended.is_set()

    def result(self) -> Segmentation:
        """Return what the backend answered; only once :attr:`done`.

        Raises
        ------
        ClsClipError
            If it failed; ``CancelledError`` after :meth:`cancel`, whatever came of the request.
        """
        if self._cancelled.is_set():
            raise CancelledError("Cancelled.")
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome

    def run(self) -> None:
        """Do it in this thread; returns when the backend has answered or given up."""
        try:
            image = self._read()
            with self._supervisor.asking(self._cancelled.is_set) as client:
                threading.Thread(
                    target=self._follow, args=(client,), name="clsclip-progress", daemon=True
                ).start()
                answer = client.segment(image, self.request, self._id)
            if answer.attention is not None:
                self.attention = shown_attention(answer.attention)
                answer = replace(answer, attention=None)  # which results would keep for long
            if self._wanted is not None:
                self.objects = PredictedObjects.first(answer, find_objects(answer, *self._wanted))
            self._outcome = answer
        except Exception as error:
            self._outcome = error
        finally:
            self._ended.set()

    def _follow(self, client: Client) -> None:
        """Ask for the progress, or tell the backend to stop, until the request has ended."""
        while not self._ended.wait(PROGRESS_SECONDS):
            try:
                if self._cancelled.is_set():
                    client.cancel(self._id)
                else:
                    self.progress = client.progress(self._id)
            except ClsClipError:
                # The request itself tells the user what is wrong with the backend.
                continue


def read_plane(plane: Plane) -> NDArray[Any]:
    """Read a plane; whatever the library behind a lazy image raises becomes our own error."""
    try:
        return plane.read()
    except ClsClipError:
        raise
    except Exception as error:
        raise InvalidImageError(
            f"The image '{plane.image}' could not be read ({type(error).__name__}: {error}). "
            "Check that its file is still there, or open it again."
        ) from error
