"""Where words lie to each other before images are learnt from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from clsclip.errors import InvalidConfigError
from clsclip.model.checkpoint import load_model
from clsclip.training.word_places import place_words, shared_parts

WORDS = ["red circle", "red star", "blue circle", "blue star", "star", "circle"]
HELD = ["nucleus", "airplane"]


def test_words_come_to_lie_as_near_as_they_share_parts(tiny_model: Path) -> None:
    model = load_model(tiny_model)
    model.towers.clip.text_model.requires_grad_(True)
    wanted, kept = shared_parts(WORDS), model.text_cls(HELD).detach()
    vision = {k: v.clone() for k, v in model.towers.clip.vision_model.state_dict().items()}

    def error() -> float:
        with torch.no_grad():
            unit = F.normalize(model.text_cls(WORDS), dim=1)
        return float((unit @ unit.T - wanted).abs().mean())

    before = error()
    place_words(model, WORDS, HELD, steps=150, seed=0)
    assert error() < 0.5 * before
    change = (model.text_cls(HELD).detach() - kept).norm(dim=1) / kept.norm(dim=1)
    assert float(change.max()) < 0.25
    after = model.towers.clip.vision_model.state_dict()
    assert all(torch.equal(after[name], weights) for name, weights in vision.items())


def test_there_must_be_words_to_move(tiny_model: Path) -> None:
    with pytest.raises(InvalidConfigError, match="--share scenes"):
        place_words(load_model(tiny_model), [], HELD, steps=1, seed=0)
