"""Shapes of small towers, and a tokenizer, for models with random weights."""

from __future__ import annotations

from typing import Any

from transformers import CLIPTokenizer

from clsclip.training.tokenizer import train_tokenizer

TINY_VISION = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 6,
    "num_attention_heads": 3,
    "image_size": 64,
    "patch_size": 16,
}


def tiny_tokenizer() -> CLIPTokenizer:
    return train_tokenizer(["nucleus", "a photo of a cell", "airplane"] * 3)


def tiny_text(tokenizer: CLIPTokenizer) -> dict[str, Any]:
    """The text tower that goes with a tokenizer."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
