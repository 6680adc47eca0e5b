"""Procedural images whose words, masks, boxes and captions are exactly known."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

import numpy as np

from clsclip.training.examples import Example
from clsclip.training.scenes import biology, objects
from clsclip.training.scenes.wording import Annotations

__all__ = ["Scenes", "microscopy_scene"]

RECENT: Final = 300
"""Scenes that are kept to be seen again, cut and lit in another way."""

NEW_SHARE: Final = 0.35
"""Share of random scenes that are new."""


class Scenes:
    """An endless source of drawn scenes: coloured objects, and imitated microscopy.

    Parameters
    ----------
    seed : int
        Scenes of different seeds are independent.
    size : int
        Side of the images in pixels.
    count : int
        Number of scenes; each one is drawn when it is asked for.
    """

    masked = True
    photographs = False
    uncertain: frozenset[str] = frozenset()
    everywhere: frozenset[str] = frozenset(objects.WORDS)
    words: tuple[str, ...] = (*objects.WORDS, *biology.WORDS)

    def __init__(self, seed: int = 0, *, size: int = 256, count: int = 1_000_000) -> None:
        self._seed = seed
        self._size = size
        self._count = count
        self._recent: deque[int] = deque(maxlen=RECENT)
        self._kept: dict[int, Example] = {}

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < self._count:
            raise IndexError(f"There are {self._count} scenes, but number {index} was asked for.")
        rng = np.random.default_rng((self._seed, index))
        draw = objects.object_scene if rng.random() < 0.5 else biology.biological_scene
        return _example(draw(rng, self._size))

    def draw(self, rng: np.random.Generator) -> Example:
        """A random scene: a new one, or one of the last ones, which costs nothing."""
        full = len(self._recent) == RECENT
        if full and rng.random() >= NEW_SHARE:
            index = self._recent[int(rng.integers(RECENT))]
        else:
            index = int(rng.integers(self._count))
            if full:
                self._kept.pop(self._recent[0], None)
            self._recent.append(index)
        if index not in self._kept:
            self._kept[index] = self[index]
        return self._kept[index]

    @property
    def recent(self) -> tuple[int, ...]:
        """Numbers of the last random scenes, the oldest first; at most :data:`RECENT`."""
        return tuple(self._recent)

    @recent.setter
    def recent(self, numbers: Iterable[int]) -> None:
        self._recent = deque(numbers, maxlen=RECENT)
        self._kept.clear()


def microscopy_scene(rng: np.random.Generator, size: int) -> Example:
    """A scene of imitated microscopy, ``size`` pixels a side."""
    return _example(biology.biological_scene(rng, size))


def _example(scene: Annotations) -> Example:
    return Example(
        image=scene.image,
        masks=scene.masks,
        present=frozenset(scene.masks),
        diameter=scene.diameter,
        boxes={word: np.array(rows, np.float32) for word, rows in scene.boxes.items()},
        captions=scene.captions,
        exact=scene.diameter is None,
    )
