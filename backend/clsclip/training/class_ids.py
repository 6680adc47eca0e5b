"""Which pixels of a label image belong to which word.

Without ``classes.csv`` beside the label images, every nonzero pixel is the one word that is asked
for. With it, values are class ids, as ``napari-clsclip-label`` writes them; where there is a table
``<stem>.features.csv`` of single objects too, values are ids of objects and the table names the
class of each.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clsclip.errors import FileError, InvalidConfigError
from clsclip.words import canonical

CLASSES_FILE: Final = "classes.csv"


def read_classes(labels: Path) -> dict[int, str] | None:
    """Class word of every id, from ``classes.csv`` (columns ``id`` and ``name``) of a folder.

    Returns
    -------
    dict of int to str, or None
        Canonical words; None where there is no such file.

    Raises
    ------
    FileError
        If it has other columns, an id that is no positive integer or comes twice, or no row.
    """
    file = labels / CLASSES_FILE
    if not file.exists():
        return None
    classes: dict[int, str] = {}
    for row in _rows(file, ("id", "name")):
        value, name = _integer(file, row["id"]), canonical(row["name"])
        if value < 1 or value in classes or not name:
            raise FileError(
                f"'{file}': the id '{row['id']}' with the name '{row['name']}' cannot be used. "
                "Every class needs an id of its own from 1 on, and a name; 0 is the background."
            )
        classes[value] = name
    if not classes:
        raise FileError(f"'{file}' names no class. Remove it, or give it rows of id,name.")
    return classes


def chosen_words(word: str, classes: Mapping[int, str] | None, labels: Path) -> tuple[str, ...]:
    """Canonical words to learn or measure.

    Parameters
    ----------
    word : str
        One word or, where there are classes, several with commas; empty: all classes.
    classes : mapping of int to str, or None
        From :func:`read_classes`.
    labels : Path
        Folder of the label images, for messages.

    Raises
    ------
    InvalidConfigError
        If there is no word, a word is no class, or several words have no classes.
    """
    asked = tuple(dict.fromkeys(canonical(part) for part in word.split(",") if part.strip()))
    if classes is None:
        if len(asked) != 1:
            raise InvalidConfigError(
                f"--word '{word}': give one word for the nonzero pixels of the label images in "
                f"'{labels}', or put a {CLASSES_FILE} (id,name) there to tell several apart."
            )
        return asked
    known = tuple(dict.fromkeys(classes.values()))
    foreign = [name for name in asked if name not in known]
    if foreign:
        raise InvalidConfigError(
            f"--word '{word}': '{labels / CLASSES_FILE}' names no class '{foreign[0]}', only "
            f"{', '.join(known)}. Choose among these, or correct that file."
        )
    return asked or known


def word_labels(
    file: Path, labels: NDArray[np.integer[Any]], word: str, classes: Mapping[int, str] | None
) -> NDArray[np.integer[Any]]:
    """The label image with 0 wherever it is not of the word.

    Parameters
    ----------
    file : Path
        Where the label image comes from.
    labels : ndarray of int, shape (H, W)
    word : str
        Canonical.
    classes : mapping of int to str, or None
        From :func:`read_classes`.

    Raises
    ------
    FileError
        If the image holds a value whose class is not known.
    """
    if classes is None:
        return labels
    table = file.with_suffix(".features.csv")
    source = table if table.exists() else file.with_name(CLASSES_FILE)
    if table.exists():
        rows = _rows(table, ("label", "class"))
        classes = {_integer(table, row["label"]): canonical(row["class"]) for row in rows}
    unknown = sorted(set(np.unique(labels).tolist()) - {0, *classes})
    if unknown:
        raise FileError(
            f"'{file}' holds the value {unknown[0]}, for which '{source}' names no class. Add it "
            "there, or say with --ignore that its pixels do not count."
        )
    mine = [value for value, name in classes.items() if name == word]
    return np.where(np.isin(labels, mine), labels, 0)


def _rows(file: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            table = csv.DictReader(stream)
            if not set(columns) <= set(table.fieldnames or ()):
                raise FileError(
                    f"'{file}' has the columns {table.fieldnames}; expected {', '.join(columns)}."
                )
            return [{name: row[name] or "" for name in columns} for row in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FileError(f"'{file}' cannot be read as a table ({error}).") from error


def _integer(file: Path, text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise FileError(f"'{file}': '{text}' is no integer.") from error
