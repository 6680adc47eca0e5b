"""A pass of the network over an image of any size, row of windows by row of windows.

The windows are those of :meth:`clsclip.predict.predictor.Predictor.segment` at the same zoom, at
the same places of the whole zoomed image, blended with the same weights. So there are no seams:
what comes out for a pixel does not depend on where a part of the image begins or ends. Only the
rows of windows that the wanted pixels need are held. Ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from clsclip.blocks import Region
from clsclip.predict.resampling import ResizedAxis, resize_part
from clsclip.predict.tiling import window_starts, window_weight
from clsclip.predict.transforms import to_rgb, to_tensor

_READ_SIDE: Final = 2048
"""Rows and columns of the image that are read and resized together."""


@dataclass(frozen=True)
class WindowNetwork:
    """The network and the words, as far as a pass over an image needs them.

    Attributes
    ----------
    image_size, patch_size : int
        Side of a full window and of the patches that windows are made of, in model pixels.
    overlap : int
        Model pixels that windows share with their neighbours, at least.
    batch : int
        Windows that go through the network together.
    device : torch.device
        Of the pixels.
    probabilities : callable
        For windows of shape (B, 3, h, w), one float32 tensor (B, h, w) per word.
    """

    image_size: int
    patch_size: int
    overlap: int
    batch: int
    device: torch.device
    probabilities: Callable[[Tensor], Sequence[Tensor]]


class PlaneSource(Protocol):
    """A plane of which parts can be read; :class:`clsclip.image_sources.ImageSource` is one."""

    shape: tuple[int, int]
    channels: int | None

    def read_near(self, region: Region) -> NDArray[Any]:
        """Rows and columns of the plane, shape (h, w) or (h, w, channels)."""
        ...


class Strip:
    """A pass down some columns of an image at one zoom.

    Parameters
    ----------
    network : WindowNetwork
    source : PlaneSource
    columns : slice
        Columns of the image for which probabilities will be asked.
    zoom : float
        Model pixels per image pixel.
    contrast_limits : tuple of float
        Values of the image that are black and white.
    reader : ThreadPoolExecutor
        Reads the next rows while the network looks at these; one thread.
    rows : slice, optional
        Rows of the image for which probabilities will be asked; None: perhaps all.

    Attributes
    ----------
    batches : int
        How often the network is asked, if all those probabilities are.
    """

    def __init__(
        self,
        network: WindowNetwork,
        source: PlaneSource,
        columns: slice,
        zoom: float,
        contrast_limits: tuple[float, float],
        reader: ThreadPoolExecutor,
        rows: slice | None = None,
    ) -> None:
        self._network, self._source, self._limits = network, source, contrast_limits
        self._reader = reader
        height, width = source.shape
        zoomed, across = (max(1, round(zoom * length)) for length in source.shape)
        self._to_model = (ResizedAxis(height, zoomed), ResizedAxis(width, across))
        self._to_image = (ResizedAxis(zoomed, height), ResizedAxis(across, width))
        size, patch = network.image_size, network.patch_size
        self._window = (
            min(size, -(-zoomed // patch) * patch),
            min(size, -(-across // patch) * patch),
        )
        self._tops = window_starts(max(zoomed, self._window[0]), self._window[0], network.overlap)
        lefts = window_starts(max(across, self._window[1]), self._window[1], network.overlap)
        needed = self._to_image[1].needed(columns)
        self._lefts = [
            left for left in lefts if left < needed.stop and left + self._window[1] > needed.start
        ]
        self._left = self._lefts[0]
        self._width = self._lefts[-1] + self._window[1] - self._left
        self._weight = window_weight(*self._window, network.overlap).to(network.device)
        down = self._to_image[0].needed(rows or slice(0, height))
        wanted = [
            k
            for k, top in enumerate(self._tops)
            if top < down.stop and top + self._window[0] > down.start
        ]
        self._after = wanted[-1] + 1
        self.batches = len(wanted) * -(-len(self._lefts) // network.batch)
        self._restart(0)

    def probabilities(self, rows: slice, columns: slice) -> NDArray[np.uint8]:
        """Foreground probabilities of a part of the image, in image pixels.

        Parameters
        ----------
        rows, columns : slice
            Within the image; columns within those of the strip. Asking for rows in ascending
            order lets no window be looked at twice.

        Returns
        -------
        ndarray of uint8, shape (K, rows, columns)
            In steps of 1/255.
        """
        wanted = (rows, columns)
        down, across = (
            axis.needed(part) for axis, part in zip(self._to_image, wanted, strict=True)
        )
        self._advance(down)
        place = (
            slice(down.start - self._top, down.stop - self._top),
            slice(across.start - self._left, across.stop - self._left),
        )
        with torch.inference_mode():
            parts = []
            for total in self._total:
                look = total[place] / self._norm[place]
                image = resize_part(look, self._to_image, (down, across), wanted)
                parts.append((image * 255).round().to(torch.uint8).cpu().numpy())
        return np.stack(parts)

    def _restart(self, first: int) -> None:
        """Go on at a row of windows, as if nothing had been looked at."""
        self._next = first
        self._top = self._tops[first]
        self._total: list[Tensor] = []
        self._norm = torch.zeros(0, self._width, device=self._network.device)
        self._ahead: Future[Tensor] | None = None

    def _advance(self, needed: slice) -> None:
        """Look at the windows that cover model rows, and forget rows above them."""
        first = next(k for k, top in enumerate(self._tops) if top + self._window[0] > needed.start)
        if needed.start < self._top or first > self._next:
            self._restart(first)
        passed = min(needed.start - self._top, len(self._norm))
        if passed > 0:
            self._total = [total[passed:].clone() for total in self._total]
            self._norm = self._norm[passed:].clone()
            self._top += passed
        while self._next < len(self._tops) and self._tops[self._next] < needed.stop:
            self._look()

    def _look(self) -> None:
        """Add the next row of windows."""
        top = self._tops[self._next]
        strip = self._strip(top)
        network, (height, width) = self._network, self._window
        with torch.inference_mode():
            self._grow(top + height - self._top)
            for start in range(0, len(self._lefts), network.batch):
                places = [left - self._left for left in self._lefts[start : start + network.batch]]
                crops = torch.stack([strip[..., place : place + width] for place in places])
                looks = network.probabilities(crops.expand(-1, 3, -1, -1))
                rows = slice(top - self._top, top - self._top + height)
                for k, look in enumerate(looks):
                    if len(self._total) <= k:
                        self._total.append(torch.zeros_like(self._norm))
                    for place, values in zip(places, look, strict=True):
                        part = self._total[k][rows, place : place + width]
                        part += values * self._weight
                for place in places:
                    self._norm[rows, place : place + width] += self._weight
        self._next += 1

    def _grow(self, rows: int) -> None:
        """Add empty rows below what was looked at."""
        more = (0, 0, 0, rows - len(self._norm))
        self._norm = F.pad(self._norm, more)
        self._total = [F.pad(total, more) for total in self._total]

    def _strip(self, top: int) -> Tensor:
        """Zoomed pixels of the next row of windows; starts reading the one after it."""
        # the source is read by one thread only, also when nothing was read ahead
        strip = (self._ahead or self._reader.submit(self._zoomed, top)).result()
        below = self._next + 1
        self._ahead = (
            self._reader.submit(self._zoomed, self._tops[below]) if below < self._after else None
        )
        return strip

    def _zoomed(self, top: int) -> Tensor:
        """Zoomed pixels of the windows at ``top``, (1 or 3, window, width of all windows).

        Rows that are also in the windows above are read again: what was looked at before must not
        matter, to the last bit, or a labelling that is interrupted and goes on would differ.
        """
        height = self._window[0]
        rows, columns = self._to_model
        down = self._tile(rows, slice(top, min(top + height, rows.resized)))
        across = self._tile(
            columns, slice(self._left, min(self._left + self._width, columns.resized))
        )
        with torch.inference_mode():
            zoomed = torch.cat(
                [torch.cat([self._read(r, c) for c in across], dim=-1) for r in down], dim=-2
            )
            missing = (height - zoomed.shape[-2], self._width - zoomed.shape[-1])
            padded = F.pad(zoomed[None], (0, missing[1], 0, missing[0]), mode="replicate")[0]
            return padded.to(self._network.device)

    @staticmethod
    def _tile(axis: ResizedAxis, wanted: slice) -> list[slice]:
        """Parts of the zoomed pixels of an axis that need a bounded part of the image."""
        side = max(1, int(_READ_SIDE * axis.resized / axis.length))
        return [
            slice(start, min(start + side, wanted.stop))
            for start in range(wanted.start, wanted.stop, side)
        ]

    def _read(self, rows: slice, columns: slice) -> Tensor:
        """Zoomed pixels of a part, (1 or 3, h, w)."""
        given = (self._to_model[0].needed(rows), self._to_model[1].needed(columns))
        rgb = to_rgb(self._source.read_near(given), self._limits)
        colour = rgb if self._source.channels else rgb[..., :1]
        return resize_part(to_tensor(colour)[0], self._to_model, given, (rows, columns))
