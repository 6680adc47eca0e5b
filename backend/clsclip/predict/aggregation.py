"""Look inside region proposals, zoomed in, and join what is seen (section 3.4 of the paper)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from clsclip.config import DEFAULT_THRESHOLD
from clsclip.predict.box_outline import outline_unseen
from clsclip.predict.regions import Box, Frame, share_frames, trusted
from clsclip.predict.steps import Steps
from clsclip.predict.transforms import quantise, resize

MAX_MAGNIFICATION: Final = 3.0
"""Model pixels per image pixel beyond which a region gets more context instead. On annotated boxes
of nuclei, filling the input with a nucleus of 12 pixels (18 times) takes the network where it never
was in training (docs/regions.md)."""

REGIONS_PER_BATCH: Final = 8
"""Crops that go through the network together."""

SAME_OBJECT: Final = 0.5
"""IoU of the masks of two regions above which they show one object."""


@dataclass(frozen=True)
class Seen:
    """What the regions of a word show, joined.

    Attributes
    ----------
    probability : Tensor of float32, shape (H, W)
        Highest of the regions' probabilities, each times its trust; 0 outside all regions.
    trust : Tensor of float32, shape (H, W), in [0, 1]
        Highest trust of a region.
    owners : Tensor of int32, shape (H, W)
        0 outside all regions that show an object of their own; else the place, from 1, of the one
        in whose box the pixel lies most centrally. Regions whose masks show the object of an
        earlier one (non-maximum suppression) own nothing, nor do those that show none.
    zoom : float
        Median over the regions of model pixels per image pixel.
    regions : int
        How many there are.
    unseen : int
        Regions in which the network did not see the word, for which a person had vouched.
    """

    probability: Tensor
    trust: Tensor
    owners: Tensor
    zoom: float
    regions: int
    unseen: int

    def with_whole(self, whole: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
        """What is seen in the regions; where the whole image was looked at too, the mean of both.

        Outside of the regions, the look at the whole image counts alone.

        Parameters
        ----------
        whole : ndarray of uint8, shape (H, W), optional
            Probabilities of that look in steps of 1/255.

        Returns
        -------
        ndarray of uint8, shape (H, W)
            In the same steps.
        """
        probability = self.probability
        if whole is not None:
            anywhere = torch.from_numpy(whole).to(probability.device) / 255
            probability = probability / 2 + (1 - self.trust / 2) * anywhere
        return quantise(probability)

    @property
    def reservation(self) -> str:
        """What is to be said of regions in which the word was not seen; empty if there are none."""
        if not self.unseen:
            return ""
        where = "it" if self.regions == 1 else f"{self.unseen} of them"
        return (
            f" The model did not see the word in {where}: the outline there is drawn from colours, "
            "or an ellipse where they do not tell."
        )


def look_inside(
    pixels: Tensor,
    boxes: Sequence[Box],
    *,
    look: Callable[[Tensor], Iterable[Tensor]],
    size: int,
    steps: Steps,
    owning: int | None = None,
    vouched: bool = False,
) -> Seen:
    """Look for a word in regions, and take the highest probability that one gives (Eq. 9).

    Small regions are seen with more context instead of ever more zoom, and those that one crop
    shows share it. Only the inside of a box is believed, and less and less of the margin around
    it, so that a box that is a little too small does not cut its object off.

    Parameters
    ----------
    pixels : Tensor, shape (1, 3, H, W)
        RGB in [0, 1].
    boxes : sequence of Box
        At least one, the best first; each shows some of the image.
    look : callable
        Gives probabilities (B, size, size) in crops (B, 3, size, size) for one word or more; of
        several, the highest counts, and the first one is the word itself.
    size : int
        Side of the network's input in pixels.
    steps : Steps
    owning : int, optional
        How many of the boxes, the best ones, may own pixels. None: all.
    vouched : bool
        A person says that every box shows the word: where the network does not see it, it is
        outlined by its colours, see :mod:`clsclip.predict.box_outline`.

    Returns
    -------
    Seen
    """
    shape = (pixels.shape[2], pixels.shape[3])
    frames, places = share_frames(boxes, shape, size / MAX_MAGNIFICATION)
    joined, unseen = _Joined(shape, pixels.device), 0
    held = np.argsort(places, kind="stable")  # regions, by their frames
    firsts = np.searchsorted(places[held], np.arange(len(frames) + 1))
    steps.expect(-(-len(frames) // REGIONS_PER_BATCH) + vouched * len(boxes))
    for start in range(0, len(frames), REGIONS_PER_BATCH):
        steps.check()
        batch = range(start, min(start + REGIONS_PER_BATCH, len(frames)))
        crops = torch.cat([resize(_cut(pixels, frames[f]), (size, size)) for f in batch])
        maps = torch.stack(list(look(crops)))
        for f, seen in zip(batch, maps.unbind(1), strict=True):
            alone, near = resize(
                torch.stack([seen[0], seen.amax(0)])[:, None], (frames[f].height, frames[f].width)
            )[:, 0]
            for index in held[firsts[f] : firsts[f + 1]]:
                owns = owning is None or int(index) < owning
                shown = near
                if vouched:
                    steps.check()
                    shown = outline_unseen(
                        pixels, boxes[index], frames[f], near, word=alone,
                        threshold=DEFAULT_THRESHOLD, others=boxes,
                    )  # fmt: skip
                    unseen += shown is not near
                    steps.done()
                joined.add(int(index), boxes[index], frames[f], shown, owns=owns)
        steps.done()
    zooms = [size / max(frames[place].height, frames[place].width) for place in places]
    return Seen(
        joined.probability, joined.trust, joined.owners, float(np.median(zooms)), len(boxes), unseen
    )


def owners_of(inside: Mapping[int, Seen], shape: tuple[int, int, int]) -> NDArray[np.uint16] | None:
    """Which region each pixel of each word belongs to; None: no word has regions.

    Parameters
    ----------
    inside : mapping of int to Seen
        By the places of words.
    shape : tuple of int
        Words, rows and columns.
    """
    if not inside:
        return None
    owners = np.zeros(shape, dtype=np.uint16)
    for k, seen in inside.items():
        owners[k] = seen.owners.cpu().numpy()
    return owners


class _Joined:
    """Regions of an image of some shape, joined one by one."""

    def __init__(self, shape: tuple[int, int], device: torch.device) -> None:
        self._shape = shape
        self.probability = torch.zeros(shape, device=device)
        self.trust = torch.zeros(shape, device=device)
        self.owners = torch.zeros(shape, dtype=torch.int32, device=device)
        self._distance = torch.full(shape, torch.inf, device=device)
        self._areas: dict[int, int] = {}

    def add(self, index: int, box: Box, frame: Frame, near: Tensor, *, owns: bool) -> None:
        """Join what a frame shows of a region: probabilities (frame.height, frame.width)."""
        rows, columns, believed, away = trusted(box, self._shape)
        trust, distance = (torch.from_numpy(a).to(near.device) for a in (believed, away))
        seen = near[rows.start - frame.top : rows.stop - frame.top,
                    columns.start - frame.left : columns.stop - frame.left] * trust  # fmt: skip
        view = (rows, columns)
        torch.maximum(self.probability[view], seen, out=self.probability[view])
        torch.maximum(self.trust[view], trust, out=self.trust[view])
        if not owns:
            return
        mask = seen >= DEFAULT_THRESHOLD
        area = int(mask.sum())
        owners = self.owners[view]
        others, common = torch.unique(owners[mask], return_counts=True)
        if area == 0 or any(
            pixels > SAME_OBJECT * (area + self._areas[owner] - pixels)
            for owner, pixels in zip(others.tolist(), common.tolist(), strict=True)
            if owner
        ):
            return
        self._areas[index + 1] = area
        closer = (distance < self._distance[view]) & (trust > 0)
        self._distance[view][closer] = distance[closer]
        owners[closer] = index + 1


def _cut(pixels: Tensor, frame: Frame) -> Tensor:
    """A part of an image of shape (1, 3, H, W); the edge is repeated where it reaches beyond."""
    top, left = max(frame.top, 0), max(frame.left, 0)
    piece = pixels[..., top : frame.top + frame.height, left : frame.left + frame.width]
    before = (left - frame.left, top - frame.top)
    after = (frame.width - piece.shape[3] - before[0], frame.height - piece.shape[2] - before[1])
    return F.pad(piece, (before[0], after[0], before[1], after[1]), mode="replicate")
