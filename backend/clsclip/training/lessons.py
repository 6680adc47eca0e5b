"""Views of corrected images, at the scales at which the predictor will look at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clsclip.predict.transforms import resize
from clsclip.training.corrections import Correction
from clsclip.training.crops import View, relight
from clsclip.zoom import COMPANION, REFINEMENTS, refined_zoom, whole_image_zoom

ON_OBJECT: Final = 0.75
"""Share of views that are centred near a pixel of the word, where there is one."""

ASKED_PRESENT: Final = 0.8
"""Share of views of an image that are asked for a word that the image shows."""

EARLIER_SHARE: Final = 0.4
"""Share of views of images of earlier lessons, where there are some."""

ZOOM_JITTER: Final = 0.3
"""Largest difference of a view's zoom from the predictor's, as a natural logarithm."""


@dataclass(frozen=True)
class Lesson:
    """Views with one word each.

    Attributes
    ----------
    images : Tensor of float32, shape (B, 3, S, S)
        RGB in [0, 1].
    words : tuple of str, length B
        Canonical.
    masks, valid : Tensor of bool, shape (B, S, S)
        Mask of each word, and the pixels that a person vouches for.
    seed : tuple of int
        For what is drawn when they are used.
    """

    images: Tensor
    words: tuple[str, ...]
    masks: Tensor
    valid: Tensor
    seed: tuple[int, ...] = ()


class Lessons:
    """Draws views of corrections, turned, mirrored and relit.

    Parameters
    ----------
    corrections : sequence of Correction
    words : sequence of str
        What is learnt; every correction has a mask of at least one.
    image_size : int
        Side in pixels of what the network reads at once when it predicts.
    rng : numpy Generator
    earlier : sequence of Correction
        Of earlier lessons of some of the words.
    """

    def __init__(
        self,
        corrections: Sequence[Correction],
        words: Sequence[str],
        image_size: int,
        rng: np.random.Generator,
        earlier: Sequence[Correction] = (),
    ) -> None:
        self.words = tuple(words)
        self._new = len(corrections)
        self._corrections, self._rng = (*corrections, *earlier), rng
        self._image_size = image_size
        self._zooms: dict[tuple[int, str], tuple[float, ...]] = {}

    def draw(self, count: int, size: int, seed: tuple[int, ...] = ()) -> Lesson:
        """``count`` views of ``size`` pixels a side; new images are all drawn equally often.

        With a seed, what is drawn follows from it alone.
        """
        if seed:
            self._rng = np.random.default_rng(seed)
        rng = self._rng
        images, words, masks, valid = [], [], [], []
        for _ in range(count):
            index = self._index()
            word = self.word(index)
            view = self.view(index, word, size)
            images.append(relight(view.pixels(), False, rng))
            words.append(word)
            masks.append(view.mask(word))
            valid.append(view.valid())
        return Lesson(
            torch.stack(images), tuple(words), torch.stack(masks), torch.stack(valid), seed
        )

    def view(self, index: int, word: str, size: int) -> View:
        """A random view of one correction.

        Parameters
        ----------
        index : int
            Which correction.
        word : str
            The view is centred near one of its pixels more often than not; else, near one of
            those for which a person vouches.
        size : int
            S, side in model pixels.
        """
        rng = self._rng
        example = self._corrections[index].example
        zooms = self._zooms_of(index, word)
        zoom = zooms[int(rng.integers(len(zooms)))]
        zoom *= float(np.exp(rng.uniform(-ZOOM_JITTER, ZOOM_JITTER)))
        side = max(8, round(size / zoom))
        corner = []
        mask = example.masks[word]
        found = np.argwhere(mask) if mask.any() and rng.random() < ON_OBJECT else None
        if found is None and example.ignore is not None:
            found = np.argwhere(~example.ignore)  # elsewhere there is nothing to learn
        centre = None if found is None else found[int(rng.integers(len(found)))]
        for axis, length in enumerate(mask.shape):
            spare = length - side
            if spare <= 0:
                corner.append(-(-spare // 2))
            elif centre is None:
                corner.append(int(rng.integers(spare + 1)))
            else:
                near = centre[axis] - side / 2 + rng.uniform(-0.35, 0.35) * side
                corner.append(int(np.clip(round(near), 0, spare)))
        return _MirroredView(
            example, size, corner[0], corner[1], side, side, bool(rng.random() < 0.5),
            int(rng.integers(4)),
        )  # fmt: skip

    def _index(self) -> int:
        earlier = len(self._corrections) - self._new
        if earlier and self._rng.random() < EARLIER_SHARE:
            return self._new + int(self._rng.integers(earlier))
        return int(self._rng.integers(self._new))

    def word(self, index: int) -> str:
        """A word to ask of a view of one correction: one that it shows more often than not."""
        correction = self._corrections[index]
        asked = correction.asked(self.words)
        shown = [word for word in asked if word in correction.shows]
        pool = shown if shown and self._rng.random() < ASKED_PRESENT else asked
        return pool[int(self._rng.integers(len(pool)))]

    def _zooms_of(self, index: int, word: str) -> tuple[float, ...]:
        if (index, word) not in self._zooms:
            mask = self._corrections[index].example.masks[word]
            self._zooms[index, word] = predicted_zooms(mask, self._image_size)
        return self._zooms[index, word]


class _MirroredView(View):
    """A view beyond whose image the image goes on as its mirror image, like microscopy."""

    @property
    def microscopy(self) -> bool:
        """Whether scale and direction mean nothing in the example."""
        return True


def predicted_zooms(mask: NDArray[np.bool_], image_size: int) -> tuple[float, ...]:
    """Zooms at which the predictor looks at an image whose mask it finds.

    Parameters
    ----------
    mask : ndarray of bool, shape (H, W)
    image_size : int
        Side in pixels of what the network reads at once.

    Returns
    -------
    tuple of float
        Model pixels per image pixel of the looks that the predictor takes, the first one first.
    """
    zooms = [whole_image_zoom((mask.shape[0], mask.shape[1]), image_size)]
    plane = torch.from_numpy(mask.astype(np.float32))[None, None]
    for _ in range(REFINEMENTS):
        rows, columns = (max(1, round(zooms[-1] * length)) for length in mask.shape)
        seen: NDArray[np.bool_] = (resize(plane, (rows, columns))[0, 0] >= 0.5).numpy()
        finer = refined_zoom(seen, zooms[-1])
        if finer is None:
            break
        zooms.append(finer)
    if len(zooms) > 1:
        zooms.append(max(zooms[0], zooms[-1] * COMPANION))
    return tuple(dict.fromkeys(zooms))
