"""Which patches of a batch are compared with which words, and what is right.

For :class:`clsclip.model.match.Match`: one view teaches many words, not only those asked of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from clsclip.training.batches import Batch, target_matrix

MOST_COMPARED: Final = 64
"""Most words of the views of a batch with which their patches are compared."""

OTHER_COMPARED: Final = 24
"""Words beside them that are in no view of the batch, or in few."""


def compared_words(batch: Batch, rng: np.random.Generator) -> tuple[str, ...]:
    """Words with which all patches of a batch are compared: those of its views, and others."""
    present = sorted(frozenset[str]().union(*batch.present))
    own = [str(word) for word in rng.permutation(present)[:MOST_COMPARED]]
    absent = sorted(frozenset[str]().union(*batch.absent) - frozenset(own))
    return (*own, *(str(word) for word in rng.permutation(absent)[:OTHER_COMPARED]))


SHOWN: Final = 0.25
"""Least part of a patch that a word covers in order to be shown by it."""


def match_targets(batch: Batch, words: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Which patches show which words, as far as it is known.

    Parameters
    ----------
    batch : Batch
        With ``cover``.
    words : sequence of str, length T

    Returns
    -------
    shown, hidden : Tensor of bool, shape (B, T, m)
        Patches that surely show a word, and those that surely do not.
    somewhere : Tensor of bool, shape (B, T)
        Words that are in an image, nobody says where.
    """
    target, known = target_matrix(batch, words)
    covered = torch.zeros(len(batch.images), len(words), batch.vouched.shape[1])
    located = torch.zeros_like(target)
    for row, cover in enumerate(batch.cover):
        for column, word in enumerate(words):
            if word in cover:
                covered[row, column] = cover[word]
                located[row, column] = True
    certain = batch.vouched[:, None]
    hidden = (covered == 0) & (located | (known & ~target))[..., None] & certain
    return (covered >= SHOWN) & certain, hidden, target & ~located
