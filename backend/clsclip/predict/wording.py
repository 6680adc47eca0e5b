"""What of a typed word the text encoder should read."""

from __future__ import annotations

import re
from typing import Final

_ARTICLE: Final = re.compile(r"^(?:an?|the|some|all|any|every)\s+(?=\S)", re.IGNORECASE)


def without_article(word: str) -> str:
    """A word without the article or quantifier in front of it, and without a final full stop.

    Prompt templates bring an article of their own, and whether a person types one means nothing.
    Case and spaces are the tokenizer's business.

    >>> without_article("A nucleus"), without_article("all the cells."), without_article("a")
    ('nucleus', 'cells', 'a')
    """
    bare = word.strip().rstrip(".").strip() or word.strip()
    while (shorter := _ARTICLE.sub("", bare)) != bare:
        bare = shorter
    return bare
