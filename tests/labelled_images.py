"""Labels with everything that is hard to write: what exports are tested on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clsclip.batch.exports import Labelled

WORDS = ("nucleus", "große Zelle", 'the "third": one')


def hard_labels() -> NDArray[np.uint16]:
    """Class ids 1 to 3, shape (48, 64).

    Objects that touch, at sides and at corners, holes, an object in a hole, objects of one pixel
    and one row, objects at all borders, a slanting line.
    """
    labels = np.zeros((48, 64), np.uint16)
    labels[4:14, 4:14] = 1
    labels[4:14, 14:20] = 2  # at its side
    labels[14:18, 20:24] = 1  # at the corner of that
    labels[7:11, 7:11] = 0
    labels[8, 8] = 3  # in the hole
    labels[20:40, 4:30] = 3
    labels[22:26, 6:12] = labels[30, 20] = labels[24, 27] = labels[25, 28] = 0
    labels[30:36, 8:14] = 2  # instead of a hole
    labels[45, 3] = labels[0, 0] = labels[47, 63] = labels[0, 63] = 2
    labels[0, 30:40] = labels[10:30, 63] = labels[47, 20:50] = 1
    diagonal = np.arange(12)
    labels[25 + diagonal, 40 + diagonal] = labels[25 + diagonal, 60 - diagonal] = 3
    return labels


def hard_objects() -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Ids of objects and the class of each: touching ones of a class, one in pieces, a gap."""
    labels = np.zeros((40, 50), np.uint16)
    labels[2:12, 2:12], labels[2:12, 12:22] = 1, 2
    labels[5:8, 5:8] = 0
    labels[20:24, 20:24] = labels[30:34, 30:34] = 4  # in two pieces
    labels[39, 49] = 5
    return labels, np.array([1, 1, 0, 2, 3], np.uint16)


def labelled(
    labels: NDArray[Any],
    classes: NDArray[Any] | None = None,
    key: str = "sub folder/größe 1",
    words: tuple[str, ...] = WORDS,
) -> Labelled:
    """Labels of an image PNG."""
    return Labelled(Path(f"/images/{key}.png"), key, labels, classes, words, None)


def hard_cases() -> dict[str, Labelled]:
    """By what they are."""
    ids, classes = hard_objects()
    hard = hard_labels()
    stack = np.stack([hard, np.zeros_like(hard), hard[::-1]])
    return {
        "class ids": labelled(hard, key="classes"),
        "objects": labelled(ids, classes),
        "nothing": labelled(np.zeros((30, 31), np.uint16), key="nothing"),
        "full": labelled(np.full((5, 7), 2, np.uint16), key="full"),
        "one pixel": labelled(np.ones((1, 1), np.uint16), key="pixel"),
        "stack": labelled(stack, key="stack"),
        "objects of a stack": labelled(
            np.stack([ids, ids[::-1]]).astype(np.uint32), classes, key="objects"
        ),
    }
