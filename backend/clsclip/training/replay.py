"""What the older model knows, so that it is not forgotten: its own answers, asked again.

No training data of the older model need be at hand. Drawn scenes, and the corrected images
themselves, are asked for words that are not learnt now; what the older model says there is the
target (learning without forgetting, ours). Scenes are also asked for the learnt words, which are
absent from them.
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
from clsclip.predict.regions import ANY_OBJECT
from clsclip.training.crops import View, random_view, relight
from clsclip.training.lessons import Lessons
from clsclip.training.prompts import Prompts
from clsclip.training.scenes import Scenes, biology, microscopy_scene
from clsclip.training.tokenizer import EVERYDAY_WORDS

QUESTIONS: Final = 3
"""Words that a remembered view is asked for."""

SCENE_SHARE: Final = 0.6
"""Share of drawn scenes among remembered views; the others show corrected images."""

KNOWN_SHARE: Final = 0.8
"""Share of scenes that show a word that the older model knows, where it knows some."""

_TRIES: Final = 12
"""Scenes drawn at most to find such a one."""

_SCENE_SIZE: Final = 256
"""Side of a drawn scene in pixels."""

EARLIER_SHARE: Final = 0.6
"""Share of images of earlier lessons among those that are not drawn, where there are such."""

_CHUNK: Final = 8
"""Views that the older model answers together."""


@dataclass(frozen=True)
class _Remembered:
    """A view, what to ask of it, and whether it is drawn, so that new words are surely absent."""

    pixels: Tensor
    asked: tuple[str, ...]
    drawn: bool


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
    """Remembered views of one size with several words each; the layers below N1 run once for each.

    Parameters
    ----------
    model : ClsClip
        The older model.
    learnt : Lessons
        Views of the corrected images.
    earlier : sequence of Lessons
        Views of images by which the older model was taught other words, as far as at hand.
    known : sequence of str
        Words of microscopy that the older model finds: scenes that show them are preferred.
    count, size : int
        Number of views, and their side S in pixels.
    rng : numpy Generator
    check : callable
        Called now and then; may raise.
    """

    def __init__(
        self,
        model: ClsClip,
        learnt: Lessons,
        earlier: Sequence[Lessons],
        *,
        known: Sequence[str] = (),
        count: int,
        size: int,
        rng: np.random.Generator,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._model, self._learnt, self._earlier = model, learnt, earlier
        self._size, self._rng = size, rng
        self._prompts = Prompts(model, rng)
        self._others = [w for w in (*EVERYDAY_WORDS, *Scenes.words) if w not in learnt.words]
        self._likely = [w for w in biology.WORDS if w not in learnt.words]
        self._known = frozenset(known)
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
        asked = torch.from_numpy(rng.integers(QUESTIONS, size=count))
        return Recalled(
            self._pixels[views], self._shallow[views], self._text[views, asked],
            self._answers[views, asked],
        )  # fmt: skip

    def _view(self) -> _Remembered:
        """A view of a scene, of a corrected image, or of an earlier one."""
        rng = self._rng
        if rng.random() < SCENE_SHARE:
            view = self._scene_view()
            return _Remembered(view.image(rng), self._asked_of_scene(view), drawn=True)
        lessons = self._learnt
        if self._earlier and rng.random() < EARLIER_SHARE:
            lessons = self._earlier[int(rng.integers(len(self._earlier)))]
        index = int(rng.integers(len(lessons)))
        word = lessons.word(index)
        view = lessons.view(index, word, self._size)
        asked = [] if lessons is self._learnt else [word]
        asked += [self._other() for _ in range(QUESTIONS - len(asked))]
        return _Remembered(relight(view.pixels(), False, rng), tuple(asked), drawn=False)

    def _scene_view(self) -> View:
        """A view of a scene, of one with a known word more often than not."""
        rng = self._rng
        wanted = self._known if rng.random() < KNOWN_SHARE else frozenset[str]()
        for _ in range(_TRIES):
            scene = microscopy_scene(rng, _SCENE_SIZE)
            view = random_view(scene, self._size, rng)
            if not wanted or any(view.visible(word) for word in wanted & scene.present):
                break
        return view

    def _asked_of_scene(self, view: View) -> tuple[str, ...]:
        """A learnt word, and others that are there as far as possible."""
        rng, learnt = self._rng, self._learnt.words
        asked = [learnt[int(rng.integers(len(learnt)))]]
        if view.region is not None:
            asked.append(ANY_OBJECT)
        shown = sorted(w for w in view.example.masks if view.visible(w) and w not in learnt)
        order = sorted(map(str, rng.permutation(shown)), key=lambda w: w not in self._known)
        asked += order[: QUESTIONS - len(asked)]
        return (*asked, *(self._other() for _ in range(QUESTIONS - len(asked))))

    def _other(self) -> str:
        """A word that is not learnt now: a known one, one of microscopy, or any."""
        pools = [self._others, self._others, self._likely, sorted(self._known) or self._likely]
        pool = pools[int(self._rng.integers(len(pools)))]
        return pool[int(self._rng.integers(len(pool)))]

    @torch.no_grad()
    def _answered(self, views: Sequence[_Remembered]) -> tuple[Tensor, ...]:
        """Pixels, input of layer N1, tokens of the words and answers of some views."""
        device = next(self._model.decoder.parameters()).device
        dtype = fast_dtype(device)
        pixels = torch.stack([view.pixels for view in views]).to(device)
        asked = [word for view in views for word in view.asked]
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            text = self._prompts(asked)
            encoded = self._model.encode(pixels)
            logits = self._model.decode(encoded.repeat(QUESTIONS), text)
        answers = logits.float().sigmoid()
        new = set(self._learnt.words).difference(Scenes.words)
        absent = [view.drawn and word in new for view in views for word in view.asked]
        answers[torch.tensor(absent, device=device)] = 0.0
        answers = answers.to(torch.float16).view(len(views), QUESTIONS, *answers.shape[1:])
        return (
            pixels,
            encoded.shallow.float(),
            text.float().view(len(views), QUESTIONS, -1),
            answers,
        )
