"""Which data folders there are, and how often each is drawn.

Four kinds of folder are recognised by what they hold: images with label images (``images/`` and
``labels/``), COCO (``annotations/instances_*.json``), Pascal VOC boxes (``JPEGImages/`` and
``Annotations/``), and one folder of images per class word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from clsclip.errors import FileError, InvalidConfigError
from clsclip.image_files import IMAGE_ENDINGS
from clsclip.training.examples import Source
from clsclip.training.formats import ClassFolders, CocoSource, LabelFolder, VocBoxes
from clsclip.training.scenes import Scenes
from clsclip.words import canonical

TRAIN_FOLDERS: Final = ("train", "train2017", "train2014")
VAL_FOLDERS: Final = ("val", "val2017", "val2014")

SCENES: Final = "scenes"
"""Name of the source of drawn scenes, which needs no folder."""


def find_sources(root: Path, *, val: bool = False) -> dict[str, Source]:
    """Recognise every data folder below ``root`` (or ``root`` itself) by what it holds.

    Parameters
    ----------
    root : Path
    val : bool
        Take the validation part of those that have one, and leave out the others.

    Returns
    -------
    dict of str to Source
        By folder name.

    Raises
    ------
    FileError
        If nothing is recognised.
    """
    sources = {folder.name: source for folder, source in _recognised(root, val)}
    if not sources:
        raise FileError(
            f"'{root}' holds no data of a known format: images/ + labels/, COCO, Pascal VOC, or "
            "one folder per class word."
        )
    return sources


def validation_folders(root: Path) -> dict[str, Path]:
    """The data folders below ``root`` (or ``root`` itself) that have a validation part, by name.

    Raises
    ------
    FileError
        If there is no folder ``root``.
    """
    return {folder.name: folder for folder, _ in _recognised(root, val=True)}


def _recognised(root: Path, val: bool) -> Iterator[tuple[Path, Source]]:
    if not root.is_dir():
        raise FileError(f"The data folder '{root}' does not exist.")
    for folder in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
        source = _recognise(folder, VAL_FOLDERS if val else TRAIN_FOLDERS, val)
        if source is not None:
            yield folder, source


def _recognise(folder: Path, parts: Sequence[str], val: bool) -> Source | None:
    for part in parts:
        annotations = folder / "annotations" / f"instances_{part}.json"
        if annotations.is_file():
            return CocoSource(annotations, folder / part)
        if (folder / part / "images").is_dir():
            return LabelFolder(
                folder / part / "images", folder / part / "labels", canonical(folder.name)
            )
    if val:
        return None
    if (folder / "images").is_dir() and (folder / "labels").is_dir():
        return LabelFolder(folder / "images", folder / "labels", canonical(folder.name))
    if (folder / "Annotations").is_dir() and (folder / "JPEGImages").is_dir():
        return VocBoxes(folder)
    classes = [path for path in folder.iterdir() if path.is_dir()]
    if len(classes) >= 2 and all(_holds_images(path) for path in classes):
        return ClassFolders(folder)
    return None


def _holds_images(folder: Path) -> bool:
    return any(file.suffix.lower() in IMAGE_ENDINGS for file in folder.iterdir())


def training_sources(data: str, share: tuple[str, ...], seed: int) -> dict[str, Source]:
    """Sources of a training run: the data folders, and drawn scenes if a share asks for them."""
    sources = find_sources(Path(data).expanduser())
    if any(text.partition("=")[0] == SCENES for text in share):
        sources[SCENES] = Scenes(seed)
    return sources


def shares(sources: dict[str, Source], given: tuple[str, ...]) -> list[float]:
    """Share of each source in the batches, from ``FOLDER=NUMBER`` texts.

    Raises
    ------
    InvalidConfigError
    """
    weights = dict.fromkeys(sources, 1.0)
    for text in given:
        name, _, number = text.partition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = -1.0
        if name not in weights or weight < 0:
            raise InvalidConfigError(
                f"--share {text}: expected FOLDER=NUMBER with one of {', '.join(sources)}."
            )
        weights[name] = weight
    return list(weights.values())
