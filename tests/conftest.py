"""Fixtures for all tests: small models, real images, the shared data where it is there."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test waits for a network

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with small random weights: real code paths, meaningless masks."""
    import torch
    from transformers import CLIPConfig

    from clsclip.model.checkpoint import save_model
    from clsclip.model.clip import random_towers
    from clsclip.model.clsclip import ClsClip
    from clsclip.model.config import HeadSettings
    from clsclip.training.tokenizer import train_tokenizer

    torch.manual_seed(0)
    tokenizer = train_tokenizer(["nucleus", "a photo of a cell", "airplane"] * 3)
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 2,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    vision = {
        "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 6,
        "num_attention_heads": 3, "image_size": 64, "patch_size": 16,
    }  # fmt: skip
    towers = random_towers(CLIPConfig(text_config=text, vision_config=vision), tokenizer)
    settings = HeadSettings(decoder_width=24, decoder_heads=3, image_size=64)
    path = tmp_path_factory.mktemp("models") / "tiny"
    save_model(ClsClip(towers, settings), path, source="", bundle=torch.float32)
    return path


@pytest.fixture
def rng() -> np.random.Generator:
    """Seeded random numbers."""
    return np.random.default_rng(0)


@pytest.fixture
def shared_data() -> Path:
    """The folder of reference data; tests that need it are skipped where it is missing."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the reference data is not at {SHARED_DATA}")
    return SHARED_DATA
