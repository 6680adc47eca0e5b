"""Label an image that is too large to hold into a zarr, block by block; go on after a stop.

While it is worked on, everything lies in a folder ``.<stem>.zarr.part`` beside the target; only
finished labels get the target's name.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import zarr

from clsclip.batch.files import features_file, write_at_once
from clsclip.batch.large_files import part_folder
from clsclip.batch.large_objects import FEATURES_FILE, ObjectNumbering
from clsclip.batch.unfinished import SETTINGS_FILE, Journal, check_same, read_record, write_record
from clsclip.image_sources import ImageSource
from clsclip.instances import InstanceOptions
from clsclip.looks import Looks
from clsclip.predict.large import LargeSegmenter, choose_looks
from clsclip.predict.predictor import Predictor
from clsclip.ranking import expected_iou_of_counts, probability_counts
from clsclip.segmentation import Segmentation

LOOKS_FILE: Final = "looks.json"
BLOCKS_FILE: Final = "blocks.jsonl"
LABELS: Final = "labels"
PROBABILITIES: Final = "probabilities"


@dataclass(frozen=True)
class BlockProgress:
    """How far an image is.

    Attributes
    ----------
    stage : str
        "segment", or "objects": telling single objects apart, once all is segmented.
    done, total : int
        Blocks.
    skipped : int
        Blocks that an earlier run had done.
    """

    stage: Literal["segment", "objects"]
    done: int
    total: int
    skipped: int


@dataclass(frozen=True)
class LargeLabels:
    """What the manifest tells of a large image.

    Attributes
    ----------
    objects : int or None
        Number of objects, if single objects are told apart.
    score : float or None
        Expected IoU of the least certain word that was found, see
        :func:`clsclip.ranking.expected_iou`.
    """

    objects: int | None
    score: float | None


def label_large(
    predictor: Predictor,
    source: ImageSource,
    target: Path,
    words: tuple[str, ...],
    settings: Mapping[str, Any],
    *,
    threshold: float,
    zoom: float | None,
    templates: bool,
    chunk: int,
    instances: InstanceOptions | None,
    resumed: bool,
    progress: Callable[[BlockProgress], None],
) -> LargeLabels:
    """Label an image into a zarr array, or go on with it.

    The array is uint32 of shape (H, W), in compressed chunks; its attributes are the words, their
    zooms, and the settings. Class ids as in :meth:`clsclip.segmentation.Segmentation.labels`, or
    ids of single objects with a table beside it, see
    :class:`clsclip.batch.large_objects.ObjectNumbering`.

    Parameters
    ----------
    predictor : Predictor
    source : ImageSource
    target : Path
        ``<stem>.zarr``; replaced when the new one is finished.
    words : tuple of str
    settings : mapping of str to JSON values
        What the labels depend on; kept to recognise a run that can be gone on with.
    threshold, zoom, templates
        See :meth:`clsclip.predict.predictor.Predictor.segment`.
    chunk : int
        Side of the chunks in pixels, and rows of a block.
    instances : InstanceOptions, optional
    resumed : bool
        Whether the run goes on: a finished target of the same settings is then left alone.
    progress : callable
        Told after every block.

    Returns
    -------
    LargeLabels

    Raises
    ------
    FileError
        If an unfinished labelling has other settings or is of another image.
    ClsClipError
        If the image cannot be read or segmented.
    OSError
        If the output cannot be written.
    """
    own = json.loads(json.dumps(settings))  # as it will be read: tuples are lists
    own |= {"image": Path(source.name).name, "fingerprint": source.fingerprint()}
    if resumed and (finished := _finished(target, own)) is not None:
        return LargeLabels(finished.get("objects"), finished.get("score"))
    part = part_folder(target)
    part.mkdir(exist_ok=True)
    begun = read_record(part / SETTINGS_FILE)
    if begun is None:
        write_record(part / SETTINGS_FILE, own)
    else:
        check_same(target, begun, own)
    looks = _looks(part, lambda: choose_looks(
        predictor, source, words, zoom=zoom, templates=templates
    ))  # fmt: skip
    height, width = source.shape
    labels = _array(part / LABELS, (height, width), (chunk, chunk), "uint32")
    objects = None
    planes = labels
    if instances is not None:
        shape = (len(words), height, width)
        planes = _array(part / PROBABILITIES, shape, (1, chunk, chunk), "uint8")
    with LargeSegmenter(
        predictor, source, words, looks, chunk=chunk, templates=templates
    ) as segmenter:
        journal = Journal(part / BLOCKS_FILE)
        done = {entry["block"] for entry in journal.entries}
        counts = np.zeros((len(words), 256), np.int64)
        for entry in journal.entries:
            counts += np.array(entry["counts"], np.int64)
        skipped, total = len(done), len(segmenter.blocks)
        progress(BlockProgress("segment", skipped, total, skipped))
        for block in segmenter.in_order():
            if block.number in done:
                continue
            own_counts = np.zeros_like(counts)
            for region, probabilities in segmenter.segment(block):
                own_counts += [probability_counts(plane) for plane in probabilities]
                if instances is not None:
                    planes[(slice(None), *region)] = probabilities
                    continue
                result = Segmentation(
                    probabilities, words, predictor.name, predictor.version, looks.zooms, 0.0
                )
                labels[region] = result.labels(threshold).astype(np.uint32)
            journal.add({"block": block.number, "counts": own_counts.tolist()})
            counts += own_counts
            done.add(block.number)
            progress(BlockProgress("segment", len(done), total, skipped))
    if instances is not None:
        numbering = ObjectNumbering(planes, labels, words, threshold, instances, part)
        skipped, total = numbering.done, len(numbering)
        for number in numbering.run():
            progress(BlockProgress("objects", number, total, skipped))
        objects = numbering.objects
        write_at_once(
            features_file(target), lambda draft: shutil.copyfile(part / FEATURES_FILE, draft)
        )
    scores = [expected_iou_of_counts(each, threshold) for each in counts]
    score = min((each for each in scores if each is not None), default=None)
    attributes = {
        **own, "zooms": looks.zooms, "contrast_limits": looks.contrast_limits, "score": score
    }  # fmt: skip
    labels.attrs.update({**attributes, "objects": objects} if instances else attributes)
    _put_in_place(part, target)
    return LargeLabels(objects, score)


def settings_of(instances: InstanceOptions | None) -> dict[str, Any] | None:
    """Options as JSON values."""
    return None if instances is None else asdict(instances)


def _finished(target: Path, own: Mapping[str, Any]) -> dict[str, Any] | None:
    """Attributes of a target that has been finished with the same settings."""
    if not target.exists():
        return None
    attributes: dict[str, Any] = zarr.open_array(target, mode="r").attrs.asdict()
    same = all(attributes.get(name) == value for name, value in own.items())
    return attributes if same else None


def _looks(part: Path, choose: Callable[[], Looks]) -> Looks:
    """How the image is looked at: as it was decided when the work began."""
    record = read_record(part / LOOKS_FILE)
    if record is None:
        looks = choose()
        write_record(part / LOOKS_FILE, asdict(looks))
        return looks
    low, high = record["contrast_limits"]
    return Looks((low, high), tuple(map(tuple, record["passes"])))


def _array(path: Path, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str) -> Any:
    if (path / "zarr.json").exists():  # written last
        return zarr.open_array(path, mode="r+")
    return zarr.create_array(path, shape=shape, chunks=chunks, dtype=dtype, fill_value=0)


def _put_in_place(part: Path, target: Path) -> None:
    """Give finished labels the target's name, then remove all else."""
    for draft in (part / LABELS).rglob("*.partial"):  # of chunks, where an earlier run was killed
        draft.unlink()
    old = part / "replaced"
    if target.exists():
        target.rename(old)
    (part / LABELS).rename(target)
    shutil.rmtree(part)
