"""Batches of views with the words to ask of each: present ones, absent ones."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from typing import Final

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from clsclip.errors import InvalidConfigError
from clsclip.predict.regions import ANY_OBJECT
from clsclip.training.crops import View, patch_parts, random_view
from clsclip.training.drawn import REMEMBERED, Drawn
from clsclip.training.examples import Source
from clsclip.training.prefetch import prefetch
from clsclip.training.run import TrainingSettings
from clsclip.training.scenes import Scenes
from clsclip.words import withheld

_AHEAD: Final = 4
"""Batches prepared while the network computes."""

ALIKE: Final = 0.25
"""Share of absent words that have a part in common with a word of the view: "red star" where
there is a red circle."""

OWN: Final = 0.2
"""Share of absent words that are other words of the same source."""

RECENT: Final = 0.35
"""Share of absent words that were lately asked where they are present: so a word is asked about as
often where it is absent, however few its examples are, and has no head start."""


class ViewSettings(TrainingSettings):
    """How many views of which size a step takes."""

    image_size: int = Field(
        224, title="Image size", description="Side of the network's input in pixels.", ge=16
    )
    batch_size: int = Field(
        16,
        title="Batch size",
        description="Images per step at the image size; more at the first size, for as many "
        "pixels.",
        ge=1,
    )
    first_size: int = Field(
        144,
        title="First size",
        description="Side of the views in the first part of the run, in which images are cheap.",
        ge=16,
    )
    first_part: float = Field(
        0.0, title="First part", description="Part of the run with the first size.", ge=0, le=1
    )

    def plan(self, part: float) -> tuple[int, int]:
        """Images of the next batch and their side, once ``part`` (0 to 1) of a run is over."""
        if part >= self.first_part or self.first_size >= self.image_size:
            return self.batch_size, self.image_size
        images = self.batch_size * (self.image_size / self.first_size) ** 2
        return round(images), self.first_size


@dataclass(frozen=True)
class Batch:
    """Images and questions about them.

    Attributes
    ----------
    images : Tensor of float32, shape (B, 3, S, S)
        RGB in [0, 1].
    words : tuple of str, length B * Q
        Canonical words, Q for each image: those of the first image, then of the second... One of
        them is :data:`clsclip.predict.regions.ANY_OBJECT` where a view shows one object's box; its
        mask is the one of the object's word, and only pixels inside the box count.
    masks, valid : Tensor of bool, shape (B * Q, S, S)
        Mask of each word (empty for an absent one) and the pixels that count.
    located : Tensor of bool, shape (B * Q,)
        False where a word is in the image but its mask is not known: it may be used as an
        image-level word only.
    present, absent : tuple of frozenset of str, length B
        Words that are certainly in an image, and certainly not.
    captions : tuple of str, length B
        A true sentence about the whole example; empty where there is none.
    seed : tuple of int
        Another one for every batch of a run, for what is drawn when it is used.
    cover : tuple of mapping of str to Tensor of float32, shape (m,), length B
        Part of every patch that a word covers, of each word with a mask; empty unless asked for.
    vouched : Tensor of bool, shape (B, m)
        Patches all pixels of which count; empty unless asked for.
    """

    images: Tensor
    words: tuple[str, ...]
    masks: Tensor
    valid: Tensor
    located: Tensor
    present: tuple[frozenset[str], ...]
    absent: tuple[frozenset[str], ...]
    captions: tuple[str, ...]
    seed: tuple[int, ...]
    cover: tuple[Mapping[str, Tensor], ...] = ()
    vouched: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.bool))


def vocabulary(sources: Iterable[Source]) -> tuple[str, ...]:
    """All words of some sources, each once."""
    return tuple(dict.fromkeys(word for source in sources for word in source.words))


class Sampler:
    """Draws batches from several sources.

    What a batch holds follows from the seed, its number and what was drawn lately, so that a run
    that goes on from a checkpoint draws what it would have drawn.

    Parameters
    ----------
    sources : sequence of Source
    weights : sequence of float
        Share of each source in the batches.
    plan : callable
        Returns (B, S), images of the batch of a number and their side.
    pairs : int
        Questions per image; about half of them about absent words where there are present ones.
    unseen : frozenset of str
        Words whose masks are withheld, see :func:`clsclip.words.withheld`.
    image_level : bool
        Use words without masks, the unseen ones among them, as words of whole images. False: as
        in the inductive setting of section 5 of the paper, they do not occur at all.
    seed : int
        Not negative.
    patch : int
        Side of the patches for which it is told which words they show; 0: it is not.
    numbers : iterator of int, optional
        Numbers of the batches; by default 0, 1, 2...
    drawn : Drawn, optional
        What was drawn before the first of them. It follows the batches that are taken from the
        iterator, which itself is ahead of them.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        weights: Sequence[float],
        *,
        plan: Callable[[int], tuple[int, int]],
        pairs: int,
        seed: int,
        unseen: frozenset[str] = frozenset(),
        image_level: bool = False,
        patch: int = 0,
        numbers: Iterator[int] | None = None,
        drawn: Drawn | None = None,
    ) -> None:
        self._sources = sources
        self._weights = np.asarray(weights, dtype=float) / sum(weights)
        self._plan, self._pairs = plan, pairs
        self._image_level, self._patch = image_level, patch
        self._vocabulary = vocabulary(sources)
        self._unseen = withheld(self._vocabulary, unseen)
        self._seed, self._numbers = seed, count() if numbers is None else numbers
        self._rng = np.random.default_rng(seed)
        self._askable = [
            _askable(index, sources) - (frozenset() if image_level else self._unseen)
            for index in range(len(sources))
        ]
        self._own = [
            tuple(sorted(set(s.words) & a)) for s, a in zip(sources, self._askable, strict=True)
        ]
        self._parts = _parts(self._vocabulary)
        self._places = {word: place for place, word in enumerate(self._vocabulary)}
        self._drawn = Drawn() if drawn is None else drawn
        self._recent = deque(
            (self._vocabulary[place] for place in self._drawn.known(self._drawn.words)
             if place < len(self._vocabulary)),
            maxlen=REMEMBERED,
        )  # fmt: skip
        self._scenes = next((source for source in sources if isinstance(source, Scenes)), None)
        if self._scenes is not None:
            self._scenes.recent = self._drawn.known(self._drawn.scenes)

    def __iter__(self) -> Iterator[Batch]:
        """Endless batches, prepared ahead by one thread."""
        with closing(prefetch(self._batch_and_state, _AHEAD)) as batches:
            for batch, words, scenes in batches:
                self._drawn.take(words, scenes)
                yield batch

    def _batch_and_state(self) -> tuple[Batch, tuple[int, ...], tuple[int, ...]]:
        """A batch, and what was drawn lately after it."""
        batch = self.batch()
        words = tuple(self._places[word] for word in self._recent)
        return batch, words, () if self._scenes is None else self._scenes.recent

    def batch(self) -> Batch:
        """The next batch, drawn now."""
        number = next(self._numbers)
        self._rng = np.random.default_rng((self._seed, number))
        images_asked, size = self._plan(number)
        images, words, masks, valid, located, captions = [], [], [], [], [], []
        present: list[frozenset[str]] = []
        absent: list[frozenset[str]] = []
        cover: list[dict[str, Tensor]] = []
        certain: list[Tensor] = []
        for index in self._rng.choice(len(self._sources), images_asked, p=self._weights):
            drawn = self._sources[index].draw(self._rng)
            view = random_view(drawn, size, self._rng, self._unseen)
            example = view.example
            visible = {word for word in example.masks if view.visible(word)}
            known = visible - self._unseen
            without_mask = (example.present - example.masks.keys()) | (visible - known)
            weak = set(without_mask) if self._image_level else set()
            present.append(frozenset(known | weak))
            absent.append(self._askable[index] - example.present)
            images.append(view.image(self._rng))
            captions.append(self._caption(view))
            vouched = view.valid()
            if self._patch:
                cover.append({w: patch_parts(view.mask(w), self._patch) for w in sorted(known)})
                certain.append(patch_parts(vouched, self._patch) == 1)
            annotated = sorted(example.present - self._unseen)
            room = self._pairs
            if view.region is not None and view.region[0] in known:
                words.append(ANY_OBJECT)
                masks.append(view.mask(view.region[0]))
                valid.append(vouched & view.boxed())
                located.append(True)
                room -= 1
            for word in self._questions(index, room, known, weak, absent[-1], annotated):
                words.append(word)
                masks.append(view.mask(word) if word in known else torch.zeros_like(vouched))
                valid.append(vouched)
                located.append(word not in weak)
        return Batch(
            torch.stack(images), tuple(words), torch.stack(masks), torch.stack(valid),
            torch.tensor(located), tuple(present), tuple(absent), tuple(captions),
            (self._seed, number), tuple(cover),
            torch.stack(certain) if certain else torch.zeros(0, 0, dtype=torch.bool),
        )  # fmt: skip

    def _caption(self, view: View) -> str:
        """A caption, where the view shows (almost) all that it speaks of."""
        captions = view.example.captions
        rows, columns = view.example.image.shape[:2]
        whole = view.height >= 0.8 * rows and view.width >= 0.8 * columns
        if not (self._image_level and captions and whole):
            return ""
        return captions[int(self._rng.integers(len(captions)))]

    def _questions(
        self,
        index: int,
        count: int,
        known: set[str],
        weak: set[str],
        absent: frozenset[str],
        annotated: Sequence[str],
    ) -> list[str]:
        """Words to ask of a view; ``annotated`` ones where none is certainly absent."""
        rng = self._rng
        half = count // 2 or min(int(rng.integers(2)), count)
        chosen = [str(w) for w in rng.permutation(sorted(known))[:half]]
        room = min(half + 1, count) - len(chosen)
        chosen += [str(w) for w in rng.permutation(sorted(weak))[: max(room, 0)]]
        alike = sorted(
            {w for word in chosen for part in word.split() for w in self._parts[part]} & absent
        )
        own = [word for word in self._own[index] if word in absent]
        recent = [word for word in self._recent if word in absent]
        self._recent.extend(word for word in chosen if word in known)
        while len(chosen) < count:
            kind = rng.random()
            pool: Sequence[str] = ()
            if kind < ALIKE:
                pool = alike
            elif kind < ALIKE + OWN:
                pool = own
            elif kind < ALIKE + OWN + RECENT:
                pool = recent
            if not pool:
                pool = self._foreign(absent) or annotated
            if not pool:
                raise InvalidConfigError(
                    "The data holds one word only and no masks: there is nothing to learn from. "
                    "Add a folder with masks or with other words."
                )
            chosen.append(pool[int(rng.integers(len(pool)))])
        return chosen

    def _foreign(self, absent: frozenset[str]) -> Sequence[str]:
        """Absent words of one source, so that a source of one word is asked as often as others."""
        for number in self._rng.permutation(len(self._sources)):
            words = [word for word in self._sources[number].words if word in absent]
            if words:
                return words
        return ()


