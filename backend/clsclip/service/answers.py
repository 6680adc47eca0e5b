"""What the routes say of their answers in the description of the service."""

from __future__ import annotations

from typing import Any, Final

from clsclip.wire import NPZ_MEDIA_TYPE, ErrorAnswer

NPZ_CONTENT: Final = {NPZ_MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}
"""An ``.npz`` archive as body of a request or an answer."""


def error_answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The statuses with which a route answers :class:`clsclip.wire.ErrorAnswer`."""
    return {status: {"model": ErrorAnswer} for status in statuses}
