"""Towers against transformers, and the loading of weights from folders and the hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from clsclip.errors import CheckpointError, ModelUnavailableError
from clsclip.model.checkpoint import load_model
from clsclip.model.clip import ClipTowers, load_towers, normalise
from clsclip.model.clsclip import ClsClip
from clsclip.model.config import HeadSettings


@pytest.fixture(scope="module")
def towers(tiny_model: Path) -> ClipTowers:
    return load_towers(tiny_model / "clip")


def test_with_no_layer_replaced_hidden_states_equal_transformers(towers: ClipTowers) -> None:
    pixels = torch.rand(2, 3, 64, 96)
    reference = towers.clip.vision_model(
        pixel_values=normalise(pixels), interpolate_pos_encoding=True, output_hidden_states=True
    )
    tokens = towers.embed(pixels)
    for index in range(len(towers.layers)):
        torch.testing.assert_close(tokens, reference.hidden_states[index])
        tokens = towers.run_layer(index, tokens)
    torch.testing.assert_close(tokens, reference.last_hidden_state)
    plain = ClsClip(towers, HeadSettings(replaced_layers=(), decoder_width=8, decoder_heads=1,
                                         image_size=64)).eval()  # fmt: skip
    guided = plain.guide(plain.encode(pixels).shallow, torch.zeros(2, towers.text_width))
    torch.testing.assert_close(guided, reference.last_hidden_state)


def test_text_cls_is_the_end_of_text_token_before_the_projection(towers: ClipTowers) -> None:
    words = ["nucleus", "a photo of a cell"]
    tokens = towers.tokenizer(words, padding=True, return_tensors="pt")
    output = towers.clip.text_model(**tokens)
    ends = (tokens["input_ids"] == towers.tokenizer.eos_token_id).int().argmax(dim=1)
    expected = output.last_hidden_state[torch.arange(2), ends]
    torch.testing.assert_close(towers.text_cls(words), expected)


def test_padding_does_not_change_a_text(towers: ClipTowers) -> None:
    alone = towers.text_cls(["nucleus"])[0]
    beside = towers.text_cls(["nucleus", "a photo of a very long airplane in the sky"])[0]
    torch.testing.assert_close(alone, beside, atol=1e-5, rtol=1e-5)


def test_towers_stay_frozen_and_in_evaluation_mode(towers: ClipTowers) -> None:
    towers.train()
    assert not any(p.requires_grad for p in towers.parameters())
    assert not any(module.training for module in towers.modules())


def test_hub_model_without_network_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelUnavailableError, match=r"openai/clip-vit-base-patch16") as caught:
        load_towers("openai/clip-vit-base-patch16")
    assert "Connect to the network" in caught.value.message
    assert "'mini'" in caught.value.message


def test_foreign_and_truncated_folders_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not hold a readable CLIP model"):
        load_towers(tmp_path)
    towers = load_towers(tiny_model / "clip")
    towers.clip.save_pretrained(tmp_path)
    towers.tokenizer.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="does not hold a readable CLIP model"):
        load_towers(tmp_path)


def test_missing_tensors_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    towers = load_towers(tiny_model / "clip")
    towers.clip.save_pretrained(tmp_path)
    towers.tokenizer.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["vision_config"]["num_hidden_layers"] += 1
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"layers\.6"):
        load_towers(tmp_path)


def test_fingerprint_follows_the_weights_not_the_file(tiny_model: Path) -> None:
    towers = load_towers(tiny_model / "clip")
    before = towers.fingerprint()
    assert before == load_towers(tiny_model / "clip").fingerprint()
    assert before == load_model(tiny_model).towers.fingerprint()
    with torch.no_grad():
        towers.clip.logit_scale += 1e-3
    assert towers.fingerprint() != before
