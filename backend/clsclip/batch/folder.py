"""Label image files one after the other, with a manifest of what became of each."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import clsclip
from clsclip.batch.files import features_file, write_at_once, write_features, write_labels
from clsclip.batch.large import (
    BlockProgress,
    discard_unfinished,
    label_large,
    large_target,
    part_folder,
    settings_of,
)
from clsclip.batch.unfinished import check_same, read_record, write_record
from clsclip.config import DEFAULT_THRESHOLD, LargeImageSettings, RegionMode
from clsclip.errors import ClsClipError, FileError, InvalidConfigError
from clsclip.image_files import IMAGE_ENDINGS, list_images
from clsclip.image_sources import ImageSource, is_zarr, open_source
from clsclip.instances import InstanceOptions, segmented_instances
from clsclip.predict.predictor import Predictor

MANIFEST_FILE: Final = "manifest.csv"
CLASSES_FILE: Final = "classes.csv"
UNFINISHED_FILE: Final = ".unfinished.json"
"""Settings of a run, in its output folder, until it ends."""

_DEFAULT_LARGE: Final = LargeImageSettings()
_HEADS: Final = ("file", "status", "seconds", "error", "objects", "regions")


@dataclass(frozen=True)
class Outcome:
    """What became of one file: a row of the manifest.

    ``regions`` says where the words were looked for, and why there, if regions were asked for.
    "skipped" files were labelled before the run was interrupted, and keep their row.
    """

    file: Path
    status: Literal["done", "failed", "skipped"]
    seconds: float
    error: str = ""
    objects: int | None = None
    """Number of objects, where they are told apart."""
    regions: str = ""
    """How regions were chosen, where they were asked for."""


def collect_images(inputs: Sequence[Path]) -> list[Path]:
    """Files and zarr folders as given, and those in other folders, in order and each once.

    Raises
    ------
    FileError
        If an input does not exist, or a folder holds no images.
    """
    files: dict[Path, None] = {}
    for path in inputs:
        if not path.exists():
            raise FileError(f"'{path}' does not exist.")
        folder = path.is_dir() and not is_zarr(path)
        files.update(dict.fromkeys(_images_of(path) if folder else [path]))
    return list(files)


def _images_of(folder: Path) -> list[Path]:
    """Image files and zarr folders of a folder, by name."""
    entries = list(folder.iterdir())
    zarrs = [path for path in entries if path.suffix.lower() == ".zarr" and is_zarr(path)]
    files = any(path.suffix.lower() in IMAGE_ENDINGS for path in entries)
    return sorted([*zarrs, *(list_images(folder) if files or not zarrs else ())])


def label_targets(files: Iterable[Path], output: Path, *, overwrite: bool) -> dict[Path, Path]:
    """The label file of every image: ``output/<stem>.tif``; see also :func:`label_files`.

    Raises
    ------
    FileError
        If two images would share a label file, an image could be overwritten by its labels, or
        ``overwrite`` is False and there are labels or tables in ``output`` already that are not
        those of a run which was interrupted.
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
        if any(t.exists() and t.samefile(file) for t in (target, large_target(target))):
            raise FileError(
                f"The labels would overwrite the image '{file}'. Give another --output."
            )
        targets[file] = target
    if overwrite or (output / UNFINISHED_FILE).exists():
        return targets
    written = [output / MANIFEST_FILE]
    for target in targets.values():
        large = large_target(target)
        written += [target, features_file(target), large, part_folder(large)]
    existing = [path for path in written if path.exists()]
    if existing:
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
    instances: InstanceOptions | None = None,
    large: LargeImageSettings = _DEFAULT_LARGE,
    overwrite: bool = False,
    progress: Callable[[Path, BlockProgress], None] = lambda file, blocks: None,
) -> Iterator[Outcome]:
    """Label files, write ``classes.csv`` and ``manifest.csv``, and go on after bad files.

    Images of more than ``large.large_from`` pixels are labelled block by block into
    ``<stem>.zarr`` instead of ``<stem>.tif``; see :func:`clsclip.batch.large.label_large`. A run
    that was interrupted is gone on with: what it had done is skipped.

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
        Write ids of single objects and their table, see
        :func:`clsclip.batch.files.features_file`, instead of class ids.
    large : LargeImageSettings
    overwrite : bool
        Begin anew, also where a run was interrupted.
    progress : callable
        Told after every block of a large image.

    Yields
    ------
    Outcome
        Of each file, after its row is in the manifest.

    Raises
    ------
    FileError
        If ``output`` cannot be written, or holds a run that was interrupted and had other
        settings.
    """
    settings: dict[str, Any] = {
        "words": list(words), "threshold": threshold, "zoom": zoom, "templates": templates,
        "regions": regions, "detector": detector, "instances": settings_of(instances),
        "level": large.level, "chunk": large.chunk, "model": predictor.name,
        "model_version": predictor.version, "version": clsclip.__version__,
    }  # fmt: skip
    try:
        output.mkdir(parents=True, exist_ok=True)
        before = _begin(output, targets, {**settings, "large_from": large.large_from}, overwrite)
        with (output / CLASSES_FILE).open("w", newline="") as stream:
            table = csv.writer(stream)
            table.writerow(["id", "name"])
            table.writerows(enumerate(words, start=1))
        kept = _keep_done_rows(output, targets) if before else {}
        if not before:
            _write_manifest(output / MANIFEST_FILE, [])
        with (output / MANIFEST_FILE).open("a", newline="") as stream:
            manifest = csv.writer(stream)
            for file, target in targets.items():
                if file in kept:
                    yield Outcome(file, "skipped", 0.0, objects=kept[file])
                    continue
                outcome = _label(
                    predictor, file, target, words, threshold, instances, large, settings,
                    before, progress,
                    zoom=zoom, templates=templates, regions=regions, detector=detector,
                )  # fmt: skip
                row = (file, outcome.status, f"{outcome.seconds:.3f}", outcome.error)
                manifest.writerow((*row, outcome.objects, outcome.regions))
                stream.flush()
                yield outcome
        (output / UNFINISHED_FILE).unlink()
    except OSError as error:
        raise FileError(f"'{output}' cannot be written ({error}).") from error


