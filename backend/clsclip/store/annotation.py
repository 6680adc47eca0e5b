"""What an annotation is: what a person accepted about one image plane, and where it comes from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat

from clsclip.config import Settings
from clsclip.errors import InvalidImageError

Origin = Literal["widget", "import", "review"]


class Details(Settings):
    """Where an annotation comes from."""

    source: str = Field("", description="Name of the layer or file.")
    origin: Origin = Field("widget", description="What made it.")
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


@dataclass(frozen=True)
class Correction:
    """What a person accepted, about to be added.

    Attributes
    ----------
    image : ndarray, shape (H, W), (H, W, 3) or (H, W, 4)
        Plane or crop, of any integer or floating-point dtype, or bool.
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


@dataclass(frozen=True)
class Annotation:
    """One version of an annotation, without its arrays.

    Attributes
    ----------
    id : str
        32 hexadecimal digits.
    lineage : str
        The id of the first version; all versions share it.
    version : int
        1, 2, ...
    created : datetime
        In UTC.
    words : tuple of str, length K
        Word ``k`` has class id ``k + 1``.
    pixels : tuple of int, length K
        How many pixels have each word, of those that are vouched for.
    image_sha256, labels_sha256 : str
    vouched_sha256 : str or None
        None if all pixels are vouched for.
    details : Details
    """

    id: str
    lineage: str
    version: int
    created: datetime
    words: tuple[str, ...]
    pixels: tuple[int, ...]
    image_sha256: str
    labels_sha256: str
    vouched_sha256: str | None
    details: Details


@dataclass(frozen=True)
class AnnotationArrays:
    """The arrays of an annotation, as :class:`Correction` describes them."""

    image: NDArray[Any]
    labels: NDArray[np.uint16]
    vouched: NDArray[np.bool_] | None


def content_hash(image: str, labels: str, vouched: str | None, words: Sequence[str]) -> str:
    """One hash for all that makes two annotations the same."""
    return hashlib.sha256("\n".join([image, labels, vouched or "", *words]).encode()).hexdigest()


def check_correction(
    correction: Correction, words: Sequence[str]
) -> tuple[NDArray[np.uint16], NDArray[np.bool_] | None]:
    """Labels and vouched pixels, once it is sure that they fit the image and the words."""
    shape, labels, vouched = correction.image.shape[:2], correction.labels, correction.vouched
    if labels.dtype.kind not in "bui":
        raise InvalidImageError(
            f"The labels are {labels.dtype}; expected integers, one class id per pixel."
        )
    for name, plane in (("labels", labels), ("vouched pixels", vouched)):
        if plane is not None and plane.shape != shape:
            raise InvalidImageError(
                f"The {name} have the shape {plane.shape}, their image {shape}. They must be of "
                "one size: give the plane that was labelled."
            )
    low, high = int(labels.min(initial=0)), int(labels.max(initial=0))
    if low < 0 or high > len(words):
        wrong = high if low >= 0 else low
        raise InvalidImageError(
            f"The labels hold the id {wrong}, but with {len(words)} words ids are 0 (background) "
            f"to {len(words)}. Label objects by their class, not one by one."
        )
    if vouched is not None and not vouched.any():
        raise InvalidImageError(
            "No pixel is vouched for, so there is nothing to learn. Correct or accept some."
        )
    chosen = vouched if vouched is None or not vouched.all() else None
    return labels.astype(np.uint16), None if chosen is None else chosen.astype(np.bool_)
