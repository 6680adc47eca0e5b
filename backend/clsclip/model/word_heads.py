"""Heads of their own for words that a model was taught later (ours).

Whatever a head learns changes what it says about every word. So what a model is taught goes into
a copy of its head that answers for the taught words alone: all other words are read by the head
that read them before, and are answered as before, bit for bit. Towers are shared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from clsclip.model.clsclip import ClsClip
from clsclip.words import canonical, spellings

WORD_HEAD_FILE: Final = "word-head-{}.safetensors"
"""Name of the file with the k-th head, k from 1."""


@dataclass(frozen=True)
class WordHead:
    """A head and the words that it answers for.

    Attributes
    ----------
    words : tuple of str
        Canonical.
    head : ClsClip
        Shares its towers with the model's own head.
    """

    words: tuple[str, ...]
    head: ClsClip


def head_like(model: ClsClip, state: Mapping[str, Tensor]) -> ClsClip:
    """A head of the same shape on the same towers, with other weights, where ``model`` is."""
    head = ClsClip(model.towers, model.settings)
    head.load_state_dict(state, strict=False)
    of_model = next(model.decoder.parameters())
    return head.to(of_model.device, of_model.dtype).eval().requires_grad_(False)


def with_word_head(heads: Sequence[WordHead], new: WordHead) -> tuple[WordHead, ...]:
    """Heads after a lesson: the new one answers for its words, the others for those left to them.

    One that has no word left is dropped.
    """
    left = (
        WordHead(tuple(word for word in each.words if word not in new.words), each.head)
        for each in heads
    )
    return (*(each for each in left if each.words), new)


class HeadChoice:
    """Finds the head that answers for a typed word.

    Parameters
    ----------
    base : ClsClip
        Answers for every word that no other head has.
    heads : iterable of WordHead
    """

    def __init__(self, base: ClsClip, heads: Iterable[WordHead]) -> None:
        self._base = base
        self._heads = {
            canonical(spelling): each.head
            for each in heads
            for word in each.words
            for spelling in spellings(word)
        }

    def __call__(self, word: str) -> ClsClip:
        """The head for a word without article, in any of its spellings."""
        return self._heads.get(canonical(word), self._base)
