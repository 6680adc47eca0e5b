"""Image arrays to network input, and its answer back; training and prediction share these."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from clsclip.errors import InvalidImageError


def to_rgb(
    image: NDArray[Any], contrast_limits: tuple[float, float] | None = None
) -> NDArray[np.float32]:
    """Bring any image plane to RGB in [0, 1].

    Parameters
    ----------
    image : ndarray, shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)
        bool, integer or floating point. A fourth channel (alpha) is left out.
    contrast_limits : tuple of float, optional
        Values that become 0 and 1; what lies outside is clipped. None: 0 and 255 for uint8, 0
        and 1 for bool, else minimum and maximum of the image.

    Returns
    -------
    ndarray of float32, shape (H, W, 3)

    Raises
    ------
    InvalidImageError
        If the array has no pixels, another number of axes or channels, another kind of dtype, or
        values that are not finite.
    """
    if image.dtype.kind not in "buif":
        raise InvalidImageError(
            f"Images of dtype {image.dtype} cannot be segmented; use bool, integers or floats."
        )
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        raise InvalidImageError(
            f"An image of shape {image.shape} cannot be segmented; expected (height, width), or "
            "(height, width, channels) with 1, 3 or 4 channels. Choose one plane first."
        )
    if image.size == 0:
        raise InvalidImageError(f"The image has no pixels (shape {image.shape}).")
    colour = image[..., None] if image.ndim == 2 else image[..., :3]
    if colour.dtype.kind == "f":
        bad = colour.size - int(np.isfinite(colour).sum())
        if bad:
            raise InvalidImageError(
                f"{bad} of {colour.size} values of the image are NaN or infinite. Replace them "
                "first, e.g. with numpy.nan_to_num(image)."
            )
    low, high = contrast_limits or _default_limits(colour)
    if not (np.isfinite(low) and np.isfinite(high) and low <= high):
        raise InvalidImageError(
            f"The contrast limits ({low}, {high}) are not an ascending pair of finite numbers."
        )
    values = colour.astype(np.float32) if colour.dtype.itemsize < 4 else colour.astype(np.float64)
    span = high / 2 - low / 2  # halves, because the range of a dtype may not fit into it
    scaled = (values / 2 - low / 2) / (span or 1.0)
    rgb: NDArray[np.float32] = np.clip(scaled, 0.0, 1.0).astype(np.float32)
    return np.broadcast_to(rgb, (*rgb.shape[:2], 3))


def _default_limits(colour: NDArray[Any]) -> tuple[float, float]:
    if colour.dtype == np.uint8:
        return 0.0, 255.0
    if colour.dtype.kind == "b":
        return 0.0, 1.0
    return float(colour.min()), float(colour.max())


def to_tensor(rgb: NDArray[np.float32]) -> Tensor:
    """Array of shape (H, W, 3) as a tensor of shape (1, 3, H, W) with its own memory."""
    return torch.from_numpy(rgb.transpose(2, 0, 1)[None].copy())


def resize(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (B, C, H, W) to ``size`` (rows, columns): bilinear, antialiased when shrinking."""
    if tuple(pixels.shape[2:]) == size:
        return pixels
    return F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)


def quantise(probability: Tensor) -> NDArray[np.uint8]:
    """Probabilities in steps of 1/255, on the CPU."""
    quantised: NDArray[np.uint8] = (probability * 255).round().to(torch.uint8).cpu().numpy()
    return quantised
