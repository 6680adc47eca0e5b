"""A small CLIPSeg with random weights, in the files of the published ones on the hub.

Run as a program, it goes to the folder of the first argument; with ``published`` as the second,
its tokenizer too is in the files of then.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

from tiny_towers import TINY_VISION, tiny_text, tiny_tokenizer


def make_tiny_clipseg(folder: Path) -> None:
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    config = CLIPSegConfig(
        text_config=tiny_text(tokenizer), vision_config=TINY_VISION, projection_dim=24,
        reduce_dim=16, extract_layers=[1, 2, 4], decoder_num_attention_heads=2,
        decoder_intermediate_size=32, use_complex_transposed_convolution=True,
    )  # fmt: skip
    model = CLIPSegForImageSegmentation(config)
    decoder, words = model.decoder, model.clip.text_model
    with torch.no_grad():  # else, untrained, neither a word nor a place would matter much
        words.embeddings.token_embedding.weight.normal_()
        for text_layer in words.encoder.layers:
            text_layer.self_attn.v_proj.weight.normal_()
        decoder.film_mul.weight.normal_()
        for reduce in decoder.reduces:
            reduce.weight.mul_(0.05)
        for convolution in decoder.transposed_convolution[::2]:
            convolution.reset_parameters()
        decoder.transposed_convolution[-1].weight.mul_(50)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor = {
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "ViTFeatureExtractor",
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "resample": 2,
        "size": 64,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))


def as_published(folder: Path) -> None:
    """Write the tokenizer in the files that the hub has: vocabulary and merges."""
    tokenizer = folder / "tokenizer.json"
    model = json.loads(tokenizer.read_text())["model"]
    merges = (merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"])
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text("\n".join(("#version: 0.2", *merges, "")))
    tokenizer.unlink()
    start, end = ({"content": f"<|{name}oftext|>"} for name in ("start", "end"))
    special = {"bos_token": start, "eos_token": end, "pad_token": end, "unk_token": end}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))


if __name__ == "__main__":
    make_tiny_clipseg(Path(sys.argv[1]))
    if "published" in sys.argv[2:]:
        as_published(Path(sys.argv[1]))
