"""What segmenting needs of a network, and reading either kind of it from a model directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from clsclip.model.checkpoint import load_model
from clsclip.model.clipseg import load_clipseg
from clsclip.model.config import is_clipseg

E = TypeVar("E")


class Network(Protocol[E]):
    """A network that finds a word in images; E is what it knows of them before it reads a word.

    :class:`clsclip.model.clsclip.ClsClip` and :class:`clsclip.model.clipseg.ClipSeg` are two.

    Attributes
    ----------
    any_object : bool
        Whether it has learnt :data:`clsclip.predict.regions.ANY_OBJECT`.
    """

    any_object: bool

    @property
    def image_size(self) -> int:
        """Side in pixels of the square that is read at once; smaller windows may be oblong."""
        ...

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels; windows are whole numbers of patches."""
        ...

    @property
    def edge_radius(self) -> int:
        """Radius in pixels within which masks follow the edges of the image; 0: none."""
        ...

    def text_cls(self, words: Sequence[str], templates: bool = True) -> Tensor:
        """What each word is to the network, shape (K, d); with or without prompt templates."""
        ...

    def encode(self, pixels: Tensor) -> E:
        """Everything that does not depend on the word, of RGB (B, 3, H, W) in [0, 1]."""
        ...

    def encode_beside(self, encoded: E, pixels: Tensor) -> E:
        """What this head knows of images that another head on the same towers has encoded."""
        ...

    def decode(self, encoded: E, text_cls: Tensor) -> Tensor:
        """Foreground logits (B, H, W) of one word per encoded image: tokens (B, d)."""
        ...

    def patch_tokens(self, pixels: Tensor) -> Tensor:
        """Patch tokens that leave the last visual layer, whatever the word; shape (B, m, D)."""
        ...


def load_network(folder: Path, device: torch.device, dtype: torch.dtype) -> Network[Any]:
    """Read the network of a model directory, in evaluation mode.

    Parameters
    ----------
    folder : Path
    device : torch.device
    dtype : torch.dtype
        Number format to compute in.

    Raises
    ------
    CheckpointError, ModelUnavailableError
        As :func:`clsclip.model.checkpoint.load_model`.
    """
    network = load_clipseg(folder) if is_clipseg(folder) else load_model(folder)
    return network.to(device, dtype)
