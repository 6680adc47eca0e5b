from __future__ import annotations

import pytest

from clsclip.config import MAX_WORD_LENGTH, MAX_WORDS
from clsclip.errors import InvalidWordError
from clsclip.typed_words import check_words, parse_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nucleus", ("nucleus",)),
        (" red  cell , , Nucleus,nucleus ", ("red cell", "Nucleus")),
        ("straße,STRASSE", ("straße",)),
    ],
)
def test_parse_words(text: str, words: tuple[str, ...]) -> None:
    assert parse_words(text) == words


@pytest.mark.parametrize("text", ["", " , ,", ",".join(f"w{k}" for k in range(MAX_WORDS + 1))])
def test_parse_words_refuses(text: str) -> None:
    with pytest.raises(InvalidWordError):
        parse_words(text)


def test_word_lengths() -> None:
    longest = "x" * MAX_WORD_LENGTH
    assert check_words([longest]) == (longest,)
    with pytest.raises(InvalidWordError, match=str(MAX_WORD_LENGTH + 1)):
        check_words([longest + "x"])
    with pytest.raises(InvalidWordError, match="empty"):
        check_words(["cell", " "])
