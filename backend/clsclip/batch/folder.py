"""Label image files one after the other, with a manifest of what became of each."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from tifffile import imwrite

from clsclip.config import DEFAULT_THRESHOLD, RegionMode
from clsclip.errors import ClsClipError, FileError
from clsclip.image_files import list_images, read_image
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
    regions: str = ""


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
        ``overwrite`` is False and there are labels in ``output`` already.
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
    existing = [t for t in (*targets.values(), output / MANIFEST_FILE) if t.exists()]
    if existing and not overwrite:
        raise FileError(
            f"'{existing[0]}' is there already. Give another --output, or --overwrite to replace "
            f"it ({len(existing)} files)."
        )
    return targets


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
            proposed = ["regions"] if regions != "none" else []
            manifest.writerow(["file", "status", "seconds", "error", *proposed])
            for file, target in targets.items():
                outcome = _label(
                    predictor, file, target, words, threshold,
                    zoom=zoom, templates=templates, regions=regions, detector=detector,
                )  # fmt: skip
                row = [str(file), outcome.status, f"{outcome.seconds:.3f}", outcome.error]
                manifest.writerow([*row, outcome.regions] if proposed else row)
                stream.flush()
                yield outcome
    except OSError as error:
        raise FileError(f"'{output}' cannot be written ({error}).") from error


def _label(
    predictor: Predictor, file: Path, target: Path, words: Sequence[str], threshold: float,
    **how: Any,
) -> Outcome:  # fmt: skip
    started = time.perf_counter()
    try:
        result = predictor.segment(read_image(file), words, **how)
        write_labels(target, result.labels(threshold))
    except ClsClipError as error:
        return Outcome(file, "failed", time.perf_counter() - started, error.message)
    reasons = " ".join(dict.fromkeys(result.region_reasons))
    return Outcome(file, "done", time.perf_counter() - started, regions=reasons)


def write_labels(target: Path, labels: NDArray[np.uint16]) -> None:
    """Write class ids, shape (H, W), as a zlib-compressed TIFF, at once or not at all.

    Raises
    ------
    OSError
    """
    draft = target.with_name(f".{target.name}.new")
    try:
        imwrite(draft, labels, compression="zlib")
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
