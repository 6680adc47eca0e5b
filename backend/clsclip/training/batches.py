"""Batches of crops with the words to ask of each: present ones, absent ones."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from clsclip.errors import InvalidConfigError
from clsclip.training.crops import Crop, random_crop
from clsclip.training.sources import Source
from clsclip.training.words import spellings

_AHEAD: Final = 4
"""Batches prepared while the network computes."""


@dataclass(frozen=True)
class Batch:
    """Images and questions about them.

    Attributes
    ----------
    images : Tensor of float32, shape (B, 3, S, S)
        RGB in [0, 1].
    words : tuple of str, length B * Q
        Canonical words, Q for each image: those of the first image, then of the second...
    masks, valid : Tensor of bool, shape (B * Q, S, S)
        Mask of each word (empty for an absent one) and the pixels that count.
    present, absent : tuple of frozenset of str, length B
        Words that are certainly in an image, and certainly not.
    """

    images: Tensor
    words: tuple[str, ...]
    masks: Tensor
    valid: Tensor
    present: tuple[frozenset[str], ...]
    absent: tuple[frozenset[str], ...]


def vocabulary(sources: Sequence[Source]) -> tuple[str, ...]:
    """All words of some sources, each once."""
    return tuple(dict.fromkeys(word for source in sources for word in source.words))


class Sampler:
    """Draws batches from several sources.

    Parameters
    ----------
    sources : sequence of Source
    weights : sequence of float
        Share of each source in the batches.
    size : int
        Side of the crops in pixels.
    batch_size : int
        Images per batch.
    pairs : int
        Questions per image; about half of them about absent words where there are present ones.
    seed : int or sequence of int
    """

    def __init__(
        self,
        sources: Sequence[Source],
        weights: Sequence[float],
        *,
        size: int,
        batch_size: int,
        pairs: int,
        seed: int | Sequence[int],
    ) -> None:
        self._sources = sources
        self._weights = np.asarray(weights, dtype=float) / sum(weights)
        self._size, self._batch_size, self._pairs = size, batch_size, pairs
        self._rng = np.random.default_rng(seed)
        masked = [source for source in sources if source.masked]
        self._asked = vocabulary(masked)
        own = {id(source): frozenset(source.words) for source in sources}
        everything = frozenset(vocabulary(sources))
        photographs = frozenset(w for s in masked if not _objects_measured(s) for w in s.words)
        self._askable = {
            id(source): everything - source.uncertain
            - (frozenset() if source.masked else photographs - own[id(source)])
            for source in sources
        }  # fmt: skip

    def __iter__(self) -> Iterator[Batch]:
        """Endless batches, prepared ahead by one thread."""
        ready: queue.Queue[Batch | BaseException] = queue.Queue(_AHEAD)
        stop = threading.Event()

        def produce() -> None:
            try:
                while not stop.is_set():
                    _put(ready, self.batch(), stop)
            except BaseException as error:  # handed to the consumer, who raises it
                _put(ready, error, stop)

        thread = threading.Thread(target=produce, name="batches", daemon=True)
        thread.start()
        try:
            while True:
                item = ready.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stop.set()
            thread.join()

    def batch(self) -> Batch:
        """One batch, drawn now."""
        crops, askable = [], []
        for index in self._rng.choice(len(self._sources), self._batch_size, p=self._weights):
            source = self._sources[index]
            example = source[int(self._rng.integers(len(source)))]
            crops.append(random_crop(example, self._size, self._rng))
            askable.append(self._askable[id(source)])
        absent = [known - crop.present for crop, known in zip(crops, askable, strict=True)]
        present = [_visible(crop) for crop in crops]
        words, masks, valid = [], [], []
        for index, crop in enumerate(crops):
            for word in self._questions(crop, present[index], absent[index]):
                words.append(word)
                empty = torch.zeros(self._size, self._size, dtype=torch.bool)
                masks.append(crop.masks.get(word, empty))
                valid.append(crop.valid)
        return Batch(
            torch.stack([crop.image for crop in crops]), tuple(words),
            torch.stack(masks), torch.stack(valid), tuple(present), tuple(absent),
        )  # fmt: skip

    def _questions(self, crop: Crop, present: frozenset[str], absent: frozenset[str]) -> list[str]:
        inside = [word for word in crop.masks if word in present]
        chosen = list(self._rng.permutation(inside)[: max(1, self._pairs // 2)]) if inside else []
        missing = sorted(absent) or list(crop.masks)
        if not missing:
            raise InvalidConfigError(
                "The data holds one word only and no masks: there is nothing to learn from. Add "
                "a folder with masks or with other words."
            )
        likely = [word for word in self._asked if word in absent]
        while len(chosen) < self._pairs:
            pool = likely if likely and self._rng.random() < 0.6 else missing
            chosen.append(pool[int(self._rng.integers(len(pool)))])
        return [str(word) for word in chosen]


def _objects_measured(source: Source) -> bool:
    return len(source) > 0 and source[0].diameter is not None


def _visible(crop: Crop) -> frozenset[str]:
    """Words whose mask reaches into the crop, and words of images without masks."""
    return frozenset(
        word for word in crop.present if word not in crop.masks or bool(crop.masks[word].any())
    )


def _put(
    ready: queue.Queue[Batch | BaseException], item: Batch | BaseException, stop: threading.Event
) -> None:
    while not stop.is_set():
        try:
            return ready.put(item, timeout=0.2)
        except queue.Full:
            continue


def random_prompt(word: str, templates: Sequence[str], rng: np.random.Generator) -> str:
    """A word in one of its spellings, half of the time in a template."""
    forms = spellings(word)
    form = word if rng.random() < 0.5 else forms[int(rng.integers(len(forms)))]
    if rng.random() < 0.5:
        return form
    return templates[int(rng.integers(len(templates)))].format(form)


def target_matrix(batch: Batch, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Which texts fit which images, and for which pairs that is known.

    Parameters
    ----------
    batch : Batch
    texts : sequence of str, length T
        Words, in the order of the columns.

    Returns
    -------
    target, known : Tensor of bool, shape (B, T)
    """
    target = np.zeros((len(batch.images), len(texts)), dtype=bool)
    known = np.zeros_like(target)
    for row, (present, absent) in enumerate(zip(batch.present, batch.absent, strict=True)):
        target[row] = [word in present for word in texts]
        known[row] = [word in present or word in absent for word in texts]
    return torch.from_numpy(target), torch.from_numpy(known)
