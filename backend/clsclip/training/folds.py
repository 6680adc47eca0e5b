"""PASCAL-5^i and COCO-20^i: which classes each of the four folds withholds, and its images.

Fold i of PASCAL-5^i tests VOC's classes 5i + 1 to 5i + 5 (numbered from 1) and trains on the other
15; fold i of COCO-20^i tests the 20 classes whose place c in the list of 80 (from 0) has c mod 4
equal to i (Shaban et al. 2017; Nguyen & Todorovic 2019; section 5 of the paper). Training is
inductive: images that show a class of the test are left out altogether, so neither its masks nor
its words are seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import Field, model_validator

from clsclip.config import Settings
from clsclip.errors import FileError, InvalidConfigError
from clsclip.training.download import download_coco, download_sbd, download_voc
from clsclip.training.examples import Source
from clsclip.training.formats import CocoSource
from clsclip.training.voc import VocSegmentation, find_voc, holds_sbd, voc_home
from clsclip.words import canonical

VOC_CLASSES: Final = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "dining table", "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa",
    "train", "tv",
)  # fmt: skip
"""VOC 2012's classes; the place of a class, from 1, is its value in the label images."""

COCO_CLASSES: Final = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
    "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog",
    "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella",
    "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite",
    "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange",
    "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant",
    "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone",
    "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors",
    "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
"""COCO's 80 classes in the order of their ids."""

FOLDS: Final = 4

Dataset = Literal["", "pascal-5i", "coco-20i"]
Part = Literal["train", "val"]

_COCO_YEARS: Final = ("2017", "2014")


class FoldSettings(Settings):
    """A fold of a benchmark."""

    dataset: Dataset = Field(
        "",
        title="Dataset",
        description="Instead of data folders of any kind: pascal-5i, with the folder that holds "
        "VOCdevkit (and SBD) as --data, or coco-20i, with that of COCO 2017 or 2014. "
        "docs/reproduction.md shows the layouts.",
    )
    fold: int = Field(
        0, title="Fold", description="Which classes are unseen, 0 to 3.", ge=0, lt=FOLDS
    )
    download: bool = Field(
        False,
        title="Download",
        description="Fetch what of the dataset is not below --data yet: VOC 2012 (2 GB) and, for "
        "training, SBD (1.4 GB), or COCO 2017 (19 GB for training, 1 GB to evaluate).",
    )

    @model_validator(mode="after")
    def _of_a_dataset(self) -> Self:
        if self.download and not self.dataset:
            raise ValueError("--download fetches a benchmark; say which one with --dataset")
        return self


def fold_words(dataset: str, fold: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Seen and unseen class words of a fold, canonical, in the order of their classes.

    Raises
    ------
    InvalidConfigError
        If there is no such dataset or fold.

    >>> fold_words("pascal-5i", 3)[1]
    ('potted plant', 'sheep', 'couch', 'train', 'tv')
    """
    if dataset not in ("pascal-5i", "coco-20i") or not 0 <= fold < FOLDS:
        raise InvalidConfigError(
            f"There is no fold {fold} of '{dataset}'. Give pascal-5i or coco-20i, and 0 to 3."
        )
    names: tuple[str, ...]
    if dataset == "pascal-5i":
        names, size = VOC_CLASSES, len(VOC_CLASSES) // FOLDS
        tested = [place // size == fold for place in range(len(names))]
    else:
        names = COCO_CLASSES
        tested = [place % FOLDS == fold for place in range(len(names))]
    words = [canonical(name) for name in names]
    seen = tuple(word for word, test in zip(words, tested, strict=True) if not test)
    unseen = tuple(word for word, test in zip(words, tested, strict=True) if test)
    return seen, unseen


def fold_source(
    dataset: str, fold: int, data: str, part: Part, *, download: bool = False
) -> Source:
    """Images of a fold: to train on, with seen classes only, or to test, with unseen ones only.

    Parameters
    ----------
    dataset : str
        "pascal-5i" or "coco-20i".
    fold : int, 0 to 3
    data : str
        Folder of the images.
    part : str
        "train": images of the training part that show a seen class and no unseen one. "val": those
        of the validation part that show an unseen class; masks are of unseen classes.
    download : bool
        Fetch what is not there.

    Raises
    ------
    FileError
        If the files are not there; the message shows the layout.
    InvalidConfigError
    """
    seen, unseen = fold_words(dataset, fold)
    words, without = (seen, unseen) if part == "train" else (unseen, ())
    root = Path(data).expanduser()
    if download:
        _download(dataset, root, part)
    if dataset == "pascal-5i":
        values = {place: canonical(name) for place, name in enumerate(VOC_CLASSES, start=1)}
        source: Source = VocSegmentation(
            find_voc(root, part), values, frozenset(words), frozenset(without)
        )
    else:
        source = CocoSource(*_coco(root, part), words=frozenset(words), without=frozenset(without))
    if not len(source):
        raise FileError(
            f"No image of the {part} part of '{root}' shows what fold {fold} of {dataset} is about."
        )
    return source


def _download(dataset: str, root: Path, part: Part) -> None:
    """Fetch the files of a part that are not there."""
    if dataset == "coco-20i":
        if not any(_coco_of(root, part)):
            download_coco(root, part)
        return
    if voc_home(root) is None:
        download_voc(root)
    if part == "train" and not holds_sbd(root):
        download_sbd(root)


def _coco_of(root: Path, part: Part) -> Iterator[tuple[Path, Path]]:
    """Annotations and images of a part, of the years of which both are there."""
    for year in _COCO_YEARS:
        annotations, images = (
            root / "annotations" / f"instances_{part}{year}.json", root / f"{part}{year}"
        )  # fmt: skip
        if annotations.is_file() and images.is_dir():
            yield annotations, images


def _coco(root: Path, part: Part) -> tuple[Path, Path]:
    """Annotations and images of a part of COCO."""
    for found in _coco_of(root, part):
        return found
    raise FileError(
        f"'{root}' holds no complete COCO. Expected {root}/annotations/"
        f"instances_{part}2017.json and {root}/{part}2017/*.jpg (or 2014): 'Train images', 'Val "
        "images' and 'Train/Val annotations' of https://cocodataset.org. With a network, "
        "--download fetches them."
    )
