"""What a person has corrected: images with label images, as examples to learn from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from clsclip.config import Settings
from clsclip.errors import ClsClipError, FileError
from clsclip.image_files import list_images, read_image
from clsclip.predict.transforms import to_rgb
from clsclip.training.class_ids import chosen_words, read_classes, word_labels
from clsclip.training.examples import Example
from clsclip.training.formats import read_labels


class LabelledSettings(Settings):
    """Which images with label images."""

    images: str = Field(title="Images", description="Folder of images.")
    labels: str = Field(
        title="Labels",
        description="Folder of label images (PNG or TIFF, integers) of the same names: nonzero = "
        "the word, or class ids with a classes.csv (id,name) beside them.",
    )
    word: str = Field(
        "",
        title="Word",
        description="The word of the labels. With a classes.csv: some of its classes, with "
        "commas; empty: all of them.",
    )
    ignore: int | None = Field(
        None,
        title="Ignore",
        description="Value of label pixels for which nobody vouches; without it, a person vouches "
        "for the background too.",
    )


@dataclass(frozen=True)
class Correction:
    """One image whose masks of learnt words a person vouches for.

    Attributes
    ----------
    name : str
        Tells images apart, and stays the same from run to run: it decides which are held out.
    example : Example
        Has a mask, perhaps an empty one, of every learnt word for which the person was asked;
        ``ignore`` marks the pixels that nobody vouches for.
    """

    name: str
    example: Example

    @property
    def shows(self) -> frozenset[str]:
        """Words with at least one pixel that counts."""
        return self.example.present

    def asked(self, words: Iterable[str]) -> tuple[str, ...]:
        """Those of some words that have a mask, perhaps an empty one."""
        return tuple(word for word in words if word in self.example.masks)


@dataclass(frozen=True)
class LabelledImage:
    """An image file and what its label file says.

    Attributes
    ----------
    file : Path
        Of the image.
    image : ndarray, shape (H, W) or (H, W, C)
        As it is stored.
    masks : dict of str to ndarray of bool, shape (H, W)
        Mask of every word, perhaps an empty one.
    unknown : ndarray of bool, shape (H, W)
        Pixels for which nobody vouches.
    """

    file: Path
    image: NDArray[Any]
    masks: dict[str, NDArray[np.bool_]]
    unknown: NDArray[np.bool_]


def read_labelled(
    images: Path, labels: Path, word: str, ignore: int | None = None
) -> tuple[tuple[str, ...], Iterator[LabelledImage]]:
    """Read a folder of images and one of label images of the same names, one by one.

    Parameters
    ----------
    images, labels : Path
    word : str
        See :func:`clsclip.training.class_ids.chosen_words`.
    ignore : int, optional
        Value of label pixels for which nobody vouches: neither a word nor background.

    Returns
    -------
    words : tuple of str
        Canonical.
    labelled : iterator of LabelledImage
        By name of the file.

    Raises
    ------
    FileError
        If an image or a label image is missing, cannot be read, is of another size than its
        partner or no label image.
    InvalidConfigError
    """
    pairs = _pairs(images, labels)
    classes = read_classes(labels)
    words = chosen_words(word, classes, labels)

    def read() -> Iterator[LabelledImage]:
        for image_file, label_file in pairs:
            image, values = read_image(image_file), read_labels(label_file)
            if image.shape[:2] != values.shape:
                raise FileError(
                    f"'{label_file}' is {values.shape[0]} x {values.shape[1]} pixels, its image "
                    f"'{image_file}' {image.shape[0]} x {image.shape[1]}. They must be of one size."
                )
            unknown = np.zeros(values.shape, bool) if ignore is None else values == ignore
            if unknown.all():
                raise FileError(
                    f"Every pixel of '{label_file}' has the value {ignore} and is ignored: there "
                    "is nothing to learn. Leave the image out, or give another --ignore."
                )
            known = np.where(unknown, 0, values)
            masks = {name: word_labels(label_file, known, name, classes) > 0 for name in words}
            yield LabelledImage(image_file, image, masks, unknown)

    return words, read()


def read_corrections(
    images: Path, labels: Path, word: str, ignore: int | None = None
) -> tuple[tuple[str, ...], tuple[Correction, ...]]:
    """Read a folder of images and one of label images of the same names.

    Parameters
    ----------
    images, labels, word, ignore
        See :func:`read_labelled`.

    Returns
    -------
    words : tuple of str
        Canonical.
    corrections : tuple of Correction
        By name of the file.

    Raises
    ------
    FileError, InvalidConfigError
        As :func:`read_labelled` does; or if no pixel of a word is labelled anywhere.
    """
    words, labelled = read_labelled(images, labels, word, ignore)
    corrections = tuple(
        Correction(
            each.file.stem,
            Example(
                image=_rgb(each),
                masks=each.masks,
                present=frozenset(name for name in words if each.masks[name].any()),
                ignore=each.unknown if each.unknown.any() else None,
            ),
        )
        for each in labelled
    )
    _require_words(words, corrections, labels)
    return words, corrections


def _require_words(words: Sequence[str], corrections: Sequence[Correction], labels: Path) -> None:
    for name in words:
        if not any(name in correction.shows for correction in corrections):
            raise FileError(
                f"No label image in '{labels}' has a pixel of '{name}': the labels are empty. "
                "Paint where it is in at least one image."
            )


def _pairs(images: Path, labels: Path) -> list[tuple[Path, Path]]:
    """Every image with its label file, no file without partner."""
    found = {}
    for folder, what in ((images, "image"), (labels, "label image")):
        files: dict[str, Path] = {}
        for file in list_images(folder):
            other = files.setdefault(file.stem, file)
            if other != file:
                raise FileError(
                    f"'{other}' and '{file}' have one name: it is not clear which is the {what}. "
                    "Remove one of them."
                )
        found[what] = files
    for here, there, folder in (("image", "label image", labels), ("label image", "image", images)):
        alone = sorted(found[here].keys() - found[there].keys())
        if alone:
            raise FileError(
                f"The {here} '{found[here][alone[0]]}' has no {there} of the same name in "
                f"'{folder}' ({len(alone)} of {len(found[here])} have none). Add what is missing, "
                "or leave them out."
            )
    return [(found["image"][stem], found["label image"][stem]) for stem in found["image"]]


def _rgb(labelled: LabelledImage) -> NDArray[np.uint8]:
    try:
        rgb = to_rgb(labelled.image)
    except ClsClipError as error:
        raise FileError(f"'{labelled.file}': {error.message}") from error
    pixels: NDArray[np.uint8] = np.round(rgb * 255).astype(np.uint8)
    return pixels
