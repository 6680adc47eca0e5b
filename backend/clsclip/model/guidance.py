"""Other ways to let a word guide the image: what Tables 1 and 2 of the paper compare with.

The paper replaces the visual [CLS] (:mod:`clsclip.model.clsclip`) and names what it was compared
with, but not how. Channel and spatial attention weight the feature map that the frozen encoder
puts out; prompts are tokens beside those of the image. How the word enters each is ours.
"""

from __future__ import annotations

import math
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clsclip.model.clip import ClipTowers
from clsclip.model.config import HeadSettings

REDUCTION: Final = 16
"""Width over hidden width of channel attention, as in SE."""

KERNEL: Final = 7
"""Side of the convolution of spatial attention in patches, as in CBAM."""


class ChannelAttention(nn.Module):
    """A weight per channel of the encoder's output (Table 1; SE, Hu et al. 2018).

    Ours: the word takes the place of what SE squeezes out of the feature map, so that the weights
    are those of the word, whatever the image: linear, ReLU, linear, sigmoid.

    Parameters
    ----------
    width, text_width : int
        D and d, channels of the two encoders.
    """

    def __init__(self, width: int, text_width: int) -> None:
        super().__init__()
        hidden = max(width // REDUCTION, 1)
        self.reduce = nn.Linear(text_width, hidden)
        self.expand = nn.Linear(hidden, width)

    def forward(self, patches: Tensor, text_cls: Tensor, grid: tuple[int, int]) -> Tensor:
        """Weights in [0, 1] of the channels.

        Parameters
        ----------
        patches : Tensor, shape (B, m, D)
            E_N, which is not looked at.
        text_cls : Tensor, shape (B, d)
        grid : tuple of int
            Rows and columns of patches.

        Returns
        -------
        Tensor, shape (B, 1, D)
        """
        weights = torch.sigmoid(self.expand(F.relu(self.reduce(text_cls))))
        return weights[:, None].to(patches.dtype)


class SpatialAttention(nn.Module):
    """A weight per patch of the encoder's output (Table 1; CBAM, Woo et al. 2018).

    CBAM convolves two maps, mean and maximum over the channels. Ours: a third one, the product of
    each patch with a linear projection of the word, tells where the word may be. The first two are
    standardised over the patches of an image: single channels of a CLIP have values so large that
    the sigmoid would learn nothing.

    Parameters
    ----------
    width, text_width : int
        D and d, channels of the two encoders.
    """

    def __init__(self, width: int, text_width: int) -> None:
        super().__init__()
        self.project = nn.Linear(text_width, width)
        self.convolution = nn.Conv2d(3, 1, KERNEL, padding=KERNEL // 2)

    def forward(self, patches: Tensor, text_cls: Tensor, grid: tuple[int, int]) -> Tensor:
        """Weights in [0, 1] of the patches.

        Parameters
        ----------
        patches : Tensor, shape (B, m, D)
            E_N, row by row.
        text_cls : Tensor, shape (B, d)
        grid : tuple of int
            Rows and columns of patches.

        Returns
        -------
        Tensor, shape (B, m, 1)
        """
        width = patches.shape[2]
        word = self.project(text_cls).to(patches.dtype)
        likeness = torch.einsum("bmd,bd->bm", F.layer_norm(patches, (width,)), word)
        looks = torch.stack([patches.mean(2), patches.amax(2)], 1)  # (B, 2, m)
        looks = F.layer_norm(looks, looks.shape[2:])
        maps = torch.cat([looks, likeness[:, None] / math.sqrt(width)], 1)
        weights = torch.sigmoid(self.convolution(maps.view(len(maps), 3, *grid)))
        return weights.flatten(2).transpose(1, 2)


class VisualPrompts(nn.Module):
    """Learnable tokens beside those of the image (Table 2; VPT, Jia et al. 2022).

    Ours: deep prompts, that is, every layer has tokens of its own, and what a layer puts out for
    them is dropped. The word enters as one linear projection of T^cls, the same for all layers,
    that is added to every token: as a token of its own it would be one among 51, at which a
    frozen encoder hardly looks. The visual [CLS] stays. As the word is there from layer 0 on,
    no layer is shared by several words.

    Parameters
    ----------
    layers : int
        N, layers of the visual encoder.
    count : int
        Tokens per layer.
    width, text_width : int
        D and d, channels of the two encoders.
    patch_size : int
        Side of a patch in pixels; the first values are drawn from a range that depends on it, as
        in VPT.
    """

    def __init__(
        self, layers: int, count: int, width: int, text_width: int, patch_size: int
    ) -> None:
        super().__init__()
        bound = math.sqrt(6 / (3 * patch_size**2 + width))
        self.tokens = nn.Parameter(torch.empty(layers, count, width).uniform_(-bound, bound))
        self.project = nn.Linear(text_width, width)

    def insert(self, index: int, tokens: Tensor, text_cls: Tensor) -> Tensor:
        """Input of a layer, with prompts.

        Parameters
        ----------
        index : int
            Of the layer, from 0.
        tokens : Tensor, shape (B, 1 + m, D)
            [CLS] and patches that enter it.
        text_cls : Tensor, shape (B, d)

        Returns
        -------
        Tensor, shape (B, 1 + m + count, D)
            Prompts come last.
        """
        prompts = self.tokens[index] + self.project(text_cls)[:, None]
        return torch.cat([tokens, prompts.to(tokens.dtype)], 1)


Guidance = ChannelAttention | SpatialAttention | VisualPrompts


def new_guidance(towers: ClipTowers, settings: HeadSettings) -> Guidance | None:
    """The untrained guidance that settings ask for; None where the [CLS] is replaced."""
    if settings.guidance == "channel":
        return ChannelAttention(towers.width, towers.text_width)
    if settings.guidance == "spatial":
        return SpatialAttention(towers.width, towers.text_width)
    if settings.guidance == "prompts":
        return VisualPrompts(
            len(towers.layers), settings.prompt_tokens, towers.width, towers.text_width,
            towers.patch_size,
        )  # fmt: skip
    return None
