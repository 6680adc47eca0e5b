"""Labels of an image as other programs want them: what all formats share.

``KEY.tif`` in the output folder is always there; every other format is made from it, so that an
export is the same whether a run was interrupted or a person corrected the labels in between.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from clsclip.batch.files import features_file, label_file, read_labels
from clsclip.config import LabelFormat
from clsclip.errors import FileError, InvalidConfigError, InvalidImageError

MOST_OBJECTS: Final = 2**24
"""Highest id of an object that a table of classes is kept for."""

_LABEL_TYPES: Final = (np.dtype(np.uint16), np.dtype(np.uint32))


@dataclass(frozen=True)
class Labelled:
    """The labels of one image.

    Attributes
    ----------
    image : Path
        The image file, or zarr folder.
    key : str
        Its path in the input folder without the ending, with slashes.
    labels : ndarray of uint16 or uint32, shape (H, W) or (planes, H, W)
        Class ids, or ids of single objects; 0 is background.
    classes : ndarray of int, shape (n,), or None
        Of single objects: ``classes[i - 1]`` is the class id of object ``i``, 0 if there is no
        such object. None if the labels are class ids.
    words : tuple of str
        Word ``k`` has class id ``k + 1``.
    pixel_size : tuple of float, or None
        Height and width of a pixel in micrometres, if known.

    Raises
    ------
    InvalidImageError
        If the labels are of another shape or type, or hold an id that has no class.
    """

    image: Path
    key: str
    labels: NDArray[Any]
    classes: NDArray[Any] | None
    words: tuple[str, ...]
    pixel_size: tuple[float, float] | None

    def __post_init__(self) -> None:
        labels = self.labels
        if labels.ndim not in (2, 3) or labels.size == 0 or labels.dtype not in _LABEL_TYPES:
            raise InvalidImageError(
                f"The labels of '{self.image}' are {labels.dtype} of shape {labels.shape}; "
                "expected uint16 or uint32 of (height, width) or (planes, height, width)."
            )
        classes = np.arange(1, len(self.words) + 1) if self.classes is None else self.classes
        if classes.size and not 0 <= classes.min() <= classes.max() <= len(self.words):
            raise InvalidImageError(
                f"The classes of the objects of '{self.image}' go from {classes.min()} to "
                f"{classes.max()}; they lie between 0 and the number of words, {len(self.words)}."
            )
        known = np.concatenate([[True], classes > 0])
        for plane in self.stack:
            high = int(plane.max())
            if high < len(known) and known[plane].all():
                continue
            strange = high if high >= len(known) else int(plane[~known[plane]][0])
            table = "class" if self.classes is None else "object in the table of objects"
            raise InvalidImageError(
                f"The labels of '{self.image}' hold the id {strange}, which is no {table}; the "
                f"highest is {len(known) - 1}, and the words are {', '.join(self.words)}."
            )

    @property
    def stack(self) -> NDArray[Any]:
        """The labels with planes as their first axis, shape (planes, H, W)."""
        return self.labels if self.labels.ndim == 3 else self.labels[None]

    @property
    def file_name(self) -> str:
        """Path of the image in the input folder, with slashes."""
        return self.key + self.image.suffix

    def class_plane(self, plane: int) -> NDArray[Any]:
        """Class ids of a plane, shape (H, W)."""
        ids: NDArray[Any] = self.stack[plane]
        if self.classes is None:
            return ids
        table = np.concatenate([[0], self.classes]).astype(np.uint16)
        found: NDArray[np.uint16] = table[ids]
        return found


class Exporter(Protocol):
    """Writes labels in one format into an output folder."""

    def write(self, labelled: Labelled) -> None:
        """Write the files of one image, each at once or not at all; the same again if repeated.

        Raises
        ------
        InvalidImageError
            If the format cannot hold these labels.
        OSError
        """

    def finish(self, labelled: Iterable[Labelled]) -> None:
        """Write the files that are about all images, from all labels of the output folder.

        The same labels give the same bytes, in whichever order they were written.

        Raises
        ------
        OSError
        """

    def files(self, key: str, planes: int) -> list[Path]:
        """The files that :meth:`write` makes for an image of so many planes."""


def exporter(name: LabelFormat, output: Path, words: Sequence[str]) -> Exporter:
    """What writes a format, see docs/formats.md.

    Parameters
    ----------
    name : str
        A format, but not "tiff", which is always written; see
        :func:`clsclip.batch.files.write_labels`.
    output : Path
        The output folder.
    words : sequence of str
        Word ``k`` has class id ``k + 1``.

    Raises
    ------
    InvalidConfigError
        If there is no such format, or it cannot hold so many words.
    """
    # each is imported when it is wanted: OpenCV alone takes long; and they import this module
    if name == "png":
        from clsclip.batch.formats.png import PngExporter

        return PngExporter(output)
    if name == "coco":
        from clsclip.batch.formats.coco import CocoExporter

        return CocoExporter(output, tuple(words))
    if name == "yolo":
        from clsclip.batch.formats.yolo import YoloExporter

        return YoloExporter(output, tuple(words))
    if name == "voc":
        from clsclip.batch.formats.voc import VocExporter

        return VocExporter(output, tuple(words))
    raise InvalidConfigError(
        f"There is no exporter of '{name}'; there are png, coco, yolo and voc."
    )


def plane_key(key: str, plane: int, planes: int) -> str:
    """Name of a plane's files: the key, and the number of the plane from 0 if there are several."""
    return key if planes == 1 else f"{key}_plane{plane:04d}"


def read_labelled_output(output: Path, image: Path, key: str, words: Sequence[str]) -> Labelled:
    """Labels of an image as they lie in an output folder, with their table of objects if any.

    Parameters
    ----------
    output : Path
    image : Path
        The image; it is not opened.
    key : str
        See :class:`Labelled`.
    words : sequence of str

    Raises
    ------
    FileError
        If there are no labels, they are kept as a zarr because the image is very large, or a file
        is damaged.
    InvalidImageError
        If the labels hold an id that has no class.
    """
    target = label_file(output, key)
    large = output / f"{key}.zarr"
    if not target.exists() and large.exists():
        raise FileError(
            f"The labels of '{image}' are kept in '{large}', because it is very large; no other "
            "format is written of it. If there is memory enough, label it on the command line "
            "with a larger --large-from."
        )
    labels, pixel_size = read_labels(target)
    table = features_file(target)
    classes = read_object_classes(table, words) if table.exists() else None
    return Labelled(image, key, labels, classes, tuple(words), pixel_size)


def read_object_classes(table: Path, words: Sequence[str]) -> NDArray[np.uint16]:
    """Class ids of the objects of a table, by their ids from 1 on; 0 where there is none.

    Raises
    ------
    FileError
        If the table cannot be read, names another word, or has an id that is out of range.
    """
    numbers = {word: number for number, word in enumerate(words, start=1)}
    found: dict[int, int] = {}
    try:
        with table.open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                found[int(row["label"])] = numbers[row["class"]]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, ValueError, TypeError) as error:
        raise FileError(
            f"'{table}' cannot be read as a table of objects of the words {', '.join(words)} "
            f"({error!r})."
        ) from error
    if found and not 1 <= min(found) <= max(found) <= MOST_OBJECTS:
        raise FileError(
            f"'{table}' has objects from {min(found)} to {max(found)}; ids go from 1 to "
            f"{MOST_OBJECTS}."
        )
    classes = np.zeros(max(found, default=0), np.uint16)
    classes[np.array(list(found), np.intp) - 1] = list(found.values())
    return classes