def _askable(index: int, sources: Sequence[Source]) -> frozenset[str]:
    """Words that are absent from a source's images wherever they are not annotated."""
    source = sources[index]
    others = [other for number, other in enumerate(sources) if number != index]
    foreign = {word for other in others for word in frozenset(other.words) - other.everywhere}
    doubtful = set(source.uncertain)
    if source.photographs and not source.masked:
        # a photograph of a chair may show the person on it
        annotated = (other for other in others if other.photographs and other.masked)
        doubtful.update(word for other in annotated for word in other.words)
    return frozenset(foreign - doubtful | set(source.words))


def _parts(words: Iterable[str]) -> defaultdict[str, set[str]]:
    """Words by each of their parts."""
    parts: defaultdict[str, set[str]] = defaultdict(set)
    for word in words:
        for part in word.split():
            parts[part].add(word)
    return parts


def target_matrix(batch: Batch, words: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Which words fit which images, and for which pairs that is known.

    Parameters
    ----------
    batch : Batch
    words : sequence of str, length T
        In the order of the columns.

    Returns
    -------
    target, known : Tensor of bool, shape (B, T)
    """
    target = np.zeros((len(batch.images), len(words)), dtype=bool)
    known = np.zeros_like(target)
    for row, (present, absent) in enumerate(zip(batch.present, batch.absent, strict=True)):
        target[row] = [word in present for word in words]
        known[row] = [word in present or word in absent for word in words]
    return torch.from_numpy(target), torch.from_numpy(known)


def caption_matrix(batch: Batch) -> Tensor:
    """Which captions fit which images: each its own, bool, shape (B, captions that are there)."""
    rows = [row for row, caption in enumerate(batch.captions) if caption]
    matrix = torch.zeros(len(batch.captions), len(rows), dtype=torch.bool)
    matrix[rows, torch.arange(len(rows))] = True
    return matrix
