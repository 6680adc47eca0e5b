"""Readers of annotated folders, one class per format, as examples of class words."""

from __future__ import annotations

import contextlib
import io
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from scipy import ndimage
from skimage.draw import ellipse

from clsclip.errors import FileError, InvalidConfigError
from clsclip.image_files import IMAGE_ENDINGS, list_images, read_image
from clsclip.predict.transforms import to_rgb
from clsclip.training.class_ids import chosen_words, read_classes, word_labels
from clsclip.training.examples import Example
from clsclip.training.looks import look
from clsclip.words import canonical


def read_rgb(file: Path) -> NDArray[np.uint8]:
    """Read an image file as RGB, shape (H, W, 3).

    Raises
    ------
    FileError
    """
    rgb: NDArray[np.uint8] = np.round(to_rgb(read_image(file)) * 255).astype(np.uint8)
    return rgb


@dataclass(frozen=True)
class LabelFolder:
    """Images with label images of the same names, whose nonzero pixels are one word.

    With a ``classes.csv`` beside the labels, only pixels of the word's class are, see
    :mod:`clsclip.training.class_ids`. Different label values are different objects. Decoded images
    are kept in memory. A random example has each look that the folder has with a chance in
    proportion to the square root of its images, so that a few stained images among hundreds of
    fluorescence count.
    """

    images: Path
    labels: Path
    word: str
    uncertain: frozenset[str] = frozenset({"cell", "membrane", "spot", "tissue"})
    masked: bool = True
    photographs: bool = False
    everywhere: frozenset[str] = frozenset()
    _files: tuple[tuple[Path, Path], ...] = field(init=False, repr=False)
    _classes: dict[int, str] | None = field(init=False, repr=False)
    _cache: dict[int, Example] = field(init=False, repr=False, default_factory=dict)
    _looks: list[list[int]] = field(init=False, repr=False, default_factory=list)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_files", pair_files(self.images, self.labels))
        object.__setattr__(self, "_classes", read_classes(self.labels))
        if len(chosen_words(self.word, self._classes, self.labels)) > 1:
            raise InvalidConfigError(
                f"--word '{self.word}': one word is measured at a time. Name one."
            )

    @property
    def words(self) -> tuple[str, ...]:
        """The one word."""
        return (self.word,)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Example:
        if index not in self._cache:
            image_file, label_file = self._files[index]
            labels, image = read_labels(label_file), read_rgb(image_file)
            if image.shape[:2] != labels.shape:
                raise FileError(
                    f"'{label_file}' is {labels.shape} pixels, its image {image.shape[:2]}. They "
                    "must be of one size."
                )
            labels = word_labels(label_file, labels, canonical(self.word), self._classes)
            areas = np.unique(labels[labels > 0], return_counts=True)[1]
            mask = labels > 0
            self._cache[index] = Example(
                image=image,
                masks={self.word: mask},
                present=frozenset({self.word} if mask.any() else ()),
                diameter=float(np.sqrt(np.median(areas) * 4 / np.pi)) if len(areas) else None,
                boxes={self.word: label_boxes(labels)} if mask.any() else {},
                objects={self.word: labels},
            )
        return self._cache[index]

    def draw(self, rng: np.random.Generator) -> Example:
        """A random example of a random look."""
        if not self._looks:
            looks = [look(self[index].image) for index in range(len(self))]
            self._looks.extend(
                [index for index, found in enumerate(looks) if found == wanted]
                for wanted in dict.fromkeys(looks)
            )
        shares = np.sqrt([len(indices) for indices in self._looks])
        indices = self._looks[int(rng.choice(len(shares), p=shares / shares.sum()))]
        return self[indices[int(rng.integers(len(indices)))]]


def read_labels(file: Path) -> NDArray[np.integer[Any]]:
    """Read a label image: one integer per pixel, 0 = background.

    Raises
    ------
    FileError
    """
    labels = read_image(file, indices=True)
    if labels.ndim != 2 or labels.dtype.kind not in "bui":
        raise FileError(
            f"'{file}' is no label image: its shape is {labels.shape} and its dtype "
            f"{labels.dtype}; expected one integer per pixel."
        )
    return labels.astype(np.uint8) if labels.dtype.kind == "b" else labels


