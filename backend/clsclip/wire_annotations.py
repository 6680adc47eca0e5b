"""What plugin and backend say to each other about annotations.

=======  =================================================  ====================================
method   route                                              answer
=======  =================================================  ====================================
POST     ``/v1/annotations``                                201, :class:`Annotation`
GET      ``/v1/annotations?word=W&offset=N&limit=M``        :class:`AnnotationList`
=======  =================================================  ====================================

The request of the first is an ``.npz`` archive as in :mod:`clsclip.wire`, with the members
``image``, ``labels`` and ``vouched``. Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat

from clsclip.errors import InvalidRequestError
from clsclip.npz import decode_npz, encode_npz
from clsclip.wire import Message, read_message

LIST_LIMIT: Final = 200
"""Most annotations that one answer lists."""

_ARRAYS: Final = ("image", "labels", "vouched")


class Details(Message):
    """Where an annotation comes from."""

    source: str = Field("", description="Name of the layer or file.")
    origin: Literal["widget", "import"] = Field("widget", description="What made it.")
    position: tuple[int, ...] = Field(
        (), description="Indices of the plane along the hidden axes of its image."
    )
    model: str = Field("", description="Model whose prediction was corrected; empty: none.")
    model_version: str = Field("", description="Hash of that model's weights.")
    contrast_limits: tuple[FiniteFloat, FiniteFloat] | None = Field(
        None, description="Values that were shown as black and white."
    )
    scale: tuple[FiniteFloat, FiniteFloat] | None = Field(
        None, description="Height and width of a pixel."
    )
    unit: str = Field("", description="Unit of the scale.")
    note: str = Field("", description="What the person wants to remember.")


class Annotation(Message):
    """One version of an annotation, without its arrays."""

    id: str = Field(description="32 hexadecimal digits.")
    lineage: str = Field(description="The id of the first version; all versions share it.")
    version: int = Field(description="1, 2, ...")
    created: datetime = Field(description="In UTC.")
    words: tuple[str, ...] = Field(description="Word k has the class id k + 1.")
    pixels: tuple[int, ...] = Field(
        description="How many pixels have each word, of those that are vouched for."
    )
    image_sha256: str
    labels_sha256: str
    vouched_sha256: str | None = Field(description="None if all pixels are vouched for.")
    details: Details


class AnnotationList(Message):
    """A part of the latest versions, newest first."""

    annotations: tuple[Annotation, ...]
    total: int = Field(description="Annotations in the store, whatever was asked for.")
    words: dict[str, int] = Field(description="Annotations of each word, in the whole store.")


class AnnotationRequest(Message):
    """What ``POST /v1/annotations`` says beside the arrays."""

    words: tuple[str, ...]
    details: Details = Details()
    replaces: str = Field(
        "", description="Id of the version that was corrected further; empty: a new annotation."
    )


@dataclass(frozen=True)
class Correction:
    """What a person accepted about one image plane or crop.

    Attributes
    ----------
    image : ndarray, shape (H, W), (H, W, 3) or (H, W, 4)
        Any integer or floating-point dtype, or bool.
    labels : ndarray of int or bool, shape (H, W)
        Class ids: 0 is background, ``k + 1`` is word ``k``.
    words : tuple of str, length K
    vouched : ndarray of bool, shape (H, W), or None
        Pixels whose labels the person vouches for; None: all.
    details : Details
    """

    image: NDArray[Any]
    labels: NDArray[Any]
    words: tuple[str, ...]
    vouched: NDArray[np.bool_] | None = None
    details: Details = field(default_factory=Details)


def encode_correction(correction: Correction, replaces: str = "") -> bytes:
    """Bytes of a request; see :func:`decode_correction`."""
    request = AnnotationRequest(
        words=correction.words, details=correction.details, replaces=replaces
    )
    vouched = correction.vouched
    return encode_npz(
        request.model_dump_json(),
        image=correction.image,
        labels=correction.labels,
        vouched=np.ones(correction.labels.shape, np.bool_) if vouched is None else vouched,
    )


def decode_correction(body: bytes, max_bytes: int) -> tuple[Correction, str]:
    """Read the body of ``POST /v1/annotations``.

    Parameters
    ----------
    body : bytes
    max_bytes : int
        Most bytes that the arrays may take once unpacked.

    Returns
    -------
    correction : Correction
        Whether sizes, ids and words fit each other is for the store to say.
    replaces : str

    Raises
    ------
    InvalidRequestError, RequestTooLargeError
    """
    arrays, text = decode_npz(body, _ARRAYS, max_bytes)
    request = read_message(AnnotationRequest, text)
    vouched = arrays["vouched"]
    if vouched.dtype != np.bool_:
        raise InvalidRequestError(f"'vouched' is {vouched.dtype}; expected booleans.")
    correction = Correction(
        arrays["image"], arrays["labels"], request.words, vouched, request.details
    )
    return correction, request.replaces
