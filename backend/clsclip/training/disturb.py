"""Changes of test images that microscopes, cameras and people make, to measure what they cost."""

from __future__ import annotations

from typing import Final, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from clsclip.predict.transforms import resize, to_tensor

Change = Literal[
    "none", "inverted", "blurred", "noisy", "uneven", "dim", "stained", "16-bit", "third", "triple"
]

CHANGES: Final[tuple[Change, ...]] = get_args(Change)
"""none; inverted brightness; Gaussian blur of 1.5 pixels; Gaussian noise of 6 % of the range;
light that falls to 30 % in a corner; contrast cut to a third; grey values as purple dye on pink;
values as uint16; a third and three times as many pixels along each side."""

SCALES: Final[dict[Change, float]] = {"third": 1 / 3, "triple": 3.0}


def disturb(image: NDArray[np.uint8], change: Change) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Apply one change.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
    change : str
        One of :data:`CHANGES`.

    Returns
    -------
    ndarray of uint8 or uint16, shape (H, W, 3), or scaled by :data:`SCALES`
    """
    values = image.astype(np.float32) / 255
    rows, columns = image.shape[:2]
    match change:
        case "none":
            return image
        case "16-bit":
            return image.astype(np.uint16) * 257
        case "inverted":
            values = 1 - values
        case "blurred":
            values = ndimage.gaussian_filter(values, (1.5, 1.5, 0))
        case "noisy":
            values = values + np.random.default_rng(0).normal(0, 0.06, (rows, columns, 1))
        case "uneven":
            fall = np.linspace(0, 1, rows)[:, None] * np.linspace(0, 1, columns)
            values = values * (1 - 0.7 * fall)[..., None]
        case "dim":
            values = values.mean() + (values - values.mean()) / 3
        case "stained":
            grey = values.mean(-1)
            dye = np.abs(grey - np.median(grey))[..., None]
            dye = dye / max(float(dye.max()), 0.05)
            values = np.exp(-dye * np.array([1.1, 1.6, 0.5]) - np.array([0.07, 0.25, 0.12]))
        case "third" | "triple":
            scale = SCALES[change]
            size = (max(1, round(scale * rows)), max(1, round(scale * columns)))
            values = resize(to_tensor(values.astype(np.float32)), size)[0].permute(1, 2, 0).numpy()
    changed: NDArray[np.uint8] = np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return changed


def disturb_mask(mask: NDArray[np.bool_], change: Change) -> NDArray[np.bool_]:
    """The mask that belongs to a changed image."""
    if change not in SCALES:
        return mask
    size = tuple(max(1, round(SCALES[change] * length)) for length in mask.shape)
    pixels = torch.from_numpy(mask.astype(np.float32))[None, None]
    scaled: NDArray[np.bool_] = (resize(pixels, (size[0], size[1]))[0, 0] >= 0.5).numpy()
    return scaled
