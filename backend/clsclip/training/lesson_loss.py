"""The loss of a lesson: masks of corrected images, and answers about drawn scenes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from torch import Tensor

from clsclip.model.clsclip import ClsClip, Encoded
from clsclip.model.device import fast_dtype
from clsclip.training.lessons import Lesson
from clsclip.training.losses import mask_loss, recall_loss, seen_loss
from clsclip.training.prompts import Prompts
from clsclip.training.replay import Memory

RECALL_WEIGHT: Final = 4.0
"""Weight of the divergence from the older model's answers."""


class LessonLoss:
    """Loss of a lesson together with as many remembered views as belong to it.

    Parameters
    ----------
    model : ClsClip
        The one in training.
    memory : callable
        Makes the remembered views of a size; asked once per size, when it is first needed.
    remembered : callable
        Number of remembered views in a batch of views of a size.
    """

    def __init__(
        self,
        model: ClsClip,
        memory: Callable[[int], Memory],
        remembered: Callable[[int], int],
    ) -> None:
        self._model, self._make, self._remembered = model, memory, remembered
        self._prompts = Prompts(model)
        self._memories: dict[int, Memory] = {}

    def __call__(self, lesson: Lesson) -> dict[str, Tensor]:
        """Named losses, which are added."""
        device = next(self._model.decoder.parameters()).device
        dtype = fast_dtype(device)
        size, count = lesson.images.shape[-1], len(lesson.words)
        rng = np.random.default_rng((*lesson.seed, 1))  # spellings, templates, remembered views
        recalled = None
        if self._remembered(size):
            if size not in self._memories:
                self._memories[size] = self._make(size)
            recalled = self._memories[size].draw(self._remembered(size), rng)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            text = self._prompts(lesson.words, rng)
            encoded = self._model.encode(lesson.images.to(device))
            if recalled is not None:
                text = torch.cat([text, recalled.text])
                encoded = _joined(encoded, recalled.encoded(self._model))
            logits, presence = self._model.answer(encoded, text)
        masks, valid = lesson.masks.to(device), lesson.valid.to(device)
        losses = {"mask": mask_loss(logits[:count], masks, valid)}
        if presence is not None:
            visible, whole = (masks & valid).flatten(1).any(1), valid.flatten(1).all(1)
            told = visible | whole  # where pixels are ignored, the word may be among them
            losses["presence"] = (
                seen_loss(presence[:count][told], visible[told])
                if bool(told.any())
                else presence.sum() * 0
            )
        if recalled is not None:
            losses["recall"] = RECALL_WEIGHT * recall_loss(logits[count:], recalled.answers)
        return losses


def _joined(first: Encoded, second: Encoded) -> Encoded:
    """Views of one size, one after the other."""
    detail = None
    if first.detail is not None and second.detail is not None:
        detail = torch.cat([first.detail, second.detail])
    return Encoded(torch.cat([first.shallow, second.shallow]), detail, first.grid)
