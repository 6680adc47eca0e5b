"""The arrays of an annotation: what must be true of them, and what makes two the same."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clsclip.errors import InvalidImageError
from clsclip.wire_annotations import Correction


@dataclass(frozen=True)
class AnnotationArrays:
    """The arrays of an annotation; see :class:`clsclip.wire_annotations.Correction`."""

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
