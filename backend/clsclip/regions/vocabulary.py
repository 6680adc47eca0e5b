"""Which of a detector's class words a typed word means: its spellings, and known synonyms."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

from clsclip.errors import InvalidWordError
from clsclip.predict.wording import without_article
from clsclip.words import meaning, plural

_LISTED: Final = 12


def normalised(word: str) -> str:
    """A word without what does not change its meaning: case, article, hyphens, full stop.

    >>> normalised("The Cell-Phone."), normalised("A  nucleus")
    ('cell phone', 'nucleus')
    """
    text = unicodedata.normalize("NFKC", word).casefold()
    return without_article(" ".join(re.sub(r"[-_]", " ", text).split()))


class Vocabulary:
    """The class words of a detector.

    Parameters
    ----------
    words : sequence of str
        In the order of the detector's scores. Of words that differ in spelling only, or mean the
        same, the first one is found, unless another one is exactly what was typed.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self._index: dict[str, int] = {}
        for spell in _SPELLS:
            for index, word in enumerate(self.words):
                self._index.setdefault(spell(word), index)

    def __contains__(self, word: object) -> bool:
        return isinstance(word, str) and self._find(word) is not None

    def index(self, word: str) -> int:
        """Place of a typed word among the class words.

        Raises
        ------
        InvalidWordError
            If it is none of them.

        >>> Vocabulary(["cat", "teddy_bear"]).index("Teddy bears")
        1
        """
        found = self._find(word)
        if found is None:
            listed = ", ".join(self.words[:_LISTED]) + (", ..." if self.words[_LISTED:] else "")
            raise InvalidWordError(
                f"The detector does not know '{word}', only: {listed}. Type one of these, or let "
                "the regions be chosen automatically."
            )
        return found

    def _find(self, word: str) -> int | None:
        places = (self._index.get(spell(word)) for spell in _SPELLS)
        return next((place for place in places if place is not None), None)


def _plural(word: str) -> str:
    return plural(normalised(word))


def _meaning(word: str) -> str:
    return meaning(normalised(word))


_SPELLS: Final = (normalised, _plural, _meaning)
"""From what a word looks like to what it means."""
