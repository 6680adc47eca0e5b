"""Annotations from folders of images and label images into the store, and out of it again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from tifffile import imwrite

from clsclip.config import StoreSettings
from clsclip.errors import ClsClipError, FileError, NotFoundError
from clsclip.predict.transforms import to_rgb
from clsclip.store.annotation import AnnotationArrays
from clsclip.store.store import opened_store
from clsclip.training.corrections import LabelledImage, LabelledSettings, read_labelled
from clsclip.wire_annotations import Annotation, Correction, Details

IGNORED: Final = 65535
"""Value of exported label pixels for which nobody vouches."""


class ImportSettings(LabelledSettings, StoreSettings):
    """What is imported."""


class ExportSettings(StoreSettings):
    """What is exported."""

    output: str = Field(title="Output", description="Folder in which one folder per word is made.")
    word: str = Field("", title="Word", description="This word only; empty: all words.")


@dataclass(frozen=True)
class Imported:
    """What became of the files of an import."""

    added: int
    known: int

    def __str__(self) -> str:
        return f"{self.added} annotations added, {self.known} were in the store already"


def import_annotations(settings: ImportSettings) -> Imported:
    """Keep images with label images; what is in the store already is not added again.

    Raises
    ------
    FileError, InvalidConfigError, InvalidImageError, StoreError
        The files before the bad one have been added.
    """
    images, labels = (Path(p).expanduser() for p in (settings.images, settings.labels))
    words, labelled = read_labelled(images, labels, settings.word, settings.ignore)
    added = known = 0
    with opened_store(settings) as store:
        for each in labelled:
            correction = _correction(each, words)
            try:
                found = store.find(correction) is not None
                if not found:
                    store.add(correction)
            except ClsClipError as error:
                raise type(error)(f"'{each.file}': {error.message}") from error
            known += found
            added += not found
    return Imported(added, known)


def _correction(labelled: LabelledImage, words: tuple[str, ...]) -> Correction:
    ids = np.zeros(labelled.unknown.shape, np.uint16)
    for class_id, word in enumerate(words, start=1):
        ids[labelled.masks[word]] = class_id
    details = Details(source=labelled.file.name, origin="import")
    return Correction(labelled.image, ids, words, ~labelled.unknown, details)


def export_annotations(settings: ExportSettings) -> Iterator[Path]:
    """Write the latest version of every annotation, apart for each word.

    ``OUTPUT/WORD/images`` and ``OUTPUT/WORD/labels`` hold TIFF files of the same names: labels are
    1 where the word is, 0 where it is not, and :data:`IGNORED` where nobody vouches. An image for
    which a word was never asked is not in the folder of that word. Images with contrast limits
    are written as they were shown, in 8 bits; the store keeps the values themselves.

    Yields
    ------
    Path
        Folder of each word, once it is complete.

    Raises
    ------
    NotFoundError
        If there is no annotation with the word.
    FileError
        If a folder is there already, or cannot be written.
    StoreError
        If a file of the store is missing or damaged.
    """
    output = Path(settings.output).expanduser()
    with opened_store(settings) as store:
        words = [settings.word] if settings.word else list(store.words())
        for word in words:
            annotations = store.list(word=word)
            if not annotations:
                raise NotFoundError(
                    f"There is no annotation of '{word}' in '{store.folder}', only of "
                    f"{', '.join(store.words()) or 'nothing'}."
                )
            folder = output / (re.sub(r'[\\/:*?"<>|\x00-\x1f]', "_", word).strip(". ") or "_")
            try:
                for part in ("images", "labels"):
                    (folder / part).mkdir(parents=True)
                for annotation in annotations:
                    _write(folder, annotation, store.read(annotation), word)
            except FileExistsError as error:
                raise FileError(
                    f"'{folder}' is there already. Give another --output, or remove it."
                ) from error
            except OSError as error:
                raise FileError(f"'{folder}' cannot be written ({error}).") from error
            yield folder


def _write(folder: Path, annotation: Annotation, arrays: AnnotationArrays, word: str) -> None:
    folded = " ".join(word.split()).casefold()
    class_id = 1 + [each.casefold() for each in annotation.words].index(folded)
    labels = (arrays.labels == class_id).astype(np.uint16)
    if arrays.vouched is not None:
        labels[~arrays.vouched] = IGNORED
    name = f"{annotation.lineage}.tif"
    imwrite(folder / "labels" / name, labels, compression="zlib")
    imwrite(folder / "images" / name, _shown(annotation, arrays.image), compression="zlib")


def _shown(annotation: Annotation, image: NDArray[Any]) -> NDArray[Any]:
    limits = annotation.details.contrast_limits
    if limits is None or (image.dtype == np.uint8 and limits == (0.0, 255.0)):
        return image
    rgb = to_rgb(image, limits)
    shown: NDArray[np.uint8] = np.round((rgb if image.ndim == 3 else rgb[..., 0]) * 255).astype(
        np.uint8
    )
    return shown
