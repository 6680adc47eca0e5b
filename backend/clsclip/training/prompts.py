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

    Of a frozen text encoder, what it said once is remembered. It reads one prompt at a time, for
    beside others, and padded to their length, the last bits of its answer would be other ones; a
    run that goes on from a checkpoint, and remembers nothing, has to get the same. One that is
    trained itself reads all prompts of a step anew.

    Parameters
    ----------
    model : ClsClip
    """

    def __init__(self, model: ClsClip) -> None:
        self._model = model
        self._known: dict[str, Tensor] = {}

    def __call__(self, words: Sequence[str], rng: np.random.Generator) -> Tensor:
        """T^cls of each word, shape (P, d); the generator draws spellings and templates."""
        templates = self._model.settings.prompt_templates
        prompts = [random_prompt(word, templates, rng) for word in words]
        if any(p.requires_grad for p in self._model.towers.clip.text_model.parameters()):
            places = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
            return self._model.towers.text_cls(list(places))[[places[p] for p in prompts]].float()
        return self._remembered(prompts)

    @torch.no_grad()
    def _remembered(self, prompts: Sequence[str]) -> Tensor:
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._known]
        if len(self._known) + len(new) > _MAX_PROMPTS:
            self._known.clear()
            new = list(dict.fromkeys(prompts))
        for prompt in new:
            self._known[prompt] = self._model.towers.text_cls([prompt])[0].float()
        return torch.stack([self._known[prompt] for prompt in prompts])
