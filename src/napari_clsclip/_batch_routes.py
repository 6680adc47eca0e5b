"""What a client asks about labelling folders: one method per route."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from numpy.typing import NDArray

from clsclip.errors import ClsClipError, InvalidRequestError, NotFoundError
from clsclip.wire import NPZ_MEDIA_TYPE
from clsclip.wire_batch import (
    Batch,
    BatchCheck,
    BatchCopies,
    BatchFile,
    BatchFiles,
    BatchList,
    BatchPreview,
    BatchRequest,
    FileOrder,
    FileStatus,
    ImageCopy,
    encode_review,
)
from napari_clsclip._backend_calls import BackendCalls, answer_within

PREVIEW_SECONDS: Final = 600.0
"""How long a backend may take to look at a folder, and to label one file of it."""

CHANGE_SECONDS: Final = 120.0
"""How long a backend may take to begin a batch, or to write the files of a review."""

_PREVIEW: Final = answer_within(PREVIEW_SECONDS)
_CHANGE: Final = answer_within(CHANGE_SECONDS)


class BatchRoutes:
    """The batches of one backend. Any thread may call any method at any time.

    All methods raise whatever the backend sends, see :mod:`clsclip.errors`; ``NotFoundError`` if
    there is no batch of this name, or no file of this number in it.

    Parameters
    ----------
    calls : BackendCalls
    """

    def __init__(self, calls: BackendCalls) -> None:
        self._calls = calls

    def preview(self, request: BatchRequest) -> BatchPreview:
        """Say what a batch would do; it may take as long as one file does."""
        with _all_known(request):
            return self._calls.send(
                BatchPreview, "POST", "/batches/preview", request, timeout=_PREVIEW
            )

    def check(self, request: BatchRequest) -> BatchCheck:
        """Say whether a batch could be begun now, but for the files that are to be read first.

        Raises
        ------
        BusyError
            If another batch runs.
        """
        with _all_known(request):
            return self._calls.send(BatchCheck, "POST", "/batches/check", request, timeout=_CHANGE)

    def list(self) -> Sequence[Batch]:
        """All batches, the newest first."""
        return self._calls.ask(BatchList, "GET", "/batches").batches

    def begin(self, request: BatchRequest) -> Batch:
        """Begin to label; it goes on without this client.

        Raises
        ------
        BusyError
            If another batch runs.
        """
        with _all_known(request):
            return self._calls.send(Batch, "POST", "/batches", request, timeout=_CHANGE)

    def get(self, name: str) -> Batch:
        """How one batch stands."""
        return self._calls.ask(Batch, "GET", f"/batches/{name}")

    def pause(self, name: str) -> Batch:
        """Let a batch wait after its present file."""
        return self._calls.ask(Batch, "POST", f"/batches/{name}/pause")

    def resume(self, name: str, copies: Sequence[ImageCopy] = ()) -> Batch:
        """Let a batch go on, also with what failed.

        Parameters
        ----------
        name : str
        copies : sequence of ImageCopy
            Files of it that were read anew.
        """
        path = f"/batches/{name}/resume"
        if not copies:
            return self._calls.ask(Batch, "POST", path, timeout=_CHANGE)
        message = BatchCopies(copies=tuple(copies))
        return self._calls.send(Batch, "POST", path, message, timeout=_CHANGE)

    def cancel(self, name: str) -> Batch:
        """End a batch after its present file; what is done stays."""
        return self._calls.ask(Batch, "DELETE", f"/batches/{name}")

    def files(
        self,
        name: str,
        *,
        start: int,
        count: int,
        status: FileStatus | None = None,
        order: FileOrder = "name",
    ) -> BatchFiles:
        """A part of the files of a batch.

        Parameters
        ----------
        name : str
        start, count : int
            Which part; ``count`` is at most ``clsclip.wire_batch.MOST_FILES``.
        status : str, optional
            Only files of which this is true; None: all.
        order : "name" or "score"
            By path, or the least certain first.
        """
        asked = {"start": start, "count": count, "status": status or "", "order": order}
        return self._calls.ask(BatchFiles, "GET", f"/batches/{name}/files", params=asked)

    def thumbnail(self, name: str, number: int) -> bytes:
        """A small picture of a file with its labels, as PNG."""
        return self._calls.call("GET", f"/batches/{name}/files/{number}/thumbnail").content

    def accept(self, name: str, number: int, labels: NDArray[Any] | None = None) -> BatchFile:
        """Say that the labels of a file are right; no later run touches them.

        Parameters
        ----------
        name : str
        number : int
            Of the file.
        labels : ndarray of int, shape (H, W) or (planes, H, W), optional
            If they were corrected: as the label file is to have them. They are written in every
            format of the batch.
        """
        return self._calls.ask(
            BatchFile,
            "PUT",
            f"/batches/{name}/files/{number}/review",
            content=b"" if labels is None else encode_review(labels),
            headers={} if labels is None else {"Content-Type": NPZ_MEDIA_TYPE},
            timeout=_CHANGE,
        )

    def withdraw(self, name: str, number: int) -> BatchFile:
        """Say that the labels of a file are not accepted any more."""
        return self._calls.ask(
            BatchFile, "DELETE", f"/batches/{name}/files/{number}/review", timeout=_CHANGE
        )


@contextmanager
def _all_known(request: BatchRequest) -> Iterator[None]:
    """Say clearly where a backend is too old for channels, or for files that napari has read."""
    try:
        yield
    except (InvalidRequestError, NotFoundError) as error:
        if request.channels and "'channels': Extra inputs" in error.message:
            raise ClsClipError(
                "The backend is older than this plugin and cannot choose channels. Install the "
                "same version of napari-clsclip on its machine, or leave Channels empty."
            ) from error
        unknown = type(error) is NotFoundError or "'copies': Extra inputs" in error.message
        if not request.copies or not unknown:
            raise
        raise ClsClipError(
            f"{len(request.copies)} of the files can be read by napari only, and the backend is "
            "older than this plugin and cannot label such files. Install the same version of "
            "napari-clsclip on its machine, or choose others by the pattern."
        ) from error