def label_boxes(labels: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
    """Box of every object of a label image: top, left, bottom, right, shape (n, 4)."""
    boxes = [
        (rows.start, columns.start, rows.stop, columns.stop)
        for rows, columns in filter(None, ndimage.find_objects(labels))
    ]
    return np.array(boxes, dtype=np.float32).reshape(-1, 4)


def pair_files(images: Path, labels: Path) -> tuple[tuple[Path, Path], ...]:
    """Image and label files with the same stem, by name.

    Raises
    ------
    FileError
        If a folder is missing, there is no image, or an image has no label file.
    """
    found = {file.stem: file for file in list_images(labels)}
    pairs = []
    for file in list_images(images):
        if file.stem not in found:
            raise FileError(f"'{file}' has no label file of the same name in '{labels}'.")
        pairs.append((file, found[file.stem]))
    return tuple(pairs)


class CocoSource:
    """Photographs with COCO instance annotations.

    Parameters
    ----------
    annotations : Path
        ``instances_*.json``.
    images : Path
        Folder of the image files.
    words : frozenset of str, optional
        Classes whose masks are given; images without any of them are left out. By default, all
        classes and images.
    without : frozenset of str
        Images with one of these classes are left out.
    """

    masked = True
    photographs = True
    uncertain: frozenset[str] = frozenset({"face", "cell"})
    everywhere: frozenset[str] = frozenset()

    def __init__(
        self, annotations: Path, images: Path, *, words: frozenset[str] | None = None,
        without: frozenset[str] = frozenset(),
    ) -> None:  # fmt: skip
        self._coco = _quiet_coco(annotations)
        self._images = images
        names = {
            cat["id"]: canonical(cat["name"]) for cat in self._coco.loadCats(self._coco.getCatIds())
        }
        self._names = {
            number: name for number, name in names.items() if words is None or name in words
        }
        self.words = tuple(self._names.values())
        ids = set(self._coco.getImgIds())
        if words is not None:
            ids = self._showing(self._names)
        ids -= self._showing(number for number, name in names.items() if name in without)
        self._ids = sorted(ids)

    def _showing(self, categories: Iterable[int]) -> set[int]:
        """Images with an object, or a crowd, of one of some categories."""
        return {image for number in categories for image in self._coco.getImgIds(catIds=[number])}

    def __len__(self) -> int:
        return len(self._ids)

    @lru_cache(maxsize=512)  # noqa: B019 - sources live as long as the training
    def __getitem__(self, index: int) -> Example:
        info = self._coco.loadImgs(self._ids[index])[0]
        image = read_rgb(self._images / info["file_name"])
        masks: dict[str, NDArray[np.bool_]] = {}
        boxes: dict[str, list[tuple[float, ...]]] = {}
        ignore = np.zeros(image.shape[:2], dtype=bool)
        for annotation in self._coco.loadAnns(self._coco.getAnnIds(imgIds=info["id"])):
            if annotation["category_id"] not in self._names:
                continue
            mask = self._coco.annToMask(annotation).astype(bool)
            if annotation.get("iscrowd"):
                ignore |= mask
            else:
                word = self._names[annotation["category_id"]]
                masks[word] = masks[word] | mask if word in masks else mask
                left, top, width, height = annotation["bbox"]
                boxes.setdefault(word, []).append((top, left, top + height, left + width))
        return Example(
            image, masks, frozenset(masks), ignore if ignore.any() else None, boxes=_arrays(boxes)
        )

    def draw(self, rng: np.random.Generator) -> Example:
        """A random example."""
        return self[int(rng.integers(len(self)))]


def _arrays(boxes: Mapping[str, Sequence[tuple[float, ...]]]) -> dict[str, NDArray[np.float32]]:
    return {word: np.array(rows, dtype=np.float32) for word, rows in boxes.items()}


def _quiet_coco(annotations: Path) -> COCO:
    """Load annotations without pycocotools' prints."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return COCO(str(annotations))
    except (OSError, ValueError, KeyError) as error:
        raise FileError(f"'{annotations}' is no COCO annotation file ({error}).") from error


class VocBoxes:
    """Pascal VOC boxes around round objects.

    The ellipse inscribed in a box counts as its mask; a ring along its edge is ignored.
    """

    masked = True
    photographs = False
    uncertain: frozenset[str] = frozenset({"nucleus", "membrane", "spot"})
    everywhere: frozenset[str] = frozenset()
    _ABBREVIATIONS: Final = {"rbc": "red blood cell", "wbc": "white blood cell"}

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files = sorted((root / "Annotations").glob("*.xml"))
        if not self._files:
            raise FileError(f"'{root}/Annotations' holds no XML files.")
        names = {name for file in self._files for name, _ in self._boxes(file)}
        self.words = (*sorted(names), "cell")

    def __len__(self) -> int:
        return len(self._files)

    def _boxes(self, file: Path) -> Iterator[tuple[str, tuple[int, int, int, int]]]:
        try:
            tree = ET.parse(file)  # noqa: S314 - local training data, no network entities
        except (OSError, ET.ParseError) as error:
            raise FileError(f"'{file}' is no Pascal VOC annotation ({error}).") from error
        for entry in tree.iterfind("object"):
            name = entry.findtext("name", "").lower()
            box = entry.find("bndbox")
            if box is not None:
                x0, y0, x1, y1 = (
                    round(float(box.findtext(k, "0"))) for k in ("xmin", "ymin", "xmax", "ymax")
                )
                yield canonical(self._ABBREVIATIONS.get(name, name)), (x0, y0, x1, y1)

    @lru_cache(maxsize=512)  # noqa: B019 - sources live as long as the training
    def __getitem__(self, index: int) -> Example:
        file = self._files[index]
        image = read_rgb(next((self._root / "JPEGImages").glob(f"{file.stem}.*")))
        shape = image.shape[:2]
        masks: dict[str, NDArray[np.bool_]] = {}
        inner, outer = np.zeros((2, *shape), dtype=bool)
        widths = []
        boxes: dict[str, list[tuple[float, ...]]] = {}
        for word, (x0, y0, x1, y1) in self._boxes(file):
            boxes.setdefault(word, []).append((y0, x0, y1, x1))
            row, column = (y0 + y1) / 2, (x0 + x1) / 2
            height, width = max((y1 - y0) / 2, 0.5), max((x1 - x0) / 2, 0.5)
            mask = masks.setdefault(word, np.zeros(shape, dtype=bool))
            for plane, scale in ((mask, 1.0), (inner, 0.85), (outer, 1.15)):
                inside = ellipse(  # type: ignore[no-untyped-call]
                    row, column, scale * height, scale * width, shape=shape
                )
                plane[inside] = True
            widths.append(np.sqrt(max(x1 - x0, 1) * max(y1 - y0, 1)))
        union = np.zeros(shape, dtype=bool)
        for mask in masks.values():
            union |= mask
        if masks:
            masks["cell"] = union & ~masks.get("platelet", np.zeros(shape, dtype=bool))
            cells = [row for word in boxes if word != "platelet" for row in boxes[word]]
            if cells:
                boxes["cell"] = cells
        return Example(
            image, masks, frozenset(masks), outer & ~inner,
            float(np.median(widths)) if widths else None, _arrays(boxes),
        )  # fmt: skip

    def draw(self, rng: np.random.Generator) -> Example:
        """A random example."""
        return self[int(rng.integers(len(self)))]


class ClassFolders:
    """One folder of images per class word, without masks."""

    masked = False
    photographs = True
    uncertain: frozenset[str] = frozenset()
    everywhere: frozenset[str] = frozenset()

    def __init__(self, root: Path) -> None:
        self._files = [
            (file, canonical(folder.name))
            for folder in sorted(root.iterdir())
            if folder.is_dir()
            for file in sorted(folder.iterdir())
            if file.suffix.lower() in IMAGE_ENDINGS
        ]
        self.words = tuple(dict.fromkeys(word for _, word in self._files))
        if not self._files:
            raise FileError(f"'{root}' holds no folders of images.")

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Example:
        file, word = self._files[index]
        return Example(read_rgb(file), {}, frozenset({word}))

    def draw(self, rng: np.random.Generator) -> Example:
        """A random example."""
        return self[int(rng.integers(len(self)))]
