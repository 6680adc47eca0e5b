"""The light decoder that reads the patch tokens (Eq. 8)."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clsclip.model.clip import normalise


class Decoder(nn.Module):
    """K transformer layers over the patch tokens, then p x p logits per patch.

    The paper says "K-layer transformer" and no more. Ours: LayerNorm, linear map to the decoder
    width, K pre-norm layers, LayerNorm, linear map to p*p logits per patch, which are shuffled
    to full resolution.

    With ``detail_channels`` above 0 (ours), the patches give that many channels at half
    resolution instead of logits; convolutions join them with as many channels of a shallow
    convolutional look at the image itself, so that outlines follow the image's edges. Which
    pixels are meant is still decided by the patches: the shallow look knows no word.

    Parameters
    ----------
    input_width : int
        D, width of the visual encoder.
    width, heads, layers : int
        Width, attention heads and number (K) of the decoder's layers.
    patch_size : int
        p, side of a patch in pixels; even with ``detail_channels``.
    detail_channels : int
    """

    def __init__(
        self,
        input_width: int,
        width: int,
        heads: int,
        layers: int,
        patch_size: int,
        detail_channels: int = 0,
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.norm = nn.LayerNorm(input_width)
        self.reduce = nn.Linear(input_width, width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True,
                norm_first=True,
            )
            for _ in range(layers)
        )  # fmt: skip
        self.norm_out = nn.LayerNorm(width)
        c = detail_channels
        values = c * (patch_size // 2) ** 2 if c else patch_size**2
        self.to_pixels = nn.Linear(width, values)
        self.detail: nn.Module | None = None
        self.join: nn.Module | None = None
        if c:
            self.detail = nn.Sequential(
                nn.Conv2d(3, 2 * c, 4, stride=2, padding=1), nn.GELU(),
                nn.Conv2d(2 * c, c, 3, padding=1), nn.GELU(),
            )  # fmt: skip
            self.join = nn.Sequential(
                nn.Conv2d(2 * c, 2 * c, 3, padding=1), nn.GELU(),
                nn.Conv2d(2 * c, c, 3, padding=1), nn.GELU(),
                nn.Conv2d(c, 4, 1), nn.PixelShuffle(2),
            )  # fmt: skip

    def look(self, pixels: Tensor) -> Tensor | None:
        """What the convolutions see in the image, whatever the word.

        Parameters
        ----------
        pixels : Tensor, shape (B, 3, H, W)
            RGB in [0, 1].

        Returns
        -------
        Tensor, shape (B, detail_channels, H / 2, W / 2), or None
            None without ``detail_channels``.
        """
        return None if self.detail is None else cast(Tensor, self.detail(normalise(pixels)))

    def forward(
        self,
        patches: Tensor,
        grid: tuple[int, int],
        detail: Tensor | None,
        weights: Tensor | None = None,
    ) -> Tensor:
        """Foreground logits.

        Parameters
        ----------
        patches : Tensor, shape (B, m, D)
            E_N, the patch tokens that the last visual layer puts out, row by row.
        grid : tuple of int
            Rows and columns of patches; their product is m.
        detail : Tensor, shape (B, detail_channels, rows * p / 2, columns * p / 2), or None
            From :meth:`look`.
        weights : Tensor, shape (B, m or 1, D or 1), optional
            Attention to patches or channels, see :mod:`clsclip.model.guidance`. It is applied
            behind the first LayerNorm, which would cancel a weight per patch.

        Returns
        -------
        Tensor, shape (B, rows * p, columns * p)
        """
        features = self.norm(patches)
        tokens = self.reduce(features if weights is None else features * weights)
        for layer in self.layers:
            tokens = layer(tokens)
        values = self.to_pixels(self.norm_out(tokens))
        maps = values.transpose(1, 2).unflatten(2, grid)  # (B, values per patch, rows, columns)
        if self.join is None:
            return F.pixel_shuffle(maps, self.patch_size)[:, 0]
        pixels = F.pixel_shuffle(maps, self.patch_size // 2)
        look = cast(Tensor, detail).to(pixels.dtype)
        return cast(Tensor, self.join(torch.cat([pixels, look], 1)))[:, 0]
