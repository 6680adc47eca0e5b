"""Drawn scenes for a word that is learnt: where it is not, and what the older model knew of it.

No training data of the older model need be at hand. A word that scenes can show is answered as the
older model answers it (learning without forgetting, ours), so that corrected images do not make
the model forget the rest of the world; any other word is absent from them. Words that are not
learnt need no replay: other heads answer for them, see :mod:`clsclip.model.word_heads`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from clsclip.model.clsclip import ClsClip, Encoded
from clsclip.model.device import fast_dtype
from clsclip.training.crops import View, random_view
from clsclip.training.prompts import Prompts
from clsclip.training.scenes import Scenes, microscopy_scene

QUESTIONS: Final = 3
"""Words that a scene is asked for, at most."""

KNOWN_SHARE: Final = 0.6
"""Share of scenes that show a learnt word, where the scenes know one."""

_TRIES: Final = 12
"""Scenes drawn at most to find such a one."""

_SCENE_SIZE: Final = 256
"""Side of a drawn scene in pixels."""

_CHUNK: Final = 8
"""Views that the older model answers together."""


@dataclass(frozen=True)
class Recalled:
    """Pairs of a view and a word with the older model's answer.

    Attributes
    ----------
    images : Tensor of float32, shape (P, 3, S, S)
        RGB in [0, 1].
    shallow : Tensor of float32, shape (P, 1 + m, D)
        Input of layer N1 for each view.
    text : Tensor of float32, shape (P, d)
        T^cls of each word.
    answers : Tensor of float16, shape (P, S, S)
        Foreground probabilities.
    """

    images: Tensor
    shallow: Tensor
    text: Tensor
    answers: Tensor

    def encoded(self, model: ClsClip) -> Encoded:
        """What a model that shares the older one's towers knows before it reads the words."""
        side = self.images.shape[-1] // model.towers.patch_size
        return Encoded(self.shallow, model.decoder.look(self.images), (side, side))


class Memory:
    """Views of scenes with learnt words each; the layers below N1 run once for each view.

    Parameters
    ----------
    model : ClsClip
        The older head.
    words : sequence of str
        What is learnt, canonical.
    count, size : int
        Number of views, and their side S in pixels.
    rng : numpy Generator
    check : callable
        Called now and then; may raise.
    """

    def __init__(
        self,
        model: ClsClip,
        words: Sequence[str],
        *,
        count: int,
        size: int,
        rng: np.random.Generator,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._model, self._words = model, tuple(words)
        self._size, self._rng = size, rng
        self._prompts = Prompts(model)
        self._drawable = frozenset(words).intersection(Scenes.words)
        found = []
        for start in range(0, count, _CHUNK):
            check()
            views = [self._view() for _ in range(start, min(start + _CHUNK, count))]
            found.append(self._answered(views))
        self._pixels, self._shallow, self._text, self._answers = map(
            torch.cat, zip(*found, strict=True)
        )

    def draw(self, count: int, rng: np.random.Generator) -> Recalled:
        """Random pairs."""
        views = torch.from_numpy(rng.integers(len(self._pixels), size=count))
        asked = torch.from_numpy(rng.integers(self._text.shape[1], size=count))
        return Recalled(
            self._pixels[views], self._shallow[views], self._text[views, asked],
            self._answers[views, asked],
        )  # fmt: skip

    def _view(self) -> View:
        """A view of a scene, of one with a learnt word more often than not."""
        rng = self._rng
        wanted = self._drawable if rng.random() < KNOWN_SHARE else frozenset[str]()
        for _ in range(_TRIES):
            scene = microscopy_scene(rng, _SCENE_SIZE)
            view = random_view(scene, self._size, rng)
            if not wanted or any(view.visible(word) for word in wanted & scene.present):
                break
        return view

    def _asked(self, view: View) -> list[str]:
        """Learnt words, those that are there first."""
        shown = {w for w in self._drawable & view.example.present if view.visible(w)}
        order = sorted(map(str, self._rng.permutation(self._words)), key=lambda w: w not in shown)
        return order[:QUESTIONS]

    @torch.no_grad()
    def _answered(self, views: Sequence[View]) -> tuple[Tensor, ...]:
        """Pixels, input of layer N1, tokens of the words and answers of some views."""
        device = next(self._model.decoder.parameters()).device
        dtype = fast_dtype(device)
        pixels = torch.stack([view.image(self._rng) for view in views]).to(device)
        asked = [word for view in views for word in self._asked(view)]
        each = len(asked) // len(views)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            text = self._prompts(asked, self._rng)
            encoded = self._model.encode(pixels)
            logits = self._model.decode(encoded.repeat(each), text)
        answers = logits.float().sigmoid()
        absent = [word not in self._drawable for word in asked]
        answers[torch.tensor(absent, device=device)] = 0.0
        answers = answers.to(torch.float16).view(len(views), each, *answers.shape[1:])
        return (
            pixels,
            encoded.shallow.float(),
            text.float().view(len(views), each, -1),
            answers,
        )
