"""What plugin and backend say to each other about models that are fetched once.

=======  =================================  ==================================================
method   route                              answer
=======  =================================  ==================================================
GET      ``/v1/models/NAME/download``       :class:`ModelDownload`
POST     ``/v1/models/NAME/download``       202, :class:`ModelDownload`; it runs from now on
DELETE   ``/v1/models/NAME/download``       :class:`ModelDownload`; what has come is kept
=======  =================================  ==================================================

All of it is JSON. ``NAME`` is the name of a model that the Hugging Face hub has and this project
knows; all others are answered with ``unknown_model``. ``POST`` changes nothing while the model is
being fetched, or once it is there; after an interruption it goes on where it was. The backend
fetches beside its other work: segmentations do not wait for it. Nothing here imports torch.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt

from clsclip.wire import Message

State = Literal["absent", "running", "done", "failed", "cancelled"]


class ModelDownload(Message):
    """How the download of a model stands."""

    name: str
    state: State = Field(description="'absent': nobody asked for it since the backend was started.")
    done: NonNegativeInt = Field(description="Bytes that are on the backend's machine.")
    total: NonNegativeInt = Field(description="Bytes of the whole model; about, until it runs.")
    licence: str = Field(description="SPDX identifier of the licence of the weights.")
    source: str = Field(description="Repository on the Hugging Face hub.")
    reason: str = Field("", description="Why it failed, and the way out.")


def megabytes(size: int) -> str:
    """A number of bytes for people: ``605 MB``."""
    return f"{size / 1e6:,.0f} MB"
