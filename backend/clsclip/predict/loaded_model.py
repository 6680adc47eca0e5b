"""A network in memory, the heads of the words that it was taught, and the words asked so far.

A spelling that means the same as a word which the model has read, such as its plural, is read as
that word: how a person spells it does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from clsclip.config import DEFAULT_MODEL
from clsclip.errors import InvalidConfigError
from clsclip.model.checkpoint import load_word_heads
from clsclip.model.clsclip import ClsClip
from clsclip.model.config import read_config
from clsclip.model.network import Network, load_network
from clsclip.model.word_heads import HeadChoice, WordHead, head_like, with_word_head
from clsclip.predict.asked import Asked
from clsclip.predict.wording import without_article
from clsclip.words import other_spellings

_MAX_CACHED_WORDS: Final = 4096


class LoadedModel:
    """A network that can be asked for words; see :mod:`clsclip.model.word_heads`.

    Parameters
    ----------
    folder : Path
        Model directory.
    name : str
        What the user calls it.
    device : torch.device
    dtype : torch.dtype
        Number format to compute in.

    Attributes
    ----------
    network : Network

    Raises
    ------
    ModelUnavailableError, CheckpointError
    """

    def __init__(self, folder: Path, name: str, device: torch.device, dtype: torch.dtype) -> None:
        self._name = name
        self.network = load_network(folder, device, dtype)
        self._heads: tuple[WordHead, ...] = ()
        self._words: tuple[str, ...] = ()
        if isinstance(self.network, ClsClip):
            self._heads = load_word_heads(folder, self.network)
            self._words = read_config(folder).words
        self._head_of = self._choice()
        self._spellings = self._known_spellings()
        self._text_cls: dict[tuple[str, bool], Tensor] = {}

    def require_clsclip(self, purpose: str) -> ClsClip:
        """The network, for what only a ClsCLIP can do.

        Parameters
        ----------
        purpose : str
            Goes on after "cannot".

        Raises
        ------
        InvalidConfigError
            If it is another one.
        """
        if isinstance(self.network, ClsClip):
            return self.network
        raise InvalidConfigError(
            f"The model '{self._name}' is a CLIPSeg and cannot {purpose}. Choose a ClsCLIP, such "
            f"as '{DEFAULT_MODEL}'."
        )

    def teach(self, words: Sequence[str], head: Mapping[str, Tensor]) -> None:
        """Answer for some words with another head on the same towers.

        Parameters
        ----------
        words : sequence of str
            Canonical.
        head : mapping of str to Tensor
            As :meth:`clsclip.model.clsclip.ClsClip.head_state` gives it; the same shapes.

        Raises
        ------
        InvalidConfigError
            If the model is no ClsCLIP.
        """
        new = WordHead(tuple(words), head_like(self.require_clsclip("be taught"), head))
        self._heads = with_word_head(self._heads, new)
        self._head_of = self._choice()
        self._spellings = self._known_spellings()
        self._text_cls.clear()

    def ask(self, words: Sequence[str], templates: bool) -> Asked:
        """Words as the network is asked for them, each with the head that answers for it."""
        tokens = tuple(self._word(word, templates) for word in words)
        return Asked(tokens, tuple(self._head_of(without_article(word)) for word in words))

    def _choice(self) -> Callable[[str], Network[Any]]:
        """What finds the head that answers for a word without article."""
        network = self.network
        if isinstance(network, ClsClip):
            return HeadChoice(network, self._heads)
        return lambda _: network

    def _known_spellings(self) -> dict[str, str]:
        """Other spellings of the words that the model has read, and those words."""
        return other_spellings([*(w for each in self._heads for w in each.words), *self._words])

    def _word(self, word: str, templates: bool) -> Tensor:
        """What a word is to the network (T^cls), shape (d,), remembered."""
        key = (word, templates)
        if key not in self._text_cls:
            if len(self._text_cls) >= _MAX_CACHED_WORDS:
                self._text_cls.clear()
            bare = without_article(word)
            read = self._spellings.get(" ".join(bare.lower().split()), bare)
            self._text_cls[key] = self.network.text_cls([read], templates)[0]
        return self._text_cls[key]
