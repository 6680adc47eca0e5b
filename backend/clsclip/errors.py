"""Every error that napari-clsclip raises on purpose, in one tree.

An error crosses the process boundary as ``{"error": {"code": ..., "message": ...}}``:
:attr:`ClsClipError.code` names the class, :attr:`ClsClipError.http_status` is the status of
the HTTP answer, and :func:`error_from_code` turns a code back into the class. A message names
the bad value and the way out, so that it can be shown to the user as it is.
"""

from __future__ import annotations

from typing import ClassVar


class ClsClipError(Exception):
    """Base class of all errors of this project.

    Attributes
    ----------
    code : str
        Stable name of the error on the wire.
    http_status : int
        Status with which the service answers when this error ends a request.
    """

    code: ClassVar[str] = "error"
    http_status: ClassVar[int] = 500

    @property
    def message(self) -> str:
        """The text for the user."""
        return str(self)


class InvalidRequestError(ClsClipError):
    """The request cannot be read: wrong format, unknown keys, wrong types."""

    code = "invalid_request"
    http_status = 422


class InvalidImageError(InvalidRequestError):
    """The image cannot be segmented: no pixels, not finite, wrong number of axes or dtype."""

    code = "invalid_image"


class InvalidWordError(InvalidRequestError):
    """A class word is empty or too long, or there are too many of them."""

    code = "invalid_word"


class InvalidConfigError(InvalidRequestError):
    """A setting has a value it cannot have."""

    code = "invalid_config"


class RequestTooLargeError(ClsClipError):
    """The request holds more bytes than the backend accepts."""

    code = "request_too_large"
    http_status = 413


class AuthenticationError(ClsClipError):
    """The bearer token is missing or wrong."""

    code = "authentication"
    http_status = 401


class NotFoundError(ClsClipError):
    """The thing asked for does not exist."""

    code = "not_found"
    http_status = 404


class UnknownModelError(NotFoundError):
    """No model has this name."""

    code = "unknown_model"


class ModelUnavailableError(ClsClipError):
    """The model is known, but cannot be had: no network, gated, removed, a package missing."""

    code = "model_unavailable"
    http_status = 503


class CheckpointError(ClsClipError):
    """A checkpoint is truncated, foreign, or belongs to other base weights."""

    code = "checkpoint"


class DeviceError(ClsClipError):
    """The compute device asked for is not there, or ran out of memory."""

    code = "device"


class BusyError(ClsClipError):
    """The queue of the backend is full."""

    code = "busy"
    http_status = 503


class CancelledError(ClsClipError):
    """The request was cancelled by the user."""

    code = "cancelled"
    http_status = 409


class FileError(ClsClipError):
    """A file or folder cannot be read or written."""

    code = "file"


class StoreError(ClsClipError):
    """The annotation store cannot be opened, read or written, or one of its files is damaged."""

    code = "store"


class ConflictError(ClsClipError):
    """Somebody else has changed the same thing meanwhile."""

    code = "conflict"
    http_status = 409


class BackendError(ClsClipError):
    """The client cannot use a backend. Never sent by a backend."""

    code = "backend"
    http_status = 502


class BackendUnreachableError(BackendError):
    """Nothing answers at the address of the backend."""

    code = "backend_unreachable"


class BackendStartError(BackendError):
    """The backend process could not be started (port taken, import failure, time-out)."""

    code = "backend_start"


class BackendDiedError(BackendError):
    """The backend went away while a request was running."""

    code = "backend_died"


def _tree(root: type[ClsClipError]) -> dict[str, type[ClsClipError]]:
    classes = {root.code: root}
    for child in root.__subclasses__():
        classes.update(_tree(child))
    return classes


_BY_CODE = _tree(ClsClipError)


def error_from_code(code: str, message: str) -> ClsClipError:
    """Rebuild an error that a backend has sent.

    Parameters
    ----------
    code : str
        The ``code`` of the answer. One that this version does not know gives a plain
        :class:`ClsClipError`.
    message : str
        The text for the user.
    """
    return _BY_CODE.get(code, ClsClipError)(message)