def _begin(
    output: Path, targets: dict[Path, Path], settings: dict[str, Any], overwrite: bool
) -> bool:
    """Record a run's settings; True if it goes on with one that was interrupted."""
    record = output / UNFINISHED_FILE
    begun = None if overwrite else read_record(record)
    if begun is not None:
        check_same(output, begun, settings)
        return True
    for target in targets.values():
        discard_unfinished(large_target(target))
    write_record(record, settings)
    return False


def _keep_done_rows(output: Path, targets: dict[Path, Path]) -> dict[Path, int | None]:
    """Leave only the rows of labelled files in the manifest; their numbers of objects."""
    file = output / MANIFEST_FILE
    if not file.exists():
        _write_manifest(file, [])
        return {}
    with file.open(newline="") as stream:
        done = {
            Path(row["file"]): row
            for row in csv.DictReader(stream)
            if row["status"] == "done" and row["regions"] is not None  # else it was cut off
        }
    kept = {
        path: row
        for path, row in done.items()
        if path in targets and any(t.exists() for t in (targets[path], large_target(targets[path])))
    }
    _write_manifest(file, [[row[head] for head in _HEADS] for row in kept.values()])
    return {path: int(row["objects"]) if row["objects"] else None for path, row in kept.items()}


def _write_manifest(file: Path, rows: Sequence[Sequence[str]]) -> None:
    def write(draft: Path) -> None:
        with draft.open("w", newline="") as stream:
            csv.writer(stream).writerows([_HEADS, *rows])

    write_at_once(file, write)


def _label(
    predictor: Predictor, file: Path, target: Path, words: Sequence[str], threshold: float,
    instances: InstanceOptions | None, large: LargeImageSettings, settings: dict[str, Any],
    resumed: bool, progress: Callable[[Path, BlockProgress], None], **how: Any,
) -> Outcome:  # fmt: skip
    started = time.perf_counter()
    objects, reasons = None, ""
    try:
        with open_source(file, level=large.level) as source:
            if source.pixels > large.large_from:
                _check_regions(source, how["regions"], large.large_from)
                objects = label_large(
                    predictor, source, large_target(target), tuple(words), settings,
                    threshold=threshold, zoom=how["zoom"], templates=how["templates"],
                    chunk=large.chunk, instances=instances, resumed=resumed,
                    progress=lambda blocks: progress(file, blocks),
                )  # fmt: skip
            else:
                result = predictor.segment(source.read(), words, **how)
                reasons = " ".join(dict.fromkeys(result.region_reasons))
                if instances is None:
                    write_labels(target, result.labels(threshold))
                else:
                    labels, features = segmented_instances(result, threshold, instances)
                    write_features(features_file(target), features)
                    write_labels(target, labels)
                    objects = len(features["label"])
        if instances is None:
            features_file(target).unlink(missing_ok=True)  # of an earlier run with instances
    except ClsClipError as error:
        return Outcome(file, "failed", time.perf_counter() - started, error.message)
    return Outcome(file, "done", time.perf_counter() - started, objects=objects, regions=reasons)


def _check_regions(source: ImageSource, regions: RegionMode, large_from: int) -> None:
    if regions != "none":
        raise InvalidConfigError(
            f"'{source.name}' has {source.pixels} pixels; with more than {large_from}, images are "
            f"labelled block by block, for which there are no region proposals ('{regions}'). "
            "Leave --regions out, or raise --large-from if there is memory enough."
        )
