"""Write a small ClsCLIP model with random weights to the folder of the first argument."""

from __future__ import annotations

import sys

import torch
from transformers import CLIPConfig

from clsclip.model.checkpoint import save_model
from clsclip.model.clip import random_towers
from clsclip.model.clsclip import ClsClip
from clsclip.model.config import HeadSettings
from tiny_towers import TINY_VISION, tiny_text, tiny_tokenizer

torch.manual_seed(0)
tokenizer = tiny_tokenizer()
towers = random_towers(
    CLIPConfig(text_config=tiny_text(tokenizer), vision_config=TINY_VISION), tokenizer
)
settings = HeadSettings(decoder_width=24, decoder_heads=3, image_size=64)
save_model(ClsClip(towers, settings), sys.argv[1], source="", bundle=torch.float32)
