"""Which patches show a word, read from the guided tokens (ours)."""

from __future__ import annotations

from typing import Final, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS: Final = 32
"""Length of the vectors that are compared."""


class Match(nn.Module):
    """Logits that say how well patches fit words: products of mapped patch and text tokens.

    What only one token carries into shallow layers is learnt slowly where there are hundreds of
    words: a small network then marks whatever stands out. Here every patch is compared with every
    word at once, so that one view teaches as many words as one likes, those without a mask among
    them.

    Parameters
    ----------
    width, text_width : int
        D and d of the towers.
    """

    def __init__(self, width: int, text_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.patch = nn.Linear(width, CHANNELS)
        self.word = nn.Linear(text_width, CHANNELS + 1)
        # at first, do not stand in the decoder's way
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.shift = nn.Parameter(torch.tensor(2.0))

    def forward(self, patches: Tensor, text_cls: Tensor) -> Tensor:
        """Logits of every patch for every word.

        Parameters
        ----------
        patches : Tensor, shape (B, m, D)
            Output of the last visual layer.
        text_cls : Tensor, shape (B, T, d), or (T, d) for the same words in all images

        Returns
        -------
        Tensor, shape (B, T, m)
        """
        word = self.word(text_cls.to(patches.dtype))
        patch = self.patch(self.norm(patches)).transpose(1, 2)
        logits = word[..., :-1] @ patch / CHANNELS**0.5 + word[..., -1:]
        return cast(Tensor, logits)

    def gate(
        self, logits: Tensor, patches: Tensor, text_cls: Tensor, grid: tuple[int, int]
    ) -> Tensor:
        """Foreground logits, lowered where patches do not fit the word.

        Parameters
        ----------
        logits : Tensor, shape (B, H, W)
        patches : Tensor, shape (B, m, D)
            Row by row.
        text_cls : Tensor, shape (B, d)
        grid : tuple of int
            Rows and columns of patches.

        Returns
        -------
        Tensor, shape (B, H, W)
        """
        fits = self.scale * self(patches, text_cls[:, None]) + self.shift  # (B, 1, m)
        smooth = F.interpolate(
            fits.unflatten(2, grid), logits.shape[1:], mode="bilinear", align_corners=False
        )
        return logits - F.softplus(-smooth[:, 0])
