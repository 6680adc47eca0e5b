"""Words as they are put to the text encoder while training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from clsclip.model.clsclip import ClsClip
from clsclip.words import spellings

_MAX_PROMPTS: Final = 100_000
"""Remembered text tokens; a run uses some thousands."""


def random_prompt(word: str, templates: Sequence[str], rng: np.random.Generator) -> str:
    """A word in one of its spellings, half of the time in a template."""
    forms = spellings(word)
    form = word if rng.random() < 0.5 else forms[int(rng.integers(len(forms)))]
    if rng.random() < 0.5:
        return form
    return templates[int(rng.integers(len(templates)))].format(form)


class Prompts:
    """Text tokens of words, each time in a random spelling and template.

    The text encoder is frozen: what it said once is remembered.

    Parameters
    ----------
    model : ClsClip
    rng : numpy Generator
    """

    def __init__(self, model: ClsClip, rng: np.random.Generator) -> None:
        self._model, self._rng = model, rng
        self._known: dict[str, Tensor] = {}

    @torch.no_grad()
    def __call__(self, words: Sequence[str]) -> Tensor:
        """T^cls of each word, shape (P, d)."""
        templates = self._model.settings.prompt_templates
        prompts = [random_prompt(word, templates, self._rng) for word in words]
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._known]
        if len(self._known) + len(new) > _MAX_PROMPTS:
            self._known.clear()
            new = list(dict.fromkeys(prompts))
        if new:
            tokens = self._model.towers.text_cls(new).float()
            self._known.update(zip(new, tokens, strict=True))
        return torch.stack([self._known[prompt] for prompt in prompts])
