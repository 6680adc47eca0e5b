"""Where words lie to each other for a text encoder, before images are learnt from (ours).

A small text encoder tells words that it has never read by their letters, which is not at all: they
all get nearly the same token, and a network that reads it cannot know what it is asked for. Here
the encoder alone, without images, learns that words are as near to each other as they share
parts ("red circle" and "red star"), in every spelling and template. That takes minutes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clsclip.errors import InvalidConfigError
from clsclip.model.clsclip import ClsClip
from clsclip.training.loop import cosine_rate
from clsclip.training.prompts import random_prompt

MOVED: Final = 40
"""Words per step that are to find their places, each in two spellings."""

HELD: Final = 32
"""Words per step that are to stay where they are."""

LEARNING_RATE: Final = 6e-4

NEAR_WEIGHT: Final = 20.0
"""Weight of the squared error of cosines between words."""

HELD_WEIGHT: Final = 2.0
"""Weight of the squared error of the tokens of words that are held, per channel."""

REPORT_STEPS: Final = 100


def place_words(
    model: ClsClip,
    moved: Sequence[str],
    held: Sequence[str],
    *,
    steps: int,
    seed: int,
    tell: Callable[[str], None] = lambda _: None,
) -> None:
    """Train the text encoder so that the cosine of two words is the part of their parts they share.

    Parameters
    ----------
    model : ClsClip
        Its text encoder is changed; its weights must be free to move.
    moved : sequence of str
        Words that it has not read so far.
    held : sequence of str
        Words whose tokens are to stay as they are.
    steps : int
        Optimizer steps.
    seed : int
    tell : callable
        Takes a line of progress now and then.

    Raises
    ------
    InvalidConfigError
        If there is nothing to move.
    """
    if len(moved) < 2:
        raise InvalidConfigError(
            "--text-steps finds places for words that only drawn scenes have, and there are none. "
            "Give --share scenes=NUMBER, or leave --text-steps out."
        )
    before = copy.deepcopy(model.towers).eval().requires_grad_(False)
    encoder = model.towers.clip.text_model
    parameters = [p for p in encoder.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, fused=True)
    rng = np.random.default_rng((seed, 3))
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * cosine_rate(step / steps, warm_up=0.05)
        words = 2 * [moved[i] for i in rng.permutation(len(moved))[:MOVED]]
        count = len(words)
        words += [held[i] for i in rng.permutation(len(held))[:HELD]]
        prompts = [random_prompt(word, model.settings.prompt_templates, rng) for word in words]
        tokens = model.towers.text_cls(prompts).float()
        near = _distance_error(tokens, shared_parts(words).to(tokens.device), count)
        loss = NEAR_WEIGHT * near
        if words[count:]:
            loss = loss + HELD_WEIGHT * F.mse_loss(tokens[count:], before.text_cls(prompts[count:]))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if (step + 1) % REPORT_STEPS == 0 or step + 1 == steps:
            tell(f"words: step {step + 1} of {steps}, error of cosines {near.item() ** 0.5:.3f}")


def shared_parts(words: Sequence[str]) -> Tensor:
    """Part of the parts of each two words that both have, shape (P, P), in [0, 1].

    >>> shared_parts(["red circle", "red star", "star"])[0].tolist()[1:]
    [0.3333333432674408, 0.0]
    """
    parts = [frozenset(word.split()) for word in words]
    return torch.tensor([[len(a & b) / len(a | b) for b in parts] for a in parts])


def _distance_error(tokens: Tensor, wanted: Tensor, count: int) -> Tensor:
    """Mean squared error of cosines between words, those between two held ones left out."""
    unit = F.normalize(tokens, dim=1)
    counted = torch.ones_like(wanted).fill_diagonal_(0)
    counted[count:, count:] = 0
    return ((unit @ unit.T - wanted) ** 2 * counted).sum() / counted.sum()
