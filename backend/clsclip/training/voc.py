"""Segmentation of PASCAL VOC 2012, with the further training images of SBD."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from clsclip.errors import FileError
from clsclip.training.examples import Example
from clsclip.training.formats import label_boxes, read_labels, read_rgb

UNCERTAIN: Final = 255
"""Value of pixels along outlines and of what is too hard to tell: ignored."""

_HOMES: Final = ("VOCdevkit/VOC2012", "VOC2012", ".")
_LISTS: Final = "ImageSets/Segmentation"
_AUGMENTED: Final = "SegmentationClassAug"
_SBD: Final = "sbd"


@dataclass(frozen=True)
class VocFile:
    """An image and its label image: a PNG with class values, or a .mat file of SBD."""

    image: Path
    labels: Path

    def read_labels(self) -> NDArray[np.uint8]:
        """Class values, shape (H, W); 255 where nobody says.

        Raises
        ------
        FileError
        """
        if self.labels.suffix != ".mat":
            return read_labels(self.labels).astype(np.uint8)
        try:
            found = loadmat(self.labels)["GTcls"]["Segmentation"][0][0]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FileError(f"'{self.labels}' is no label file of SBD ({error}).") from error
        return np.asarray(found, dtype=np.uint8)


def voc_home(root: Path) -> Path | None:
    """The folder of VOC 2012 at or below a folder, if there is one."""
    return next((root / name for name in _HOMES if (root / name / _LISTS).is_dir()), None)


def holds_sbd(root: Path) -> bool:
    """Whether the further training images of SBD are there, in one of their two layouts."""
    home = voc_home(root)
    converted = home is not None and (home / _AUGMENTED).is_dir()
    return converted or (root / _SBD / "cls").is_dir()


def find_voc(root: Path, part: Literal["train", "val"]) -> tuple[VocFile, ...]:
    """Images of a part of VOC 2012, by name.

    Validation has VOC's own label images. Training has VOC's training images and, where SBD is
    there, all images of SBD that are not VOC's validation images (10,582 in all): as
    ``SegmentationClassAug/*.png`` beside ``SegmentationClass``, or as torchvision's SBDataset lays
    it out in ``sbd/``.

    Parameters
    ----------
    root : Path
        Folder that holds ``VOCdevkit``, or one of the folders in it down to ``VOC2012``.
    part : str

    Raises
    ------
    FileError
        If VOC is not there; the message shows the layout.
    """
    home = voc_home(root)
    if home is None:
        raise FileError(
            f"'{root}' holds no VOC 2012. Expected {root}/VOCdevkit/VOC2012/ with JPEGImages/, "
            "SegmentationClass/ and ImageSets/Segmentation/{train,val}.txt, and for training SBD "
            f"in {root}/sbd/ (img/, cls/, train.txt, val.txt). With a network, --download fetches "
            "both."
        )
    own, other = _listed(home, part), _listed(home, "val")
    files = {name: _voc(home, name) for name in own}
    if part == "train":
        files = {**_augmented(root, home, frozenset(other)), **files}
    return tuple(files[name] for name in sorted(files))


def _listed(home: Path, part: str) -> list[str]:
    return _lines(home / _LISTS / f"{part}.txt")


def _lines(file: Path) -> list[str]:
    try:
        return [line.split()[0] for line in file.read_text().splitlines() if line.strip()]
    except OSError as error:
        raise FileError(f"The list of images '{file}' cannot be read ({error}).") from error


def _voc(home: Path, name: str) -> VocFile:
    return VocFile(home / "JPEGImages" / f"{name}.jpg", home / "SegmentationClass" / f"{name}.png")


def _augmented(root: Path, home: Path, val: frozenset[str]) -> dict[str, VocFile]:
    """Images of SBD that are not to be tested with."""
    if (home / _AUGMENTED).is_dir():
        return {
            file.stem: VocFile(home / "JPEGImages" / f"{file.stem}.jpg", file)
            for file in (home / _AUGMENTED).glob("*.png")
            if file.stem not in val
        }
    sbd = root / _SBD
    if not (sbd / "cls").is_dir():
        return {}
    names = [*_lines(sbd / "train.txt"), *_lines(sbd / "val.txt")]
    return {
        name: VocFile(sbd / "img" / f"{name}.jpg", sbd / "cls" / f"{name}.mat")
        for name in names
        if name not in val
    }


class VocSegmentation:
    """Photographs with masks of some of VOC's classes.

    Parameters
    ----------
    files : sequence of VocFile
        All label images are read once.
    values : mapping of int to str
        Class words by their values in the label images.
    words : frozenset of str
        Classes whose masks are given; images without any of them are left out.
    without : frozenset of str
        Images with one of these classes are left out.

    Raises
    ------
    FileError
        If a label image is missing or damaged.
    """

    masked = True
    photographs = True
    uncertain: frozenset[str] = frozenset()
    everywhere: frozenset[str] = frozenset()

    def __init__(
        self, files: tuple[VocFile, ...], values: Mapping[int, str], words: frozenset[str],
        without: frozenset[str] = frozenset(),
    ) -> None:  # fmt: skip
        self._values = {value: word for value, word in values.items() if word in words}
        self.words = tuple(self._values.values())
        left_out = [value for value, word in values.items() if word in without]
        self._files = []
        for file in files:
            shown = np.unique(file.read_labels())
            if np.isin(list(self._values), shown).any() and not np.isin(left_out, shown).any():
                self._files.append(file)

    def __len__(self) -> int:
        return len(self._files)

    @lru_cache(maxsize=512)  # noqa: B019 - sources live as long as the training
    def __getitem__(self, index: int) -> Example:
        file = self._files[index]
        image, labels = read_rgb(file.image), file.read_labels()
        if image.shape[:2] != labels.shape:
            raise FileError(
                f"'{file.labels}' is {labels.shape} pixels, its image {image.shape[:2]}. They must "
                "be of one size."
            )
        masks = {
            word: labels == value for value, word in self._values.items() if (labels == value).any()
        }
        ignore = labels == UNCERTAIN
        return Example(
            image, masks, frozenset(masks), ignore if ignore.any() else None,
            boxes={word: label_boxes(mask.astype(np.uint8)) for word, mask in masks.items()},
        )  # fmt: skip

    def draw(self, rng: np.random.Generator) -> Example:
        """A random example."""
        return self[int(rng.integers(len(self)))]
