"""The object in a box that a person drew, by its colours alone (ours; the paper has none).

A model says where a word is. Where it knows neither the word nor that there is an object, a box
that a person vouches for still says much: what is outside of it is background, and inside there
is something else. GrabCut finds what differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from clsclip.predict.regions import Box, Frame, inside, padded
from clsclip.predict.transforms import resize

CONTEXT: Final = 0.4
"""Background around a box that is looked at, on each side, as a part of its height or width."""

SIDE: Final = 256
"""Longest side in pixels at which colours are looked at."""

ROUNDS: Final = 2
"""How often colours are learnt from the mask, and the mask drawn from the colours."""

LEAST_SEEN: Final = 0.4
"""Part of a box from which on a model's mask in it shows the object, wherever it lies. An ellipse
fills 0.79."""

LEAST_FOUND: Final = 0.15
"""The same of what GrabCut finds, which has no other place to be."""

LEAST_SPAN: Final = 0.7
"""Part of a box's height and of its width that a piece of a smaller mask has to span: a box drawn
around a thin object touches its ends."""

COMPONENTS: Final = 5
"""Of OpenCV's mixtures of Gaussians, each of which needs a pixel."""

_BACKGROUND, _PROBABLE = 0, 3  # cv2.GC_BGD and cv2.GC_PR_FGD


def outline_unseen(
    pixels: Tensor,
    box: Box,
    frame: Frame,
    seen: Tensor,
    *,
    word: Tensor,
    threshold: float,
    others: Sequence[Box] = (),
) -> Tensor:
    """What a model sees in a box or, where it does not see the word, what GrabCut finds.

    If that is next to nothing, or nothing is left around the box, it is the ellipse in the box.

    Parameters
    ----------
    pixels : Tensor, shape (1, 3, H, W)
        RGB in [0, 1].
    box : Box
        Shows some of the image.
    frame : Frame
        Holds the box.
    seen : Tensor of float32, shape (frame.height, frame.width)
        Probabilities in the frame, of the word or of any object.
    word : Tensor of float32, shape (frame.height, frame.width)
        Those of the word alone, which decide whether the model sees the object: what it takes for
        some object where it does not know the word is worse than GrabCut (on photographs).
    threshold : float
        Probability from which on a pixel counts as seen.
    others : sequence of Box
        Of the same word; what is in them may look like what is in the box.

    Returns
    -------
    Tensor of float32, shape (frame.height, frame.width)
        ``seen`` itself, or from 1 on the object to 0 around it.

    References
    ----------
    Rother, Kolmogorov & Blake, GrabCut, ACM SIGGRAPH 2004.
    """
    shape = (pixels.shape[2], pixels.shape[3])
    within = inside(box, shape)
    known = (_part(word, frame, within) >= threshold).cpu().numpy()
    if _shows_object(known, LEAST_SEEN):
        return seen
    around = inside(padded(box, shape, CONTEXT), shape)
    rows, columns = (part.stop - part.start for part in around)
    scale = min(1.0, SIDE / max(rows, columns))
    size = (max(1, round(scale * rows)), max(1, round(scale * columns)))
    crop = _eight_bits(resize(pixels[..., around[0], around[1]], size)[0])
    corners = np.array([box, *others], dtype=np.float64)
    corners -= np.tile([around[0].start, around[1].start], 2)
    corners *= np.tile([size[0] / rows, size[1] / columns], 2)
    found = _grab(crop, corners[0], corners[1:])
    mask = resize(torch.from_numpy(found)[None, None].to(seen), (rows, columns))[0, 0]
    outline = torch.zeros_like(seen)
    inner = tuple(
        slice(part.start - whole.start, part.stop - whole.start)
        for part, whole in zip(within, around, strict=True)
    )
    _part(outline, frame, within).copy_(mask[inner])
    return outline


def _shows_object(mask: NDArray[np.bool_], least_part: float) -> bool:
    """Whether a mask, of the pixels in a box, can be that of the object that the box is around."""
    if mask.mean() >= least_part:
        return True
    pieces, _ = ndimage.label(mask, np.ones((3, 3)))
    return any(
        all(
            part.stop - part.start >= LEAST_SPAN * n
            for part, n in zip(piece, mask.shape, strict=True)
        )
        for piece in ndimage.find_objects(pieces)
    )


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


def _grab(
    image: NDArray[np.uint8], box: NDArray[np.float64], others: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """What differs from the surroundings of a box; the ellipse in it where nothing does.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
    box : ndarray, shape (4,)
        Top, left, bottom, right.
    others : ndarray, shape (n, 4)
        Boxes that may show the same; they are background at first, and if nothing is found then,
        are not.

    Returns
    -------
    ndarray of bool, shape (H, W)
    """
    shape = (image.shape[0], image.shape[1])
    own, neighbours = _filled(box[None], shape), _filled(others, shape)
    for probable in (own, own | neighbours) if (neighbours & ~own).any() else (own,):
        found = _differing(image, probable) & own
        rows, columns = (np.flatnonzero(own.any(axis)) for axis in (1, 0))
        held = found[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        if _shows_object(held, LEAST_FOUND):
            return found
    ellipse = _ellipse(box, shape)
    return ellipse if (ellipse & own).any() else own


def _differing(image: NDArray[np.uint8], probable: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """GrabCut of an image whose object lies in a mask; nothing where there is too little of it."""
    import cv2  # it takes long, and sets environment variables for its own Qt

    if min(np.count_nonzero(probable), np.count_nonzero(~probable)) <= COMPONENTS:
        return np.zeros_like(probable)
    marks = np.where(probable, np.uint8(_PROBABLE), np.uint8(_BACKGROUND))
    back, front = np.zeros((2, 1, 13 * COMPONENTS))
    cv2.setRNGSeed(0)  # of this thread; the first clusters are drawn
    cv2.grabCut(image, marks, (0, 0, 0, 0), back, front, ROUNDS, cv2.GC_INIT_WITH_MASK)
    return np.asarray(marks == _PROBABLE)


def _filled(boxes: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels in boxes, at least one row and column of each that reaches into the image."""
    mask = np.zeros(shape, dtype=bool)
    reaching = (boxes[:, :2] < shape).all(1) & (boxes[:, 2:] > 0).all(1)
    for top, left, bottom, right in np.round(boxes[reaching]).astype(int):
        row, column = (
            min(max(first, 0), n - 1) for first, n in zip((top, left), shape, strict=True)
        )
        mask[row : max(bottom, row + 1), column : max(right, column + 1)] = True
    return mask


def _ellipse(box: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    top, left, bottom, right = box
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    down = (rows + 0.5 - (top + bottom) / 2) / max((bottom - top) / 2, 0.5)
    across = (columns + 0.5 - (left + right) / 2) / max((right - left) / 2, 0.5)
    return np.asarray(down**2 + across**2 <= 1)
