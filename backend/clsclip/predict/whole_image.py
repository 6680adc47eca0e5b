"""Looks at a whole image: one that fits the network's input, then closer ones, window by window.

Ours; :mod:`clsclip.zoom` says how close.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from clsclip.config import DEFAULT_THRESHOLD
from clsclip.predict.asked import Asked
from clsclip.predict.steps import Steps
from clsclip.predict.tiling import Windows, plan_windows, window_weight
from clsclip.predict.transforms import quantise, resize
from clsclip.zoom import COMPANION, REFINEMENTS, refined_zoom, whole_image_zoom

WINDOWS_PER_BATCH: Final = 8
"""Windows that go through the network together."""


@dataclass(frozen=True)
class NetworkInput:
    """What the network reads at once.

    Attributes
    ----------
    size, patch : int
        Sides of a full window and of a patch in model pixels.
    """

    size: int
    patch: int

    def windows(self, shape: tuple[int, int], zoom: float) -> Windows:
        """Where the network looks at an image of some rows and columns at a zoom."""
        return plan_windows(shape, zoom, self.size, self.patch)


def look_at_image(
    pixels: Tensor, asked: Asked, zoom: float | None, reads: NetworkInput, steps: Steps
) -> list[tuple[NDArray[np.uint8], float]]:
    """Probabilities of each word in a whole image, and the zoom that each was seen at.

    Parameters
    ----------
    pixels : Tensor, shape (1, 3, H, W)
        RGB in [0, 1].
    asked : Asked
        K words.
    zoom : float or None
        Model pixels per image pixel; None: chosen per word.
    reads : NetworkInput
    steps : Steps

    Returns
    -------
    list of (ndarray of uint8, shape (H, W); float), length K
        0 to 255 for probabilities 0 to 1.
    """
    shape = (pixels.shape[2], pixels.shape[3])
    first = zoom or whole_image_zoom(shape, reads.size)
    looks = list(look(pixels, len(asked), asked.probabilities, first, reads, steps))
    zooms, fresh = [first] * len(looks), set(range(len(looks)))
    for _ in range(REFINEMENTS if zoom is None else 0):
        finer = {k: wanted for k in fresh if (wanted := _finer(looks[k], zooms[k]))}
        for wanted, chosen in _by_zoom(finer).items():
            some = asked.pick(chosen)
            closer = look(pixels, len(some), some.probabilities, wanted, reads, steps)
            for k, seen in zip(chosen, closer, strict=True):
                looks[k], zooms[k] = seen, wanted
        fresh = set(finer)
    resized = [resize(seen[None, None], shape)[0, 0] for seen in looks]
    zoomed = {k: seen_at for k, seen_at in enumerate(zooms) if seen_at > first}
    for seen_at, chosen in _by_zoom(zoomed).items():
        companion = max(first, seen_at * COMPANION)
        some = asked.pick(chosen)
        second = look(pixels, len(some), some.probabilities, companion, reads, steps)
        for k, seen in zip(chosen, second, strict=True):
            resized[k] = (resized[k] + resize(seen[None, None], shape)[0, 0]) / 2
    return [(quantise(seen), seen_at) for seen, seen_at in zip(resized, zooms, strict=True)]


def look(
    pixels: Tensor, maps: int, see: Callable[[Tensor], Iterable[Tensor]], zoom: float,
    reads: NetworkInput, steps: Steps,
) -> Tensor:  # fmt: skip
    """What the network sees of an image at a zoom, window by window, blended where they overlap.

    Parameters
    ----------
    pixels : Tensor, shape (1, 3, H, W)
        RGB in [0, 1].
    maps : int
        How many maps ``see`` gives.
    see : callable
        Takes crops of shape (B, 3, h, w), and gives that many maps of shape (B, h, w).
    zoom : float
        Model pixels per image pixel.
    reads : NetworkInput
    steps : Steps

    Returns
    -------
    Tensor of float32, shape (maps, rows, columns)
        In model pixels.
    """
    plan = reads.windows((pixels.shape[2], pixels.shape[3]), zoom)
    rows, columns, corners = plan.rows, plan.columns, plan.corners
    window = (plan.height, plan.width)
    padding = (0, max(0, window[1] - columns), 0, max(0, window[0] - rows))
    padded = F.pad(resize(pixels, (rows, columns)), padding, mode="replicate")
    weight = window_weight(*window, plan.overlap).to(pixels.device)
    total = torch.zeros(maps, *padded.shape[2:], device=pixels.device)
    norm = torch.zeros(padded.shape[2:], device=pixels.device)
    steps.expect(-(-len(corners) // WINDOWS_PER_BATCH))
    for start in range(0, len(corners), WINDOWS_PER_BATCH):
        steps.check()
        batch = corners[start : start + WINDOWS_PER_BATCH]
        crops = torch.cat([_crop(padded, corner, window) for corner in batch])
        for k, found in enumerate(see(crops)):
            for corner, values in zip(batch, found, strict=True):
                _crop(total[k], corner, window).add_(values * weight)
        for corner in batch:
            _crop(norm, corner, window).add_(weight)
        steps.done()
    return (total / norm)[:, :rows, :columns]


def _finer(look: Tensor, zoom: float) -> float | None:
    """The zoom to go on with, in steps of a quarter octave; None: this one will do."""
    finer = refined_zoom(look.cpu().numpy() >= DEFAULT_THRESHOLD, zoom)
    return None if finer is None else float(2.0 ** (round(4 * np.log2(finer)) / 4))


def _by_zoom(zooms: Mapping[int, float]) -> dict[float, list[int]]:
    """Indices of words by their zooms, so that words of one zoom are looked for together."""
    groups: dict[float, list[int]] = {}
    for k, zoom in zooms.items():
        groups.setdefault(zoom, []).append(k)
    return groups


def _crop(pixels: Tensor, corner: tuple[int, int], window: tuple[int, ...]) -> Tensor:
    """A view of the last two axes."""
    (top, left), (rows, columns) = corner, window
    return pixels[..., top : top + rows, left : left + columns]
