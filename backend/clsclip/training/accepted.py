"""What people have accepted: annotations of the store, as corrections to learn from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import psutil
from numpy.typing import NDArray

from clsclip.errors import ClsClipError, FileError, InvalidConfigError, NotFoundError
from clsclip.predict.transforms import to_rgb
from clsclip.store.store import AnnotationStore
from clsclip.training.corrections import Correction
from clsclip.training.examples import Example
from clsclip.wire_annotations import Annotation
from clsclip.words import canonical

MEMORY_PART: Final = 0.3
"""Part of the free memory that images and masks may take."""


@dataclass(frozen=True)
class Accepted:
    """What there is to learn from in a store.

    Attributes
    ----------
    corrections : tuple of Correction
        In the order in which the annotations joined the store. The name of each is the SHA-256 of
        its image, so that annotations of one image have one name.
    images : mapping of str to frozenset of str
        All images in that order, also those that were left out, and which words they show.
    """

    corrections: tuple[Correction, ...]
    images: Mapping[str, frozenset[str]]


def read_accepted(
    store: AnnotationStore, words: Sequence[str], tell: Callable[[str], None]
) -> Accepted:
    """Read the latest versions of all annotations that were asked for some words.

    An annotation has a mask of those words alone for which it was asked, perhaps an empty one:
    that a word is absent was accepted too. Pixels for which nobody vouches are ignored. An image
    is taken as it was shown, with its contrast limits. Annotations that cannot be read are left
    out, and so are the oldest ones where memory is short; ``tell`` is told so.

    Parameters
    ----------
    store : AnnotationStore
    words : sequence of str
        Canonical; all spellings of them in the store are meant.
    tell : callable
        Takes a line for people.

    Raises
    ------
    NotFoundError
        If the store is empty, or a word is in none of its annotations.
    FileError
        If no annotation that can be read shows a word.
    StoreError
        If the database cannot be used.
    """
    spellings = _spellings(store, words)
    asked = store.asked([each for found in spellings.values() for each in found])
    images: dict[str, frozenset[str]] = {}
    for annotation in asked:
        shown = _shown(annotation, spellings)
        images[annotation.image_sha256] = images.get(annotation.image_sha256, shown) | shown
    room = MEMORY_PART * psutil.virtual_memory().available
    corrections: list[Correction] = []
    unread: list[str] = []
    for number, annotation in enumerate(reversed(asked)):
        try:
            correction = _correction(store, annotation, spellings)
        except ClsClipError as error:
            unread.append(error.message)
            tell(f"Annotation {annotation.id} is left out: {error.message}")
            continue
        room -= correction.example.image.nbytes / 3 * (4 + len(correction.example.masks))
        if room < 0 and corrections:
            tell(f"The {len(asked) - number} oldest annotations are left out: memory is short.")
            break
        corrections.append(correction)
    _require_shown(words, corrections, store.folder, unread)
    return Accepted(tuple(reversed(corrections)), images)


def _require_shown(
    words: Sequence[str], corrections: Sequence[Correction], folder: Path, unread: Sequence[str]
) -> None:
    for word in words:
        if not any(word in correction.shows for correction in corrections):
            damaged = (
                f" {len(unread)} annotations cannot be read; the newest one: {unread[0]}"
                if unread
                else ""
            )
            raise FileError(
                f"No accepted annotation in '{folder}' shows a pixel of '{word}'. Paint "
                f"where it is in at least one image, and accept it.{damaged}"
            )


def _shown(annotation: Annotation, spellings: Mapping[str, Sequence[str]]) -> frozenset[str]:
    """Words with a pixel that counts, as the database has it."""
    found = {
        spelled.casefold()
        for spelled, pixels in zip(annotation.words, annotation.pixels, strict=True)
        if pixels
    }
    return frozenset(
        word
        for word, spelled in spellings.items()
        if any(each.casefold() in found for each in spelled)
    )


def accepted_words(text: str) -> tuple[str, ...]:
    """Canonical words from ``--words``, each once.

    Raises
    ------
    InvalidConfigError
        If there is none.
    """
    words = tuple(dict.fromkeys(canonical(part) for part in text.split(",") if part.strip()))
    if not words:
        raise InvalidConfigError(
            "Say what to learn: --words WORD,... for accepted annotations (--store), or --images, "
            "--labels and --word for a folder of labelled images."
        )
    return words


def _spellings(store: AnnotationStore, words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Every way in which the store spells each word."""
    known = store.words()
    if not known:
        raise NotFoundError(
            f"The annotation store '{store.folder}' is empty. Accept corrected planes in napari "
            "(Learn, Accept this plane), or add labelled images with 'napari-clsclip-train import'."
        )
    found = {
        word: tuple(each for each in known if canonical(each) == word or each.casefold() == word)
        for word in words
    }
    for word, spelled in found.items():
        if not spelled:
            raise NotFoundError(
                f"No accepted annotation in '{store.folder}' was asked for '{word}', only for "
                f"{', '.join(known)}. Choose among these, or accept some with '{word}'."
            )
    return found


def _correction(
    store: AnnotationStore, annotation: Annotation, spellings: Mapping[str, Sequence[str]]
) -> Correction:
    arrays = store.read(annotation)
    ignore = None if arrays.vouched is None else ~arrays.vouched
    masks: dict[str, NDArray[np.bool_]] = {}
    for word, spelled in spellings.items():
        folded = {each.casefold() for each in spelled}
        ids = [k for k, each in enumerate(annotation.words, start=1) if each.casefold() in folded]
        if ids:
            mask = np.isin(arrays.labels, ids)
            masks[word] = mask if arrays.vouched is None else mask & arrays.vouched
    rgb = to_rgb(arrays.image, annotation.details.contrast_limits)
    return Correction(
        annotation.image_sha256,
        Example(
            image=np.round(rgb * 255).astype(np.uint8),
            masks=masks,
            present=frozenset(word for word, mask in masks.items() if mask.any()),
            ignore=ignore,
        ),
    )
