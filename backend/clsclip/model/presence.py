"""Whether a word is in an image at all, read from the guided tokens (ours)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Presence(nn.Module):
    """One logit per image and word that says whether the word is to be seen.

    A light decoder that judges patch by patch marks what looks alike, whatever the whole image
    shows. This part looks at all tokens that the last visual layer puts out: at the one that
    carries the word, and at the mean and the maximum over the patches.

    Parameters
    ----------
    input_width : int
        D, width of the visual encoder.
    width : int
        Channels in between.
    """

    def __init__(self, input_width: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(input_width)
        self.reduce = nn.Linear(input_width, width)
        self.answer = nn.Linear(3 * width, 1)
        nn.init.constant_(self.answer.bias, 2.0)  # at first, do not stand in the decoder's way

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of presence.

        Parameters
        ----------
        tokens : Tensor, shape (B, 1 + m, D)
            Output of the last visual layer under the guidance of a word.

        Returns
        -------
        Tensor, shape (B,)
        """
        values = F.gelu(self.reduce(self.norm(tokens)))
        cls, patches = values[:, 0], values[:, 1:]
        summary = torch.cat([cls, patches.mean(1), patches.amax(1)], 1)
        logits: Tensor = self.answer(summary)[:, 0]
        return logits


def gate(logits: Tensor, presence: Tensor) -> Tensor:
    """Foreground logits, lowered where the word does not seem to be in the image.

    Odds are divided by 1 + exp(-presence): nothing changes for a word that is surely there.

    Parameters
    ----------
    logits : Tensor, shape (B, H, W)
    presence : Tensor, shape (B,)

    Returns
    -------
    Tensor, shape (B, H, W)
    """
    return logits - F.softplus(-presence)[:, None, None]
