"""Class words as people type them: parted at commas, cleaned, and refused where they cannot be.

How a word is spelled otherwise, see :mod:`clsclip.words`. Nothing here imports torch.
"""

from __future__ import annotations

from clsclip.config import MAX_WORD_LENGTH, MAX_WORDS
from clsclip.errors import InvalidWordError


def parse_words(text: str) -> tuple[str, ...]:
    """Split comma-separated class words.

    Raises
    ------
    InvalidWordError
        If nothing is left, or by :func:`check_words`.
    """
    return check_words(tuple(part for part in text.split(",") if part.strip()))


def check_words(words: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """Strip, collapse white space and drop repetitions (letter case ignored).

    Raises
    ------
    InvalidWordError
        If there is no word, an empty one, one of more than ``MAX_WORD_LENGTH`` characters, or
        more than ``MAX_WORDS`` of them.
    """
    cleaned: dict[str, str] = {}
    for word in words:
        text = " ".join(word.split())
        if not text:
            raise InvalidWordError("A class word is empty. Type what to segment, e.g. 'nucleus'.")
        if len(text) > MAX_WORD_LENGTH:
            raise InvalidWordError(
                f"The class word '{text[:20]}…' has {len(text)} characters; "
                f"at most {MAX_WORD_LENGTH} can be read. Use a short phrase."
            )
        cleaned.setdefault(text.casefold(), text)
    if not cleaned:
        raise InvalidWordError(
            "No class word was given. Type what to segment, e.g. 'nucleus', "
            "or several words separated by commas."
        )
    if len(cleaned) > MAX_WORDS:
        raise InvalidWordError(
            f"{len(cleaned)} class words were given; at most {MAX_WORDS} fit in one request."
        )
    return tuple(cleaned.values())
