"""Random crops of annotated images: scale, geometry, light. All in numpy and torch on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from clsclip.predict.transforms import resize, to_tensor
from clsclip.training.sources import Example

DIAMETERS: Final = (7.0, 110.0)
"""Range of object diameters, in model pixels, to which microscopy is zoomed (log-uniform)."""

PHOTO_PART: Final = (0.35, 1.0)
"""Range of the part of a photograph's shorter side that a crop shows."""


@dataclass(frozen=True)
class Crop:
    """A square piece of an example at the network's size.

    Attributes
    ----------
    image : Tensor of float32, shape (3, S, S)
        RGB in [0, 1].
    masks : dict of str to Tensor of bool, shape (S, S)
    valid : Tensor of bool, shape (S, S)
        Pixels whose masks are vouched for.
    present : frozenset of str
        Words that are, or may be, in the crop.
    """

    image: Tensor
    masks: dict[str, Tensor]
    valid: Tensor
    present: frozenset[str]


def random_crop(example: Example, size: int, rng: np.random.Generator) -> Crop:
    """Cut, zoom, turn and relight an example.

    Parameters
    ----------
    example : Example
    size : int
        S, side of the crop in model pixels.
    rng : numpy Generator

    Returns
    -------
    Crop
    """
    microscopy = example.diameter is not None
    rows, columns = example.image.shape[:2]
    if example.diameter is not None:
        low, high = np.log(DIAMETERS)
        zoom = float(np.exp(rng.uniform(low, high))) / example.diameter
        side = round(size / float(np.clip(zoom, 0.25, 8.0)))
        side = min(side, 2 * max(rows, columns))
    else:
        side = round(min(rows, columns) * rng.uniform(*PHOTO_PART))
        if rng.random() < 0.25:
            side = max(rows, columns)
    side = max(side, 8)
    take = _window(rows, columns, side, microscopy, rng)
    turn = _turn(microscopy, rng)
    names = list(example.masks)
    planes = [example.masks[name] for name in names]
    valid = np.ones((rows, columns), bool) if example.ignore is None else ~example.ignore
    image = turn(take(example.image, "reflect" if microscopy else "edge"))
    stack = np.stack([turn(take(p, "reflect" if microscopy else "zero")) for p in (*planes, valid)])
    pixels = resize(to_tensor(np.divide(image, 255, dtype=np.float32)), (size, size))[0]
    resized = resize(torch.from_numpy(stack.astype(np.float32))[None], (size, size))[0] >= 0.5
    if not microscopy:
        inside = turn(take(np.ones((rows, columns), bool), "zero"))
        resized[-1] |= ~(resize(torch.from_numpy(inside.astype(np.float32))[None, None],
                                (size, size))[0, 0] >= 0.5)  # fmt: skip
    masks = dict(zip(names, resized[:-1], strict=True))
    return Crop(relight(pixels, microscopy, rng), masks, resized[-1], example.present)


def _window(
    rows: int, columns: int, side: int, microscopy: bool, rng: np.random.Generator
) -> Callable[[NDArray[Any], str], NDArray[Any]]:
    """A function that cuts one random square out of an image, padding where it is larger."""
    height = width = side
    if not microscopy and rng.random() < 0.5:
        stretch = float(np.exp(rng.uniform(-0.25, 0.25)))
        height, width = round(side * stretch), round(side / stretch)
    top = int(rng.integers(0, max(rows - height, 0) + 1))
    left = int(rng.integers(0, max(columns - width, 0) + 1))

    def take(plane: NDArray[Any], fill: str) -> NDArray[Any]:
        piece = plane[top : top + height, left : left + width]
        missing = (height - piece.shape[0], width - piece.shape[1])
        if not any(missing):
            return piece
        before = tuple(m // 2 for m in missing)
        widths = [(b, m - b) for b, m in zip(before, missing, strict=True)]
        widths += [(0, 0)] * (plane.ndim - 2)
        if fill == "reflect":
            return np.pad(piece, widths, mode="symmetric")
        if fill == "edge":
            return np.pad(piece, widths, mode="edge")
        return np.pad(piece, widths)

    return take


def _turn(microscopy: bool, rng: np.random.Generator) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Flips; right-angled turns too where up and down mean nothing."""
    flip, quarters = rng.random() < 0.5, int(rng.integers(4)) if microscopy else 0

    def turn(plane: NDArray[Any]) -> NDArray[Any]:
        return np.rot90(plane[:, ::-1] if flip else plane, quarters)

    return turn


def relight(image: Tensor, microscopy: bool, rng: np.random.Generator) -> Tensor:
    """Change light and colour as microscopes and cameras do.

    Parameters
    ----------
    image : Tensor of float32, shape (3, S, S)
        RGB in [0, 1].
    microscopy : bool
        Also inversion (fluorescence to brightfield), other stains and tints, uneven light.
    rng : numpy Generator

    Returns
    -------
    Tensor of float32, shape (3, S, S), in [0, 1]
    """
    if microscopy:
        image = _restain(image, rng)
    if rng.random() < 0.6:
        image = image.clamp(1e-4, 1) ** float(np.exp(rng.uniform(-0.6, 0.6)))
    if rng.random() < 0.6:
        gain = float(np.exp(rng.uniform(-0.7, 0.3)))
        image = (image - 0.5) * gain + 0.5 + float(rng.uniform(-0.2, 0.2))
    if rng.random() < 0.3:
        gains = np.exp(rng.uniform(-0.25, 0.25, 3)).astype(np.float32)
        image = image * torch.from_numpy(gains)[:, None, None]
    if rng.random() < 0.3:
        image = _blur(image, float(rng.uniform(0.3, 1.8)))
    if rng.random() < 0.3:
        noise = rng.standard_normal(image.shape[1:], dtype=np.float32)
        image = image + float(rng.uniform(0.005, 0.05)) * torch.from_numpy(noise)
    return image.clamp(0, 1)


def _restain(image: Tensor, rng: np.random.Generator) -> Tensor:
    if rng.random() < 0.25:
        image = 1 - image
    if rng.random() < 0.25:
        image = image[torch.from_numpy(rng.permutation(3))]
    if rng.random() < 0.2:
        image = image.mean(0, keepdim=True).expand(3, -1, -1)
    if rng.random() < 0.15:
        tint = rng.uniform(0.0, 1.0, 3).astype(np.float32)
        tint /= tint.max()
        image = image * torch.from_numpy(tint)[:, None, None]
    if rng.random() < 0.25:
        coarse = torch.from_numpy(rng.uniform(0.5, 1.2, (1, 1, 3, 3)).astype(np.float32))
        light = F.interpolate(coarse, image.shape[1:], mode="bicubic", align_corners=True)[0]
        image = image * light
    if rng.random() < 0.4:
        low, high = float(image.min()), float(image.max())
        image = (image - low) / max(high - low, 1e-3)
    return image.clamp(0, 1)


def _blur(image: Tensor, sigma: float) -> Tensor:
    blurred = ndimage.gaussian_filter(image.numpy(), (0, sigma, sigma))
    return torch.from_numpy(blurred)
