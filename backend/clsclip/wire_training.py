"""What plugin and backend say to each other about training and the versions of a model.

=======  =================================  ==================================================
method   route                              answer
=======  =================================  ==================================================
GET      ``/v1/trainings``                  :class:`TrainingList`
POST     ``/v1/trainings``                  201, :class:`Training`; it runs from now on
GET      ``/v1/trainings/NAME``             :class:`Training`
POST     ``/v1/trainings/NAME/resume``      :class:`Training`; it goes on from its checkpoint
DELETE   ``/v1/trainings/NAME``             :class:`Training`; it ends with what is best so far
GET      ``/v1/versions``                   :class:`VersionList`
PUT      ``/v1/versions/active``            :class:`VersionList`, after :class:`Activation`
=======  =================================  ==================================================

All of it is JSON. A training learns from the annotation store of the backend, in a process of its
own that outlives the backend if it must; ``NAME`` is the name of the version it makes. One runs at
a time: while it does, ``POST`` is answered with ``busy``. ``DELETE`` asks, and the training takes
some seconds to hear of it. A training that failed, broke off, or was cancelled before there was
anything to keep can be resumed; one that has made its version cannot (``conflict``), for a version
never changes. To make active what was active before (``back``) takes back the last step. Nothing
here imports torch.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

from pydantic import Field

from clsclip.config import DEFAULT_MODEL, MAX_WORDS
from clsclip.wire import Message

LONGEST_MINUTES: Final = 24 * 60
"""Longest training that a request may ask for."""

CURVE_POINTS: Final = 500
"""Most points of a curve in one answer; longer curves are thinned."""

VERSION_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""What the name of a version looks like: mini-v2."""

State = Literal["running", "done", "failed", "cancelled", "interrupted"]


class TrainingRequest(Message):
    """What ``POST /v1/trainings`` asks for."""

    words: tuple[str, ...] = Field(
        min_length=1,
        max_length=MAX_WORDS,
        description="Words of accepted annotations to learn, each with all that was accepted.",
    )
    model: str = Field(DEFAULT_MODEL, description="Version to go on from.")
    minutes: float = Field(
        1.5, gt=0, le=LONGEST_MINUTES, description="Longest training time; it may end earlier."
    )
    note: str = Field("", max_length=1000, description="What the person wants to remember.")


class CurvePoint(Message):
    """One report of a training."""

    step: int = Field(description="Optimizer steps taken.")
    seconds: float = Field(description="Time trained, over all sessions of the training.")
    loss: float | None = Field(None, description="Mean training loss since the last report.")
    iou: float | None = Field(
        None, description="Mean IoU of the learnt words on the held-out images, 0 to 1."
    )
    old_iou: float | None = Field(
        None, description="Mean IoU of the words that the older version knew, 0 to 1."
    )


class Change(Message):
    """IoU of a word, 0 to 1, with the older version and the new one; None: not measured."""

    word: str
    before: float | None
    after: float | None
    learnt: bool = Field(description="Whether it was learnt now; else a word known before.")


class Training(Message):
    """How a training stands."""

    name: str = Field(description="Also the name of the version that it makes.")
    words: tuple[str, ...]
    model: str = Field(description="Version that it goes on from.")
    started: datetime = Field(description="In UTC.")
    state: State
    reason: str = Field("", description="Why it failed, or why it is promoted or not.")
    doing: str = Field("", description="Last line it told, for people.")
    minutes: float = Field(description="Longest training time.")
    seconds: float = Field(description="Time worked on it, over all its sessions.")
    part: float = Field(description="How much of the training time is over, 0 to 1.")
    eta_seconds: float | None = Field(None, description="Until it is done; None: not known.")
    images: int = Field(description="Annotations it learns from or holds out.")
    curve: tuple[CurvePoint, ...] = Field((), description="Empty in a list.")
    changes: tuple[Change, ...] = Field((), description="Once it is done.")
    promoted: bool | None = Field(None, description="Whether it is better; None: not done.")
    note: str = ""


class TrainingList(Message):
    """Answer of ``GET /v1/trainings``, the newest first."""

    trainings: tuple[Training, ...]


class Version(Message):
    """A model that can be used, and where it comes from."""

    name: str
    parent: str = Field("", description="Version that it goes on from; empty: a first one.")
    created: datetime | None = Field(None, description="In UTC; None: not recorded.")
    words: tuple[str, ...] = Field((), description="What was learnt.")
    changes: tuple[Change, ...] = ()
    promoted: bool | None = Field(None, description="None: it was not made by a training here.")
    note: str = ""
    description: str = ""
    available: bool = True
    reason: str = Field("", description="Why it is not available.")


class VersionList(Message):
    """Answer of ``GET /v1/versions``: the newest first, models that no training made last."""

    versions: tuple[Version, ...]
    active: str = Field(description="Version that is used unless another one is named.")
    back: str = Field("", description="Version that was active before; empty: none.")
    notice: str = Field(
        "", description="What a person should know: records were damaged, a version is gone."
    )


class Activation(Message):
    """Body of ``PUT /v1/versions/active``."""

    name: str
