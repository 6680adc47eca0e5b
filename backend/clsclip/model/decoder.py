"""The light decoder that reads the patch tokens (Eq. 8)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Decoder(nn.Module):
    """K transformer layers over the patch tokens, then p x p logits per patch.

    The paper says "K-layer transformer" and no more. Ours: LayerNorm, linear map to the decoder
    width, K pre-norm layers, LayerNorm, linear map to p*p logits per patch, which are shuffled
    to full resolution.

    Parameters
    ----------
    input_width : int
        D, width of the visual encoder.
    width, heads, layers : int
        Width, attention heads and number (K) of the decoder's layers.
    patch_size : int
        p, side of a patch in pixels.
    """

    def __init__(
        self, input_width: int, width: int, heads: int, layers: int, patch_size: int
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
        self.to_pixels = nn.Linear(width, patch_size**2)

    def forward(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        """Foreground logits.

        Parameters
        ----------
        patches : Tensor, shape (B, m, D)
            E_N, the patch tokens that the last visual layer puts out, row by row.
        grid : tuple of int
            Rows and columns of patches; their product is m.

        Returns
        -------
        Tensor, shape (B, rows * p, columns * p)
        """
        tokens = self.reduce(self.norm(patches))
        for layer in self.layers:
            tokens = layer(tokens)
        logits = self.to_pixels(self.norm_out(tokens))  # (B, m, p*p)
        maps = logits.transpose(1, 2).unflatten(2, grid)  # (B, p*p, rows, columns)
        return F.pixel_shuffle(maps, self.patch_size)[:, 0]
