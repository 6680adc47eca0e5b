"""Sharper outlines from the image itself: what lies inside a patch (ours; the paper has none)."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clsclip.model.clip import normalise

COARSE: Final = 4
"""Side in pixels of the cells of which a neighbourhood consists."""

NEIGHBOURHOOD: Final = 7
"""Side, in cells, of the square whose mean and spread a pixel is compared with."""

FAINTEST: Final = 0.02
"""Spread, of RGB in [0, 1], below which differences count as noise."""

SOFTEST: Final = 4.0
"""Foreground logits far above this are all alike: certain."""


class Detail(nn.Module):
    """Convolutions that move the outlines of a mask to the edges in the image.

    A frozen patch token has lost most of what lies inside its 16 pixels. So the decoder's logits
    and a shallow look at the image are read side by side at half resolution, and give what is to be
    added to the logits. Which object is meant is still decided by the patches: the look knows no
    word. A new one adds nothing.

    Parameters
    ----------
    channels : int
        C, channels of the look.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        c = channels
        self.image = nn.Sequential(
            nn.Conv2d(6, 2 * c, 4, stride=2, padding=1), nn.GELU(),
            nn.Conv2d(2 * c, c, 3, padding=1), nn.GELU(),
        )  # fmt: skip
        last = nn.Conv2d(c, 4, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]  # it has one
        self.correction = nn.Sequential(
            nn.Conv2d(c + 4, 2 * c, 3, padding=1), nn.GELU(),
            nn.Conv2d(2 * c, c, 3, padding=2, dilation=2), nn.GELU(),
            last, nn.PixelShuffle(2),
        )  # fmt: skip

    def look(self, pixels: Tensor) -> Tensor:
        """What there is to see in the image, whatever the word.

        Parameters
        ----------
        pixels : Tensor, shape (B, 3, H, W)
            RGB in [0, 1]; H and W are even.

        Returns
        -------
        Tensor, shape (B, C, H / 2, W / 2)
        """
        seen = torch.cat([normalise(pixels), against_neighbours(pixels)], 1)
        look: Tensor = self.image(seen)
        return look

    def forward(self, logits: Tensor, look: Tensor) -> Tensor:
        """Corrected logits.

        Parameters
        ----------
        logits : Tensor, shape (B, H, W)
            Foreground logits of the patches.
        look : Tensor, shape (B, C, H / 2, W / 2)
            From :meth:`look`.

        Returns
        -------
        Tensor, shape (B, H, W)
        """
        certainty = torch.tanh(logits / SOFTEST)
        folded = F.pixel_unshuffle(certainty[:, None], 2)
        correction: Tensor = self.correction(torch.cat([folded, look.to(folded.dtype)], 1))
        return logits + correction[:, 0]


def against_neighbours(pixels: Tensor) -> Tensor:
    """How far a pixel lies above the mean around it, in spreads of its neighbourhood.

    Dim and uneven light change little in it.

    Parameters
    ----------
    pixels : Tensor, shape (B, 3, H, W)
        RGB in [0, 1].

    Returns
    -------
    Tensor, shape (B, 3, H, W)
    """
    full = pixels.float()
    cells = F.avg_pool2d(torch.cat([full, full.square()], 1), COARSE, ceil_mode=True)
    around = F.avg_pool2d(
        cells, NEIGHBOURHOOD, stride=1, padding=NEIGHBOURHOOD // 2, count_include_pad=False
    )
    smooth = F.interpolate(around, full.shape[2:], mode="bilinear", align_corners=False)
    middle, squared = smooth.chunk(2, 1)
    spread = (squared - middle.square()).clamp(min=0).sqrt()
    return ((full - middle) / (spread + FAINTEST)).to(pixels.dtype)
