"""The object in a box that a person drew, by its colours alone (ours; the paper has none).

A model says where a word is. Where it knows neither the word nor that there is an object, a box
that a person vouches for still says much: what is outside of it is background, and inside there
is something else. GrabCut finds what differs.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clsclip.predict.regions import Box, Frame, inside, padded
from clsclip.predict.transforms import resize

CONTEXT: Final = 0.4
"""Background around a box that is looked at, on each side, as a part of its height or width."""

SIDE: Final = 256
"""Longest side in pixels at which colours are looked at."""

ROUNDS: Final = 2
"""How often colours are learnt from the mask, and the mask drawn from the colours."""

LEAST_PART: Final = 0.15
"""Part of a box below which a mask in it shows no object."""

_BACKGROUND, _PROBABLE = 0, 3  # cv2.GC_BGD and cv2.GC_PR_FGD


def outline_unseen(
    pixels: Tensor, box: Box, frame: Frame, seen: Tensor, threshold: float
) -> Tensor:
    """What a model sees in a box or, where that is next to nothing, what GrabCut finds.

    If that is next to nothing as well, or nothing is left around the box, it is the ellipse in
    the box.

    Parameters
    ----------
    pixels : Tensor, shape (1, 3, H, W)
        RGB in [0, 1].
    box : Box
        Shows some of the image.
    frame : Frame
        Holds the box.
    seen : Tensor of float32, shape (frame.height, frame.width)
        Probabilities in the frame.
    threshold : float
        Probability from which on a pixel counts as seen.

    Returns
    -------
    Tensor of float32, shape (frame.height, frame.width)
        ``seen`` itself, or 1 on the object and 0 around it.

    References
    ----------
    Rother, Kolmogorov & Blake, GrabCut, ACM SIGGRAPH 2004.
    """
    shape = (pixels.shape[2], pixels.shape[3])
    within = inside(box, shape)
    if _part(seen, frame, within).ge(threshold).float().mean() >= LEAST_PART:
        return seen
    around = inside(padded(box, shape, CONTEXT), shape)
    rows, columns = (part.stop - part.start for part in around)
    scale = min(1.0, SIDE / max(rows, columns))
    size = (max(1, round(scale * rows)), max(1, round(scale * columns)))
    small = resize(pixels[..., around[0], around[1]], size)[0]
    edges = np.array(box, dtype=np.float64) - np.tile([around[0].start, around[1].start], 2)
    found = _grab(_eight_bits(small), edges * np.tile([size[0] / rows, size[1] / columns], 2))
    mask = resize(torch.from_numpy(found)[None, None].to(seen), (rows, columns))[0, 0]
    outline = torch.zeros_like(seen)
    inner = tuple(
        slice(part.start - whole.start, part.stop - whole.start)
        for part, whole in zip(within, around, strict=True)
    )
    _part(outline, frame, within).copy_(mask[inner])
    return outline


def _part(plane: Tensor, frame: Frame, of_image: tuple[slice, slice]) -> Tensor:
    """A view of the pixels of a frame's plane that lie in a part of the image."""
    rows, columns = of_image
    return plane[
        rows.start - frame.top : rows.stop - frame.top,
        columns.start - frame.left : columns.stop - frame.left,
    ]


def _eight_bits(crop: Tensor) -> NDArray[np.uint8]:
    """Shape (rows, columns, 3), with the contrast of the crop."""
    low, high = crop.min(), crop.max()
    levels = ((crop - low) / (high - low).clamp(min=1e-6) * 255).round()
    return np.ascontiguousarray(levels.to(torch.uint8).permute(1, 2, 0).cpu().numpy())


def _grab(image: NDArray[np.uint8], box: NDArray[np.float64]) -> NDArray[np.bool_]:
    """What differs from the surroundings of a box; the ellipse in it where nothing does.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
    box : ndarray, shape (4,)
        Top, left, bottom, right.

    Returns
    -------
    ndarray of bool, shape (H, W)
    """
    import cv2  # it takes long, and sets environment variables for its own Qt

    shape = (image.shape[0], image.shape[1])
    ellipse = _ellipse(box, shape)
    top, left, bottom, right = np.round(box).clip(0).astype(int)
    marks = np.full(shape, _BACKGROUND, dtype=np.uint8)
    marks[top : max(bottom, top + 1), left : max(right, left + 1)] = _PROBABLE
    probable = marks == _PROBABLE
    components = 5  # of OpenCV's mixtures of Gaussians, each of which needs a pixel
    if min(np.count_nonzero(probable), np.count_nonzero(~probable)) <= components:
        return ellipse
    cv2.setRNGSeed(0)  # of this thread; the first clusters are drawn
    back, front = np.zeros((2, 1, 13 * components))
    cv2.grabCut(image, marks, (0, 0, 0, 0), back, front, ROUNDS, cv2.GC_INIT_WITH_MASK)
    found = marks == _PROBABLE
    return found if found.sum() >= LEAST_PART * probable.sum() else ellipse


def _ellipse(box: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    top, left, bottom, right = box
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    down = (rows + 0.5 - (top + bottom) / 2) / max((bottom - top) / 2, 0.5)
    across = (columns + 0.5 - (left + right) / 2) / max((right - left) / 2, 0.5)
    return np.asarray(down**2 + across**2 <= 1)
