"""Fetch the paper's data sets: VOC 2012 and SBD by torchvision, COCO 2017 by its downloader.

Archives are checked by their MD5 and unpacked beside the data, and what was unpacked is moved there
in the end: whatever interrupts a download, no half of a data set is ever taken for the whole, and
an archive that is complete is not fetched again.
"""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Final, Literal

from filelock import FileLock, Timeout

from clsclip.errors import BusyError, FileError

DRAFT: Final = ".download"
"""Folder below the data in which archives are unpacked."""

COCO_ARCHIVES: Final = {
    "annotations": (
        "http://images.cocodataset.org/annotations/annotations_trainval2017.zip",
        "f4bbac642086de4f52a3fdda2de5fa2c",
    ),
    "train": (
        "http://images.cocodataset.org/zips/train2017.zip", "cced6f7f71b7629ddf16f17bbcfab6b2"
    ),
    "val": ("http://images.cocodataset.org/zips/val2017.zip", "442b8da7639aecaf257c1dceb8ba8c80"),
}  # fmt: skip
"""Address and MD5 of each archive."""

_SPACE: Final = {"VOC 2012": 4.0, "SBD": 3.0, "COCO 2017 train": 40.0, "COCO 2017 val": 3.0}
"""Gigabytes that an archive and what is in it take together."""


def download_voc(root: Path) -> None:
    """Fetch VOC 2012 into ``root/VOCdevkit``.

    Raises
    ------
    FileError
        If it cannot be had or there is no room for it.
    """
    with _draft(root, "VOC 2012") as draft:
        from torchvision.datasets import VOCSegmentation  # type: ignore[import-untyped]

        VOCSegmentation(str(draft), year="2012", image_set="train", download=True)
        home = root / "VOCdevkit"
        home.mkdir(exist_ok=True)
        (draft / "VOCdevkit" / "VOC2012").rename(home / "VOC2012")


def download_sbd(root: Path) -> None:
    """Fetch SBD into ``root/sbd``.

    Raises
    ------
    FileError
        If it cannot be had or there is no room for it.
    """
    with _draft(root, "SBD") as draft:
        from torchvision.datasets import SBDataset

        for name in ("cls", "img", "inst", "train.txt", "val.txt"):
            _remove(draft / name)  # of an interrupted download: torchvision moves them there anew
        SBDataset(str(draft), image_set="train", mode="segmentation", download=True)
        target = root / "sbd"
        target.mkdir(exist_ok=True)
        for name in ("train.txt", "val.txt", "img", "cls"):  # the last one says that it is there
            _remove(target / name)
            (draft / name).rename(target / name)


def download_coco(root: Path, part: Literal["train", "val"]) -> None:
    """Fetch what is not there of a part of COCO 2017: its images, its annotations.

    Raises
    ------
    FileError
        If they cannot be had or there is no room for them.
    """
    with _draft(root, f"COCO 2017 {part}") as draft:
        from torchvision.datasets import utils

        name = f"instances_{part}2017.json"
        if not (root / "annotations" / name).is_file():
            url, md5 = COCO_ARCHIVES["annotations"]
            utils.download_and_extract_archive(url, str(draft), md5=md5)
            (root / "annotations").mkdir(exist_ok=True)
            (draft / "annotations" / name).rename(root / "annotations" / name)
        if not (root / f"{part}2017").is_dir():
            url, md5 = COCO_ARCHIVES[part]
            utils.download_and_extract_archive(url, str(draft), md5=md5)
            (draft / f"{part}2017").rename(root / f"{part}2017")


@contextmanager
def _draft(root: Path, name: str) -> Iterator[Path]:
    """A folder to fetch a data set into; it stays if that fails, for the next try."""
    draft = root / DRAFT / name.replace(" ", "-").lower()
    lock = FileLock(f"{draft}.lock")
    try:
        draft.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        there = sum(file.stat().st_size for file in draft.rglob("*") if file.is_file()) / 1e9
        free = shutil.disk_usage(draft).free / 1e9
        if free + there < _SPACE[name]:
            raise FileError(
                f"{name} takes {_SPACE[name]:.0f} GB while it is unpacked, but {free:.1f} GB are "
                f"free at '{root}'. Make room there, or give another --data."
            )
        yield draft
    except Timeout as error:
        raise BusyError(
            f"{name} is being downloaded into '{root}' by another process. Wait until it is there."
        ) from error
    except (OSError, RuntimeError, HTTPException, tarfile.TarError, zipfile.BadZipFile) as error:
        # torchvision raises RuntimeError for a file that is not what it should be
        raise FileError(
            f"{name} could not be downloaded into '{root}' ({error}). Give the same command again, "
            "it goes on with the archives that are complete; or without --download, and it says "
            "where files that you get elsewhere are expected."
        ) from error
    else:
        shutil.rmtree(draft, ignore_errors=True)
        with suppress(OSError):  # Windows removes no open file
            Path(lock.lock_file).unlink()  # while it is ours, or another process may hold it
    finally:
        lock.release()
    with suppress(OSError):
        draft.parent.rmdir()  # not if another data set is being fetched


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
