"""Random crops of annotated images with the boxes of their objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clsclip.predict.transforms import resize, to_tensor
from clsclip.regions.yolo import GREY
from clsclip.training.crops import relight
from clsclip.training.examples import Example, Source

DIAMETERS: Final = (12.0, 110.0)
"""Range of object diameters, in network pixels, to which microscopy is zoomed (log-uniform)."""

ZOOM: Final = (0.25, 8.0)
"""Limits of the zoom of microscopy, whatever its objects' size."""

PHOTO_PART: Final = (0.5, 1.1)
"""Range of the part of a photograph's longer side that a crop shows (log-uniform)."""

STRETCH: Final = 0.2
"""Largest logarithm of the ratio by which a photograph's sides are changed."""

VISIBLE_PART: Final = 0.3
"""Part of a box's area that has to be in the crop for the box to stay."""

SMALLEST_SIDE: Final = 2.0
"""Side of a box, in network pixels, below which it is left out."""

UNION_WORDS: Final = frozenset({"cell"})
"""Words whose objects bear a more exact word wherever an image has other words too."""


@dataclass(frozen=True)
class BoxedCrop:
    """A square piece of an example at the network's size.

    Attributes
    ----------
    image : Tensor of float32, shape (3, S, S)
        RGB in [0, 1].
    words : tuple of str, length n
    boxes : ndarray of float32, shape (n, 4)
        Top, left, bottom, right of each object in pixels of the crop.
    """

    image: Tensor
    words: tuple[str, ...]
    boxes: NDArray[np.float32]


def exact_words(words: Sequence[str]) -> tuple[str, ...]:
    """The words without those that only sum up others of them."""
    if len(words) < 2:
        return tuple(words)
    return tuple(word for word in words if word not in UNION_WORDS)


def exact_boxes(
    boxes: Mapping[str, NDArray[np.float32]],
) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """Each object once, under its most exact word.

    Returns
    -------
    words : tuple of str, length n
    boxes : ndarray of float32, shape (n, 4)
    """
    names = exact_words(list(boxes))
    words = tuple(word for word in names for _ in boxes[word])
    return words, np.concatenate([np.zeros((0, 4), np.float32), *(boxes[word] for word in names)])


def has_boxes(source: Source) -> bool:
    """Whether some of a few examples of a source have boxes."""
    if not source.masked or len(source) == 0:
        return False
    few = np.linspace(0, len(source) - 1, min(len(source), 8)).astype(int)
    return any(bool(source[int(index)].boxes) for index in few)


def random_boxed_crop(example: Example, size: int, rng: np.random.Generator) -> BoxedCrop:
    """Cut, zoom, turn and relight an example, boxes included.

    Parameters
    ----------
    example : Example
    size : int
        S, side of the crop in network pixels.
    rng : numpy Generator
    """
    microscopy = example.diameter is not None
    shape = np.array(example.image.shape[:2])
    window = _window_shape(shape, example.diameter, size, rng)
    spare = (
        shape - window
    )  # negative where the window is larger: then the image goes anywhere in it
    start = np.round(rng.uniform(np.minimum(spare, 0), np.maximum(spare, 0))).astype(int)
    words, boxes = exact_boxes(example.boxes)
    scale = size / window
    boxes, kept = clip_boxes(boxes, start, window, scale)
    image = _cut(example.image, start, window, (size, size))
    image, boxes = _turn(image, boxes, size, microscopy, rng)
    kept_words = tuple(word for word, keep in zip(words, kept, strict=True) if keep)
    return BoxedCrop(relight(image, microscopy, rng), kept_words, boxes)


def _window_shape(
    shape: NDArray[np.int_], diameter: float | None, size: int, rng: np.random.Generator
) -> NDArray[np.int_]:
    """Rows and columns of the image that a crop shows."""
    longer = int(shape.max())
    if diameter is not None:
        zoom = np.clip(np.exp(rng.uniform(*np.log(DIAMETERS))) / diameter, *ZOOM)
        sides = np.full(2, min(size / zoom, 2 * longer))
    else:
        side = longer * np.exp(rng.uniform(*np.log(PHOTO_PART)))
        sides = side * np.exp(rng.uniform(-STRETCH, STRETCH) * np.array([0.5, -0.5]))
    window: NDArray[np.int_] = np.maximum(np.round(sides), 8).astype(int)
    return window


def clip_boxes(
    boxes: NDArray[np.float32],
    start: NDArray[np.int_],
    window: NDArray[np.int_],
    scale: NDArray[np.float64],
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Boxes in the coordinates of a scaled window.

    Parameters
    ----------
    boxes : ndarray of float32, shape (n, 4)
        In pixels of the image.
    start, window : ndarray of int, shape (2,)
        First row and column, and numbers of rows and columns, of the window.
    scale : ndarray, shape (2,)
        Pixels of the result per pixel of the image.

    Returns
    -------
    boxes : ndarray of float32, shape (k, 4)
        Those of which enough can be seen, cut off at the window's border.
    kept : ndarray of bool, shape (n,)
    """
    corners = boxes.reshape(-1, 2, 2) - start  # (n, first or last, row or column)
    inside = np.clip(corners, 0, window)
    part = _areas(inside) / np.maximum(_areas(corners), 1e-6)
    scaled = inside * scale
    sides = scaled[:, 1] - scaled[:, 0]
    kept: NDArray[np.bool_] = (part >= VISIBLE_PART) & (sides >= SMALLEST_SIDE).all(axis=1)
    return scaled[kept].reshape(-1, 4).astype(np.float32), kept


def _areas(corners: NDArray[np.floating]) -> NDArray[np.floating]:
    areas: NDArray[np.floating] = (corners[:, 1] - corners[:, 0]).prod(axis=1)
    return areas


def _cut(
    image: NDArray[np.uint8],
    start: NDArray[np.int_],
    window: NDArray[np.int_],
    size: tuple[int, int],
) -> Tensor:
    """A window of an image, scaled; grey outside, as in prediction. Shape (3, S, S)."""
    first, last = np.maximum(start, 0), np.minimum(start + window, image.shape[:2])
    piece = image[first[0] : last[0], first[1] : last[1]]
    before, after = first - start, start + window - last
    if before.any() or after.any():
        widths = [*zip(before.tolist(), after.tolist(), strict=True), (0, 0)]
        piece = np.pad(piece, widths, constant_values=round(255 * GREY))
    return resize(to_tensor(np.divide(piece, 255, dtype=np.float32)), size)[0]


def _turn(
    image: Tensor,
    boxes: NDArray[np.float32],
    size: int,
    microscopy: bool,
    rng: np.random.Generator,
) -> tuple[Tensor, NDArray[np.float32]]:
    """Flips; right-angled turns too where up and down mean nothing."""
    if rng.random() < 0.5:
        image = image.flip(2)
        boxes = np.stack([boxes[:, 0], size - boxes[:, 3], boxes[:, 2], size - boxes[:, 1]], axis=1)
    for _ in range(int(rng.integers(4)) if microscopy else 0):
        image = torch.rot90(image, 1, (1, 2))
        boxes = np.stack([size - boxes[:, 3], boxes[:, 0], size - boxes[:, 1], boxes[:, 2]], axis=1)
    return image.contiguous(), boxes
