"""Class words: one canonical spelling per class, and the spellings that people use for it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from clsclip.errors import FileError

_SPELLINGS: Final[dict[str, tuple[str, ...]]] = {
    "nucleus": ("nuclei", "cell nucleus", "cell nuclei", "nucleuses"),
    "red blood cell": ("red blood cells", "erythrocyte", "erythrocytes", "rbc"),
    "white blood cell": ("white blood cells", "leukocyte", "leukocytes", "wbc"),
    "platelet": ("platelets", "thrombocyte", "thrombocytes"),
    "person": ("people", "human", "man", "woman"),
    "airplane": ("airplanes", "aeroplane", "plane", "aircraft"),
    "motorcycle": ("motorcycles", "motorbike", "motorbikes"),
    "car": ("cars", "car side", "automobile"),
    "cell phone": ("cell phones", "cellphone", "mobile phone"),
    "couch": ("couches", "sofa"),
    "tv": ("tvs", "television"),
    "potted plant": ("potted plants", "house plant"),
    "dining table": ("dining tables", "table"),
    "bicycle": ("bicycles", "bike"),
    "bacterium": ("bacteria",),
    "pollen": ("pollen grain", "pollen grains"),
    "tissue": ("tissues",),
    "vessel": ("vessels", "blood vessel", "blood vessels"),
    "face": ("faces",),
    "leopard": ("leopards",),
    "crocodile": ("crocodiles", "crocodile head"),
    "flamingo": ("flamingos", "flamingo head"),
    "cougar": ("cougars", "cougar body", "cougar face"),
    "water lily": ("water lilies", "water lilly"),
    "inline skate": ("inline skates", "roller skate"),
    "gerenuk": ("gerenuks",),
    "knife": ("knives",),
    "bus": ("buses",),
    "sheep": (),
    "scissors": (),
    "skis": (),
}
"""Spellings beside the canonical one; a class that is not here only gets a plural."""

_ONE_THING: Final = frozenset({"nucleus", "red blood cell", "white blood cell", "platelet",
                               "airplane", "motorcycle", "cell phone", "couch", "tv", "bicycle",
                               "bacterium", "vessel"})  # fmt: skip
"""Words of which no spelling means only a part or a kind, as "woman" does of "person"."""

_CANONICAL: Final = {
    spelling: word for word, spellings in _SPELLINGS.items() for spelling in (word, *spellings)
}


def canonical(name: str) -> str:
    """The class word for a name found in data: a folder, a category, a tag.

    >>> canonical("Car_Side"), canonical("nuclei"), canonical("starfish")
    ('car', 'nucleus', 'starfish')
    """
    text = " ".join(name.replace("_", " ").replace("-", " ").lower().split())
    return _CANONICAL.get(text, text)


def meaning(name: str) -> str:
    """The class word for what a person typed, if both mean exactly the same; else the name.

    >>> meaning("erythrocytes"), meaning("woman")
    ('red blood cell', 'woman')
    """
    word = canonical(name)
    return word if word in _ONE_THING else name


def other_spellings(words: Iterable[str]) -> dict[str, str]:
    """Spellings that mean exactly the same as one of some words, and that word.

    Plurals, and names of the same thing; what is itself one of the words is left out, and so are
    spellings that mean only a part of it, as "woman" does of "person".

    >>> other_spellings(["star", "red blood cell"])["stars"]
    'star'
    """
    known = dict.fromkeys(words)
    found: dict[str, str] = {}
    for word in known:
        listed = _SPELLINGS.get(word, (plural(word),))
        for spelling in listed if word in _ONE_THING else listed[:1]:
            if spelling not in known:
                found.setdefault(spelling, word)
    return found


def word_list(text: str) -> frozenset[str]:
    """Class words from a text with commas, or from a file with one word per line.

    Raises
    ------
    FileError
        If the file cannot be read.

    >>> sorted(word_list("Cats, nuclei"))
    ['cats', 'nucleus']
    """
    file = Path(text).expanduser()
    lines = [text.replace(",", "\n")]
    if file.suffix == ".txt":
        try:
            lines = file.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise FileError(f"The list of words '{file}' cannot be read ({error}).") from error
    names = [name.strip() for line in lines for name in line.partition("#")[0].split("\n")]
    return frozenset(canonical(name) for name in names if name)


def withheld(words: Iterable[str], unseen: frozenset[str]) -> frozenset[str]:
    """Those of some words that are unseen, or are phrases with an unseen single word.

    >>> sorted(withheld(["star", "red star", "red cross"], frozenset({"star"})))
    ['red star', 'star']
    """
    return frozenset(w for w in words if w in unseen or unseen.intersection(w.split()))


def plural(word: str) -> str:
    """English plural of a regular noun.

    >>> plural("butterfly"), plural("toothbrush"), plural("cell")
    ('butterflies', 'toothbrushes', 'cells')
    """
    if word.endswith(("s", "x", "ch", "sh", "z")):
        return f"{word}es"
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return f"{word[:-1]}ies"
    return f"{word}s"


def spellings(word: str) -> tuple[str, ...]:
    """Everything a person may type for a class word, the canonical spelling first."""
    listed = _SPELLINGS.get(word, (plural(word),))
    article = f"{'an' if word[0] in 'aeiou' else 'a'} {word}"
    return (word, *listed, article)
