"""Segment part of a plane as if the network looked at all of it, for requests that bring one.

Ours; the paper leaves large images open.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clsclip.blocks import Block, Region
from clsclip.errors import InvalidImageError, InvalidRequestError
from clsclip.looks import Looks
from clsclip.predict.large import LargeSegmenter
from clsclip.predict.predictor import Predictor
from clsclip.predict.steps import Steps
from clsclip.segmentation import Segmentation
from clsclip.typed_words import check_words
from clsclip.wire import PlanePart


class PartPredictor(Predictor):
    """A :class:`~clsclip.predict.predictor.Predictor` that also segments parts of a plane."""

    def segment_part(
        self,
        image: NDArray[Any],
        words: Sequence[str],
        part: PlanePart,
        *,
        contrast_limits: tuple[float, float],
        templates: bool = True,
        progress: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Segmentation:
        """Foreground probability of every word at every pixel of the part's core.

        They are those of :class:`~clsclip.predict.large.LargeSegmenter` for the whole plane.

        Parameters
        ----------
        image : ndarray, shape (H, W), (H, W, 3) or (H, W, 4)
            The pixels of the core, and as many around it as the plane has and
            :func:`clsclip.blocks.window_halo` says.
        words : sequence of str, length K
        part : PlanePart
        contrast_limits : tuple of float
            Values shown as black and white.
        templates, progress, cancelled
            See :meth:`~clsclip.predict.predictor.Predictor.segment`.

        Raises
        ------
        InvalidImageError
            If the image cannot be segmented, or does not reach as far as it must.
        InvalidRequestError, InvalidWordError, CancelledError, DeviceError
        """
        started = time.perf_counter()
        checked = check_words(tuple(words))
        if len(part.passes) != len(checked):
            raise InvalidRequestError(
                f"{len(checked)} words have {len(part.passes)} lists of zooms; each needs one."
            )
        top, left, bottom, right = part.core
        core = (slice(top, bottom), slice(left, right))
        looks = Looks(contrast_limits, part.passes)
        with LargeSegmenter(
            self, _PartSource(image, part), checked, looks, chunk=right - left,
            templates=templates, rows=core[0], steps=Steps(progress, cancelled),
        ) as segmenter:  # fmt: skip
            found = [found for _, found in segmenter.segment(Block(0, core, core, core))]
        return Segmentation(
            probabilities=np.concatenate(found, axis=2),
            words=checked,
            model=self.name,
            model_version=self.version,
            zooms=looks.zooms,
            seconds=time.perf_counter() - started,
        )


class _PartSource:
    """A plane of which only a part is there."""

    def __init__(self, image: NDArray[Any], part: PlanePart) -> None:
        if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (3, 4)):
            raise InvalidImageError(
                f"A part of shape {image.shape} cannot be segmented; expected (height, width), or "
                "(height, width, channels) with 3 or 4 channels."
            )
        self.shape = part.shape
        self.channels = image.shape[2] if image.ndim == 3 else None
        self._image, self._origin = image, part.origin

    def read_near(self, region: Region) -> NDArray[Any]:
        """Rows and columns of the plane."""
        own = tuple(
            slice(wanted.start - first, wanted.stop - first)
            for wanted, first in zip(region, self._origin, strict=True)
        )
        for place, wanted, length in zip(own, region, self._image.shape, strict=False):
            if place.start < 0 or place.stop > length:
                first = wanted.start - place.start
                raise InvalidImageError(
                    f"The part holds {first} to {first + length} of the plane's rows or columns; "
                    f"its core needs {wanted.start} to {wanted.stop}. Plugin and backend should "
                    "be the same version of napari-clsclip."
                )
        return self._image[own]
