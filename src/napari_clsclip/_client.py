"""Talk to a backend: one method per route, and typed errors."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Final, Self

import httpx
from numpy.typing import NDArray

from clsclip.errors import (
    BackendError,
    CancelledError,
    ClsClipError,
    InvalidRequestError,
    NotFoundError,
)
from clsclip.segmentation import Segmentation
from clsclip.wire import (
    NPZ_MEDIA_TYPE,
    HealthReport,
    ModelInfo,
    ModelList,
    ModelWindow,
    Progress,
    SegmentRequest,
    encode_segment_request,
)
from clsclip.wire_annotations import (
    LIST_LIMIT,
    Annotation,
    AnnotationList,
    Correction,
    encode_correction,
)
from clsclip.wire_ranking import Embeddings, ImageGain
from clsclip.wire_segmentation import decode_segmentation
from clsclip.wire_training import Activation, Training, TrainingList, TrainingRequest, VersionList
from napari_clsclip._backend_calls import BackendCalls, answer_within
from napari_clsclip._batch_routes import BatchRoutes
from napari_clsclip._download_routes import DownloadRoutes

ANSWER_SECONDS: Final = 15.0
"""How long a backend may take to answer what it answers at once."""

KEEP_SECONDS: Final = 120.0
"""How long a backend may take to write an annotation to disk."""

BEGIN_SECONDS: Final = 120.0
"""How long a backend may take to gather what a training needs, and to begin it."""

_BEGIN: Final = answer_within(BEGIN_SECONDS)
_PATIENT: Final = answer_within(None)
_CHUNK: Final = 2**20
_META_BYTES: Final = 2**20
_CANCEL_SECONDS: Final = 2.0
_CANCEL_AGAIN_SECONDS: Final = 0.05


class Client:
    """A connection to one backend. Any thread may call any method at any time.

    Parameters
    ----------
    url : str
        Address such as ``http://127.0.0.1:8000``; a path is kept as prefix of the routes.
    token : str
        Bearer token of the backend.
    answer_seconds : float
        How long the backend may take to answer anything but :meth:`segment`.

    Attributes
    ----------
    batches : BatchRoutes
        What it asks about labelling folders.
    downloads : DownloadRoutes
        What it asks about models that are fetched once.

    Raises
    ------
    InvalidConfigError
        If ``url`` is no such address.
    AuthenticationError
        If no backend can have this token.
    """

    def __init__(self, url: str, token: str, *, answer_seconds: float = ANSWER_SECONDS) -> None:
        self._calls = BackendCalls(url, token, answer_seconds)
        self.url: Final = self._calls.url
        self.batches: Final = BatchRoutes(self._calls)
        self.downloads: Final = DownloadRoutes(self._calls)
        self._lock = threading.Lock()
        self._unfinished: dict[str, threading.Event] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel what is unfinished, and close all connections."""
        for request_id in tuple(self._unfinished):
            # A backend that cannot be reached has nothing left to cancel.
            with suppress(ClsClipError):
                self.cancel(request_id)
        self._calls.close()

    def health(self) -> HealthReport:
        """State of the backend; answered also while a segmentation runs.

        Raises
        ------
        BackendUnreachableError, AuthenticationError, BackendError
            The last if something else answers, or another version that cannot be understood.
        """
        return self._calls.ask(HealthReport, "GET", "/health")

    def models(self) -> tuple[ModelInfo, ...]:
        """Models that a request may name; the default one comes first."""
        return self._calls.ask(ModelList, "GET", "/models").models

    def window(self, model: str) -> ModelWindow:
        """How much of an image a model looks at at once.

        Raises
        ------
        UnknownModelError, CheckpointError
        """
        return self._calls.ask(ModelWindow, "GET", "/window", params={"model": model})

    def segment(
        self, image: NDArray[Any], request: SegmentRequest, request_id: str
    ) -> Segmentation:
        """Segment one image plane, however long it takes.

        Parameters
        ----------
        image : ndarray, shape (H, W), (H, W, 3) or (H, W, 4)
            bool, integer or floating point.
        request : SegmentRequest
            The words, and how to segment.
        request_id : str
            A name for :meth:`progress` and :meth:`cancel`, unique among unfinished requests,
            e.g. ``uuid.uuid4().hex``.

        Raises
        ------
        CancelledError
            After :meth:`cancel`.
        BackendDiedError
            If the backend goes away before it has answered.
        ClsClipError
            Whatever the backend sends; see :mod:`clsclip.errors`.
        """
        answer = self._post_image("/segment", image, request, request_id)
        max_bytes = _largest_answer(image, request)
        try:
            return decode_segmentation(answer.content, max_bytes)
        except ClsClipError as error:
            raise BackendError(f"The answer of {self.url} cannot be read. {error}") from error

    def gain(self, image: NDArray[Any], request: SegmentRequest, request_id: str) -> ImageGain:
        """Segment one image plane, and say how sure the model is of it.

        Parameters and errors are those of :meth:`segment`.
        """
        return self._calls.read(ImageGain, self._post_image("/gain", image, request, request_id))

    def embeddings(self, model: str, request_id: str) -> Embeddings:
        """What the newest accepted images look like to a model, however long it takes.

        Parameters
        ----------
        model : str
        request_id : str
            As :meth:`segment` takes it.

        Raises
        ------
        CancelledError
            After :meth:`cancel`.
        ClsClipError
            Whatever the backend sends.
        """
        asked = {"request_id": request_id, "model": model}
        with self._in_progress(request_id):
            return self._calls.ask(
                Embeddings, "GET", "/annotations/embeddings", params=asked, timeout=_PATIENT
            )

    def accept(self, correction: Correction, replaces: str = "") -> Annotation:
        """Keep what a person accepted. It survives a crash once this returns.

        Parameters
        ----------
        correction : Correction
        replaces : str
            Id of the version that was corrected further; empty: a new annotation.

        Raises
        ------
        ConflictError
            If somebody else has replaced that version meanwhile.
        ClsClipError
            Whatever else the backend sends; nothing was kept then.
        """
        body = encode_correction(correction, replaces)
        return self._calls.ask(
            Annotation,
            "POST",
            "/annotations",
            content=body,
            headers={"Content-Type": NPZ_MEDIA_TYPE},
            timeout=answer_within(KEEP_SECONDS),
        )

    def annotations(
        self, word: str = "", *, offset: int = 0, limit: int = LIST_LIMIT
    ) -> AnnotationList:
        """What is in the backend's annotation store: latest versions, newest first.

        Parameters
        ----------
        word : str
            Only annotations with this word; empty: all.
        offset, limit : int
            Which part of the list; ``limit`` is at most ``LIST_LIMIT``.
        """
        asked = {"word": word, "offset": offset, "limit": limit}
        return self._calls.ask(AnnotationList, "GET", "/annotations", params=asked)

    def trainings(self) -> TrainingList:
        """All trainings, the newest first, without their curves."""
        return self._calls.ask(TrainingList, "GET", "/trainings")

    def training(self, name: str) -> Training:
        """How one training stands, with its curve.

        Raises
        ------
        NotFoundError
            If there is none of this name.
        """
        return self._calls.ask(Training, "GET", f"/trainings/{name}")

    def begin_training(self, request: TrainingRequest) -> Training:
        """Begin to learn from what was accepted; it goes on without this client.

        Raises
        ------
        ClsClipError
            Whatever the backend sends, e.g. because another training runs.
        """
        return self._calls.send(Training, "POST", "/trainings", request, timeout=_BEGIN)

    def resume_training(self, name: str) -> Training:
        """Let an interrupted training go on from its last checkpoint; as :meth:`begin_training`."""
        return self._calls.ask(Training, "POST", f"/trainings/{name}/resume", timeout=_BEGIN)

    def cancel_training(self, name: str) -> Training:
        """Ask a training to end with what is best so far; it may take a moment until it has."""
        return self._calls.ask(Training, "DELETE", f"/trainings/{name}")

    def versions(self) -> VersionList:
        """The versions of the models, and which of them is the active one."""
        return self._calls.ask(VersionList, "GET", "/versions")

    def activate(self, name: str) -> VersionList:
        """Make a version the one that is used unless another one is named.

        Raises
        ------
        NotFoundError
            If there is none of this name.
        """
        return self._calls.send(VersionList, "PUT", "/versions/active", Activation(name=name))

    def progress(self, request_id: str) -> Progress | None:
        """How far a request is; None if it has not arrived yet or has ended."""
        try:
            return self._calls.ask(Progress, "GET", f"/segment/{request_id}")
        except NotFoundError:
            return None

    def cancel(self, request_id: str) -> None:
        """End a request, also one that is still being sent. Does nothing if it has ended."""
        sending = self._unfinished.get(request_id)
        if sending is not None:
            sending.set()
        deadline = time.monotonic() + _CANCEL_SECONDS
        while True:
            try:
                self._calls.call("DELETE", f"/segment/{request_id}")
                return
            except NotFoundError:
                # It has ended, or this call has overtaken it on the way.
                if request_id not in self._unfinished or time.monotonic() > deadline:
                    return
            time.sleep(_CANCEL_AGAIN_SECONDS)

    def _post_image(
        self, path: str, image: NDArray[Any], request: SegmentRequest, request_id: str
    ) -> httpx.Response:
        with self._in_progress(request_id) as cancelled:
            body = encode_segment_request(image, request)
            return self._calls.call(
                "POST",
                path,
                params={"request_id": request_id},
                content=_chunks(body, cancelled),
                headers={"Content-Type": NPZ_MEDIA_TYPE, "Content-Length": str(len(body))},
                timeout=_PATIENT,
            )

    @contextmanager
    def _in_progress(self, request_id: str) -> Iterator[threading.Event]:
        """A request that can be cancelled; the event says that it was."""
        with self._lock:
            if request_id in self._unfinished:
                raise InvalidRequestError(f"Request '{request_id}' is unfinished; use another id.")
            cancelled = self._unfinished[request_id] = threading.Event()
        try:
            yield cancelled
        finally:
            del self._unfinished[request_id]


def _largest_answer(image: NDArray[Any], request: SegmentRequest) -> int:
    """Bytes: of each word a probability and a region per pixel, and what the [CLS] look at."""
    words, pixels = len(request.words), math.prod(image.shape[:2])
    per_pixel = words * (1 + 2) + (2 * (1 + words) if request.attention else 0)
    return per_pixel * pixels + _META_BYTES


def _chunks(body: bytes, cancelled: threading.Event) -> Iterator[bytes]:
    """Pieces of a request, until it is cancelled."""
    view = memoryview(body)
    for start in range(0, len(view), _CHUNK):
        if cancelled.is_set():
            raise CancelledError("The segmentation was cancelled.")
        yield bytes(view[start : start + _CHUNK])
