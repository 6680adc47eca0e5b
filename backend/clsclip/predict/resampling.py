"""Resizing parts of an image to exactly what resizing the whole image would give there.

:func:`clsclip.predict.transforms.resize` maps whole images only: a part that is resized by itself
gets pixel centres of its own, and the parts do not meet. Here the weights of the whole image's
bilinear, antialiased resize are computed for any part of it. They equal those of
``torch.nn.functional.interpolate`` up to the rounding of float32. Ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from clsclip.blocks import Region

_TILE: Final = 64
"""Pixels of the result that are computed together; more would multiply more zeros."""


@dataclass(frozen=True)
class ResizedAxis:
    """One axis of an image that is resized.

    Attributes
    ----------
    length : int
        Pixels of the image.
    resized : int
        Pixels of the resized image.
    """

    length: int
    resized: int

    @property
    def _scale(self) -> float:
        """Image pixels per pixel of the result."""
        return self.length / self.resized

    def needed(self, wanted: slice) -> slice:
        """Pixels of the image on which pixels of the result depend."""
        if self.length == self.resized:
            return wanted
        reach = max(self._scale, 1.0)
        first = int(self._scale * (wanted.start + 0.5) - reach + 0.5)
        last = int(self._scale * (wanted.stop - 0.5) + reach + 0.5)
        return slice(max(0, first), min(self.length, last))

    def weights(self, wanted: slice) -> Tensor:
        """Share of each needed pixel in each wanted one: float32, shape (wanted, needed)."""
        needed = self.needed(wanted)
        reach = max(self._scale, 1.0)
        centres = self._scale * (np.arange(wanted.start, wanted.stop) + 0.5)
        places = np.arange(needed.start, needed.stop) + 0.5
        shares = np.maximum(0.0, 1.0 - np.abs(places - centres[:, None]) / reach)
        shares /= shares.sum(axis=1, keepdims=True)
        return torch.from_numpy(shares.astype(np.float32))


def resize_part(
    part: Tensor, axes: tuple[ResizedAxis, ResizedAxis], given: Region, wanted: Region
) -> Tensor:
    """A part of the resized image.

    Parameters
    ----------
    part : Tensor of float32, shape (..., h, w)
        The image in the region ``given``.
    axes : tuple of ResizedAxis
        Rows and columns of the whole image.
    given : Region
        Rows and columns of the image; at least what :meth:`ResizedAxis.needed` says.
    wanted : Region
        Rows and columns of the resized image.

    Returns
    -------
    Tensor of float32, shape (..., rows, columns) of ``wanted``
    """
    rows, columns = axes
    down = _along(part.transpose(-1, -2), rows, given[0], wanted[0]).transpose(-1, -2)
    return _along(down, columns, given[1], wanted[1])


def _along(part: Tensor, axis: ResizedAxis, given: slice, wanted: slice) -> Tensor:
    """Resize the last axis."""
    if axis.length == axis.resized:
        return part[..., wanted.start - given.start : wanted.stop - given.start]
    resized = []
    for start in range(wanted.start, wanted.stop, _TILE):
        tile = slice(start, min(start + _TILE, wanted.stop))
        needed = axis.needed(tile)
        seen = part[..., needed.start - given.start : needed.stop - given.start]
        resized.append(seen @ axis.weights(tile).T.to(part.device))
    return torch.cat(resized, dim=-1)
