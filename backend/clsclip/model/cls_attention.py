"""Attention of the [CLS] in layers of the visual encoder, noted while they run."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from clsclip.model.clip import ClipTowers


@contextmanager
def noted_attention(towers: ClipTowers, layers: Collection[int]) -> Iterator[dict[int, Tensor]]:
    """Attention that the [CLS] pays to the patches, whatever it is and whoever runs the layers.

    Parameters
    ----------
    towers : ClipTowers
    layers : collection of int
        Layers of the visual encoder, counted from 0.

    Yields
    ------
    dict of int to Tensor of float32, shape (B, m)
        By layer, once it has run, and of the last time that it ran: the softmax over all tokens,
        mean over the heads, without the part that the [CLS] pays to itself.
    """
    noted: dict[int, Tensor] = {}

    def note(index: int) -> Any:
        def look(attention: nn.Module, _: Any, arguments: dict[str, Any]) -> None:
            noted[index] = _cls_attention(attention, arguments["hidden_states"])

        return look

    handles = [
        towers.get_submodule(f"clip.vision_model.encoder.layers.{index}.self_attn")
        .register_forward_pre_hook(note(index), with_kwargs=True)
        for index in layers
    ]  # fmt: skip
    try:
        yield noted
    finally:
        for handle in handles:
            handle.remove()


def _cls_attention(attention: Any, tokens: Tensor) -> Tensor:
    """One row of the attention matrix of transformers, which its fused kernels do not give.

    Parameters
    ----------
    attention : CLIPAttention
    tokens : Tensor, shape (B, 1 + m, D)
    """
    heads = (attention.num_heads, attention.head_dim)
    query = attention.q_proj(tokens[:, :1]).unflatten(-1, heads).transpose(1, 2)
    keys = attention.k_proj(tokens).unflatten(-1, heads).transpose(1, 2)
    weights: Tensor = (query @ keys.mT * attention.scale).float().softmax(-1)
    return weights.mean(1)[:, 0, 1:]
