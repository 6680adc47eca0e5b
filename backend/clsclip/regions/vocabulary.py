"""Which of a detector's class words a typed word means.

Only spellings; synonyms, which :func:`clsclip.words.canonical` knows, are not asked for yet.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

from clsclip.errors import InvalidWordError
from clsclip.predict.wording import without_article
from clsclip.words import plural

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
        In the order of the detector's scores. Of words that differ in spelling only, the first
        one is found.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self._index: dict[str, int] = {}
        for spell in (normalised, _plural):
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
        return self._index.get(normalised(word), self._index.get(_plural(word)))


def _plural(word: str) -> str:
    return plural(normalised(word))
