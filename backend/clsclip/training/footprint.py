"""Whether a training step fits into the memory that is free, before it starts."""

from __future__ import annotations

from typing import Any, Final, cast

import psutil
import torch

from clsclip.errors import DeviceError
from clsclip.model.clsclip import ClsClip

_FLOATS_PER_CHANNEL: Final = 18
"""Values of a transformer layer that wait for its backward pass, per token and channel: norms,
queries, keys, values, attended values, residuals, and the four-fold wide part before and after
its activation."""

_RESERVE: Final = 300 * 2**20
"""Bytes for libraries, images and batches prepared ahead."""


def step_bytes(model: ClsClip, pairs: int, size: int) -> int:
    """Estimate of the bytes that one training step takes beside the loaded model.

    Parameters
    ----------
    model : ClsClip
    pairs : int
        (image, word) pairs that go through the network together.
    size : int
        Side of the images in pixels.
    """
    vision = cast(Any, model.towers.clip.config).vision_config
    tokens = (size // model.towers.patch_size) ** 2 + 1
    if model.settings.guidance == "prompts":
        tokens += model.settings.prompt_tokens
    layers = len(model.towers.layers) - model.first_guided
    parts = (
        (layers, vision.hidden_size, vision.num_attention_heads),
        (model.settings.decoder_layers, model.settings.decoder_width, model.settings.decoder_heads),
    )
    values = sum(
        count * tokens * (_FLOATS_PER_CHANNEL * width + 2 * heads * tokens)
        for count, width, heads in parts
    )
    pixels = size**2 * (8 + 6 * model.settings.detail_channels)
    trained = sum(tensor.numel() for tensor in model.head_state().values())
    return 4 * (pairs * (values + pixels) + 4 * trained) + _RESERVE


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device (of the machine, for CPU and Apple GPUs)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def require_memory(model: ClsClip, pairs: int, size: int, device: torch.device) -> None:
    """Check that a training step fits.

    Raises
    ------
    DeviceError
        If it needs more memory than is free.
    """
    needed, free = step_bytes(model, pairs, size), free_bytes(device)
    if needed > free:
        raise DeviceError(
            f"Training {pairs} views of {size} x {size} pixels at once needs about "
            f"{needed / 2**30:.1f} GiB, but {free / 2**30:.1f} GiB are free on {device}. Close "
            "other programs, train on another device, or on the command line give a smaller "
            "--batch-size (with --accumulate for as many views per step)."
        )
