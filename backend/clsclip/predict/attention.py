"""Where the [CLS] looks, with its own and with replaced [CLS] (Figure 3).

The paper shows "the attention map of the visual encoder" and leaves open of which layer, of which
heads and at what scale. Ours: the last layer, because that is what the encoder comes to; the mean
over the heads; one look at the whole image, as the paper's network has it. Any layers and any zoom
can be asked for instead. What is shown is what the network computes when it segments: the layers
note their attention as they run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from clsclip.errors import InvalidConfigError
from clsclip.model.clip import ClipTowers
from clsclip.model.cls_attention import noted_attention
from clsclip.model.clsclip import ClsClip
from clsclip.predict.asked import Asked
from clsclip.predict.steps import Steps
from clsclip.predict.transforms import resize
from clsclip.predict.whole_image import NetworkInput, look


def replaces_cls(model: object) -> bool:
    """Whether a network has a replaced [CLS] to compare with."""
    return isinstance(model, ClsClip) and len(model.projections) > 0


def attentive_towers(
    model: object, name: str, layers: Sequence[int]
) -> tuple[ClipTowers, tuple[int, ...]]:
    """The towers and the layers whose attention is shown.

    Parameters
    ----------
    model : module
    name : str
        Of the model, for messages.
    layers : sequence of int
        Counted from 0; empty: the last one.

    Raises
    ------
    InvalidConfigError
        If the network replaces no [CLS], or has no such layer.
    """
    if not isinstance(model, ClsClip) or not replaces_cls(model):
        raise InvalidConfigError(
            f"The model '{name}' has no attention to compare: no word replaces the [CLS] of its "
            "visual encoder. Choose a ClsCLIP model with replaced layers, such as 'mini'."
        )
    depth = len(model.towers.layers)
    for index in layers:
        if not 0 <= index < depth:
            raise InvalidConfigError(
                f"The visual encoder of '{name}' has no layer {index}; it has 0 to {depth - 1}."
            )
    return model.towers, tuple(dict.fromkeys(layers)) or (depth - 1,)


def attention_maps(
    pixels: Tensor, asked: Asked, towers: ClipTowers, layers: Sequence[int], zoom: float,
    reads: NetworkInput, steps: Steps,
) -> tuple[NDArray[np.float16], NDArray[np.float16]]:  # fmt: skip
    """Attention of the [CLS] to every pixel of an image.

    Parameters
    ----------
    pixels : Tensor, shape (1, 3, H, W)
        RGB in [0, 1].
    asked : Asked
        K words, whose heads all replace the [CLS].
    towers : ClipTowers
        Of all the heads.
    layers : sequence of int, length L
    zoom : float
        Model pixels per image pixel. Where that takes several windows, each window has a [CLS] of
        its own; they are blended.
    reads : NetworkInput
    steps : Steps

    Returns
    -------
    original : ndarray of float16, shape (L, H, W)
    replaced : ndarray of float16, shape (K, L, H, W)
        See :class:`clsclip.segmentation.AttentionMaps`.
    """
    attention = _Attention(asked, towers, tuple(layers), reads.patch)
    seen = look(pixels, (1 + len(asked)) * len(layers), attention.maps, zoom, reads, steps)
    maps = np.empty((len(seen), *pixels.shape[2:]), np.float16)
    for k, each in enumerate(seen):
        maps[k] = resize(each[None, None], maps.shape[1:])[0, 0].cpu().numpy()
    by_cls = maps.reshape(1 + len(asked), len(layers), *maps.shape[1:])
    return by_cls[0], by_cls[1:]


@dataclass(frozen=True)
class _Attention:
    """What crops are looked at for."""

    asked: Asked
    towers: ClipTowers
    layers: tuple[int, ...]
    patch: int

    def maps(self, crops: Tensor) -> Iterator[Tensor]:
        """Maps of shape (B, H, W): of the [CLS] itself in all layers, then of each word."""
        grid = (crops.shape[2] // self.patch, crops.shape[3] // self.patch)
        size = (crops.shape[2], crops.shape[3])
        crops = crops.to(self.asked.tokens[0].dtype)
        with noted_attention(self.towers, self.layers) as noted:

            def shown() -> Iterator[Tensor]:
                for index in self.layers:
                    shares = noted[index].reshape(-1, 1, *grid) * (grid[0] * grid[1])
                    yield F.interpolate(shares, size, mode="bilinear")[:, 0]

            tokens = self.towers.embed(crops)
            for index in range(max(self.layers) + 1):
                tokens = self.towers.run_layer(index, tokens)
            yield from shown()
            for _ in self.asked.probabilities(crops):  # runs the layers for one word after another
                yield from shown()
