"""Label image files one after the other, with a manifest of what became of each."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from tifffile import imwrite

from clsclip.config import DEFAULT_THRESHOLD, RegionMode
from clsclip.errors import ClsClipError, FileError
from clsclip.image_files import list_images, read_image
from clsclip.instances import InstanceOptions, Labels, segmented_instances
from clsclip.predict.predictor import Predictor

MANIFEST_FILE: Final = "manifest.csv"
CLASSES_FILE: Final = "classes.csv"


@dataclass(frozen=True)
class Outcome:
    """What became of one file: a row of the manifest.

    ``regions`` says where the words were looked for, and why there, if regions were asked for.
    """

    file: Path
    status: Literal["done", "failed"]
    seconds: float
    error: str = ""
    objects: int | None = None
    """Number of objects, where they are told apart."""
    regions: str = ""
    """How regions were chosen, where they were asked for."""


def collect_images(inputs: Sequence[Path]) -> list[Path]:
    """Files as given, and the image files of folders, in order and each once.

    Raises
    ------
    FileError
        If an input does not exist, or a folder holds no image files.
    """
    files: dict[Path, None] = {}
    for path in inputs:
        if not path.exists():
            raise FileError(f"'{path}' does not exist.")
        files.update(dict.fromkeys(list_images(path) if path.is_dir() else [path]))
    return list(files)


def label_targets(files: Iterable[Path], output: Path, *, overwrite: bool) -> dict[Path, Path]:
    """The label file of every image: ``output/<stem>.tif``.

    Raises
    ------
    FileError
        If two images would share a label file, an image would be overwritten by its labels, or
        ``overwrite`` is False and there are labels or tables in ``output`` already.
    """
    targets: dict[Path, Path] = {}
    for file in files:
        target = output / f"{file.stem}.tif"
        other = next((f for f, t in targets.items() if t == target), None)
        if other is not None:
            raise FileError(
                f"'{other}' and '{file}' would both be labelled in '{target}'. Label them into "
                "different folders, or rename one."
            )
        if target.exists() and target.samefile(file):
            raise FileError(
                f"The labels would overwrite the image '{file}'. Give another --output."
            )
        targets[file] = target
    tables = map(features_file, targets.values())
    existing = [t for t in (*targets.values(), *tables, output / MANIFEST_FILE) if t.exists()]
    if existing and not overwrite:
        raise FileError(
            f"'{existing[0]}' is there already. Give another --output, or --overwrite to replace "
            f"it ({len(existing)} files)."
        )
    return targets


def features_file(target: Path) -> Path:
    """The table of the objects of a label file: ``<stem>.features.csv`` beside it."""
    return target.with_suffix(".features.csv")


def label_files(
    predictor: Predictor,
    targets: dict[Path, Path],
    words: Sequence[str],
    output: Path,
    *,
    threshold: float = DEFAULT_THRESHOLD,
    zoom: float | None = None,
    templates: bool = True,
    regions: RegionMode = "none",
    detector: str = "",
    instances: InstanceOptions | None = None,
) -> Iterator[Outcome]:
    """Label files, write ``classes.csv`` and ``manifest.csv``, and go on after bad files.

    Parameters
    ----------
    predictor : Predictor
    targets : dict of Path to Path
        Label file of each image; see :func:`label_targets`.
    words : sequence of str
        Word ``k`` gets class id ``k + 1``.
    output : Path
        Folder of the two tables.
    threshold, zoom, templates, regions, detector
        See :meth:`clsclip.predict.predictor.Predictor.segment`.
    instances : InstanceOptions, optional
        Write ids of single objects and their table, see :func:`features_file`, instead of class
        ids.

    Yields
    ------
    Outcome
        Of each file, after its row is in the manifest.

    Raises
    ------
    FileError
        If ``output`` cannot be written.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        with (output / CLASSES_FILE).open("w", newline="") as stream:
            table = csv.writer(stream)
            table.writerow(["id", "name"])
            table.writerows(enumerate(words, start=1))
        with (output / MANIFEST_FILE).open("w", newline="") as stream:
            manifest = csv.writer(stream)
            manifest.writerow(["file", "status", "seconds", "error", "objects", "regions"])
            for file, target in targets.items():
                outcome = _label(
                    predictor, file, target, words, threshold, instances,
                    zoom=zoom, templates=templates, regions=regions, detector=detector,
                )  # fmt: skip
                row = (file, outcome.status, f"{outcome.seconds:.3f}", outcome.error)
                manifest.writerow((*row, outcome.objects, outcome.regions))
                stream.flush()
                yield outcome
    except OSError as error:
        raise FileError(f"'{output}' cannot be written ({error}).") from error


def _label(
    predictor: Predictor, file: Path, target: Path, words: Sequence[str], threshold: float,
    instances: InstanceOptions | None, **how: Any,
) -> Outcome:  # fmt: skip
    started = time.perf_counter()
    objects = None
    try:
        result = predictor.segment(read_image(file), words, **how)
        if instances is None:
            write_labels(target, result.labels(threshold))
            features_file(target).unlink(missing_ok=True)  # of an earlier run with instances
        else:
            labels, features = segmented_instances(result, threshold, instances)
            write_features(features_file(target), features)
            write_labels(target, labels)
            objects = len(features["label"])
    except ClsClipError as error:
        return Outcome(file, "failed", time.perf_counter() - started, error.message)
    reasons = " ".join(dict.fromkeys(result.region_reasons))
    return Outcome(file, "done", time.perf_counter() - started, objects=objects, regions=reasons)


def write_labels(target: Path, labels: Labels) -> None:
    """Write ids, shape (H, W), as a zlib-compressed TIFF, at once or not at all.

    Unsigned integers of 16 bits, or of 32 where the ids need them.

    Raises
    ------
    OSError
    """
    stored = labels if labels.dtype == np.uint16 else labels.astype(np.uint32)
    _write_at_once(target, lambda draft: imwrite(draft, stored, compression="zlib"))


def write_features(target: Path, features: dict[str, NDArray[Any]]) -> None:
    """Write the columns of a table as CSV, at once or not at all.

    Raises
    ------
    OSError
    """

    def write(draft: Path) -> None:
        with draft.open("w", newline="", encoding="utf-8") as stream:
            table = csv.writer(stream)
            table.writerow(features)
            columns = [_rounded(column) for column in features.values()]
            table.writerows(zip(*columns, strict=True))

    _write_at_once(target, write)


def _rounded(column: NDArray[Any]) -> list[Any]:
    """Values as Python objects; four decimals are more than pixels can say."""
    decimals = np.round(column.astype(np.float64), 4) if column.dtype.kind == "f" else column
    return list(decimals.tolist())


def _write_at_once(target: Path, write: Callable[[Path], object]) -> None:
    """Write a draft beside a file, then put it in the file's place."""
    draft = target.with_name(f".{target.name}.new")
    try:
        write(draft)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
