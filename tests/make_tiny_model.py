"""Write a small ClsCLIP model with random weights to the folder of the first argument."""

from __future__ import annotations

import sys

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
    "vocab_size": len(tokenizer),
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "bos_token_id": tokenizer.bos_token_id,
    "eos_token_id": tokenizer.eos_token_id,
    "pad_token_id": tokenizer.pad_token_id,
}
vision = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 6,
    "num_attention_heads": 3,
    "image_size": 64,
    "patch_size": 16,
}
towers = random_towers(CLIPConfig(text_config=text, vision_config=vision), tokenizer)
settings = HeadSettings(decoder_width=24, decoder_heads=3, image_size=64)
save_model(ClsClip(towers, settings), sys.argv[1], source="", bundle=torch.float32)
