"""The paper's CLIP, ViT-B/16, in its full size with random weights, against transformers.

Only the weights of the hub are missing here.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import CLIPConfig

from clsclip.model.clip import ClipTowers, normalise, random_towers
from clsclip.model.clsclip import ClsClip
from clsclip.model.config import HeadSettings
from clsclip.training.fit import FitSettings, trained_parts
from clsclip.training.tokenizer import train_tokenizer

WORDS = ["nucleus", "a photo of a red blood cell."]


@pytest.fixture(scope="module")
def towers() -> ClipTowers:
    """As ``config.json`` of openai/clip-vit-base-patch16 has it, but for the vocabulary."""
    tokenizer = train_tokenizer(["nucleus"] * 2)
    config = CLIPConfig(
        projection_dim=512,
        text_config={
            "vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048,
            "num_hidden_layers": 12, "num_attention_heads": 8, "max_position_embeddings": 77,
            "hidden_act": "quick_gelu", "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1,
        },
        vision_config={
            "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
            "num_attention_heads": 12, "image_size": 224, "patch_size": 16,
            "hidden_act": "quick_gelu",
        },
    )  # fmt: skip
    torch.manual_seed(0)
    return random_towers(config, tokenizer)


@pytest.fixture(scope="module")
def model(towers: ClipTowers) -> ClsClip:
    settings = FitSettings(data="DIR")
    return ClsClip(
        towers, HeadSettings(**{k: getattr(settings, k) for k in HeadSettings.model_fields})
    )


def reference(towers: ClipTowers, pixels: Tensor, replaced: dict[int, Tensor]) -> tuple[Any, ...]:
    """Hidden states of transformers' own encoder; hooks put other tokens in the place of [CLS]."""

    def replacing(cls: Tensor) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            tokens = inputs[0].clone()
            tokens[:, 0] = cls
            return (tokens, *inputs[1:])

        return hook

    hooks = [
        towers.clip.vision_model.encoder.layers[index].register_forward_pre_hook(replacing(cls))
        for index, cls in replaced.items()
    ]
    output = towers.clip.vision_model(
        pixel_values=normalise(pixels), interpolate_pos_encoding=True, output_hidden_states=True
    )
    for hook in hooks:
        hook.remove()
    return (*output.hidden_states[:-1], output.last_hidden_state)


@torch.no_grad()
def test_every_hidden_state_is_that_of_transformers(towers: ClipTowers) -> None:
    assert (towers.width, towers.text_width, towers.patch_size) == (768, 512, 16)
    pixels = torch.rand(1, 3, 352, 352)
    expected = reference(towers, pixels, {})
    assert len(expected) == 13
    tokens = towers.embed(pixels)
    assert tokens.shape == (1, 1 + 22 * 22, 768)
    for index in range(12):
        torch.testing.assert_close(tokens, expected[index])
        tokens = towers.run_layer(index, tokens)
    torch.testing.assert_close(tokens, expected[12])


@torch.no_grad()
def test_the_text_cls_takes_the_place_of_the_visual_one(model: ClsClip) -> None:
    towers = model.towers
    tokens = towers.tokenizer(WORDS, padding=True, return_tensors="pt")
    output = towers.clip.text_model(**tokens)
    ends = (tokens["input_ids"] == towers.tokenizer.eos_token_id).int().argmax(dim=1)
    text_cls = towers.text_cls(WORDS)
    torch.testing.assert_close(text_cls, output.last_hidden_state[torch.arange(2), ends])
    pixels = torch.rand(2, 3, 64, 96)
    replaced = {index: model.projections[str(index)](text_cls) for index in (2, 3, 4)}
    assert all(cls.shape == (2, 768) for cls in replaced.values())
    expected = reference(towers, pixels, replaced)
    encoded = model.encode(pixels)
    torch.testing.assert_close(encoded.shallow, expected[2])
    guided = model.guide(encoded.shallow, text_cls)
    torch.testing.assert_close(guided, expected[12])
    plain = reference(towers, pixels, {})[12]
    assert float((guided - plain)[:, 1:].abs().max()) > 1e-3
    assert model(pixels, text_cls).shape == (2, 64, 96)


def test_one_step_moves_the_head_and_nothing_else(model: ClsClip) -> None:
    frozen = {name: value.clone() for name, value in model.towers.named_parameters()}
    trained = trained_parts(model).train()
    before = {name: value.detach().clone() for name, value in trained.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(torch.rand(1, 3, 32, 32), model.towers.text_cls(WORDS[:1])).sigmoid().mean().backward()
    assert all(model.projections[str(index)].weight.grad.abs().sum() > 0 for index in (2, 3, 4))
    optimizer.step()
    assert all(not torch.equal(value, before[name]) for name, value in trained.named_parameters())
    for name, value in model.towers.named_parameters():
        assert value.grad is None
        assert torch.equal(value, frozen[name]), name
