"""From the pixels of an image to its labels on disk: what a model finds, and what is made of it.

The two halves may run in two threads: :func:`find` needs the model, :class:`ImageOutput` does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clsclip.batch.accepted import AcceptedKeys
from clsclip.batch.exports import Labelled, exporter
from clsclip.batch.files import features_file, label_file, write_features, write_labels
from clsclip.batch.inputs import InputImage
from clsclip.batch.large import BlockProgress, LargeLabels, label_large
from clsclip.batch.large_files import large_target
from clsclip.batch.manifest import ManifestRow
from clsclip.batch.reading import Piece
from clsclip.batch.task import LabelTask
from clsclip.batch.thumbnails import write_large_thumbnail, write_thumbnail
from clsclip.errors import CancelledError, ClsClipError
from clsclip.instances import segmented_instances
from clsclip.predict.predictor import Predictor
from clsclip.ranking import expected_iou
from clsclip.segmentation import Segmentation

_PLANE: Final = "plane"
"""Column of the table of a stack."""


@dataclass(frozen=True)
class Found:
    """What became of a piece.

    Attributes
    ----------
    piece : Piece
    seconds : float
        Reading and finding took so long.
    result : Segmentation or None
        Of a plane.
    large : LargeLabels or None
        Of a large image, whose labels are on disk.
    error : str
        Why there is neither.
    """

    piece: Piece
    seconds: float
    result: Segmentation | None = None
    large: LargeLabels | None = None
    error: str = ""


def find(
    predictor: Predictor, piece: Piece, task: LabelTask, *,
    progress: Callable[[BlockProgress], None] = lambda blocks: None,
) -> Found:  # fmt: skip
    """Look for the words in a piece of an image.

    Parameters
    ----------
    predictor : Predictor
    piece : Piece
    task : LabelTask
    progress : callable
        Told after every block of a large image. A CancelledError of it ends the work.

    Raises
    ------
    CancelledError
    OSError
        If the labels of a large image cannot be written.
    """
    if piece.error:
        return Found(piece, piece.seconds, error=piece.error)
    started = time.perf_counter()
    result = large = None
    error = ""
    try:
        if piece.pixels is None:
            large = _label_large(predictor, piece, task, progress)
        else:
            result = predictor.segment(
                piece.pixels, task.words, zoom=task.zoom, templates=task.templates,
                regions=task.regions, detector=task.detector,
            )  # fmt: skip
    except CancelledError:
        raise
    except ClsClipError as fault:
        error = fault.message
    except MemoryError as fault:
        error = f"'{piece.image.file}' takes more memory than there is ({fault})."
    return Found(piece, piece.seconds + time.perf_counter() - started, result, large, error)


def _label_large(
    predictor: Predictor, piece: Piece, task: LabelTask, progress: Callable[[BlockProgress], None]
) -> LargeLabels:
    target = large_target(label_file(task.output, piece.image.key))
    target.parent.mkdir(parents=True, exist_ok=True)
    with piece.image.open(level=task.large.level, channels=task.channels) as source:
        labels = label_large(
            predictor, source, target, task.words, task.image_settings(),
            threshold=task.threshold, zoom=task.zoom, templates=task.templates,
            chunk=task.large.chunk, instances=task.instances, resumed=task.resumed,
            progress=progress,
        )  # fmt: skip
        if piece.image.thumbnail is not None:
            write_large_thumbnail(piece.image.thumbnail, source, target)
    return labels


class ImageOutput:
    """Makes labels of what is found, and writes them when an image has all its planes.

    Parameters
    ----------
    task : LabelTask
    """

    def __init__(self, task: LabelTask) -> None:
        self._task = task
        self._accepted = AcceptedKeys(task.output)
        self._exporters = [
            exporter(name, task.output, task.words) for name in task.formats if name != "tiff"
        ]
        self._planes: list[_Plane] = []
        self._seconds = 0.0
        self._failed: InputImage | None = None

    def add(self, found: Found) -> ManifestRow | None:
        """Take the next piece, in order.

        Returns
        -------
        ManifestRow or None
            None as long as planes are missing, and for further planes of a failed image.

        Raises
        ------
        OSError
            If labels cannot be written.
        """
        piece, started = found.piece, time.perf_counter()
        if piece.image == self._failed:
            return None
        self._seconds += found.seconds
        error = found.error
        row = ManifestRow(piece.image.file, "done", 0.0)
        try:
            if found.result is not None:
                self._planes.append(_plane(found.result, self._task))
                self._draw(piece)
                if len(self._planes) < piece.planes:
                    self._seconds += time.perf_counter() - started
                    return None
                row = self._write(piece)
            elif found.large is not None:
                large = found.large
                row = ManifestRow(
                    piece.image.file, "done", 0.0, objects=large.objects, score=large.score
                )
                if large.objects is None:
                    self._table(piece).unlink(missing_ok=True)
        except ClsClipError as fault:
            error = fault.message
        except MemoryError as fault:
            error = f"'{piece.image.file}' takes more memory than there is ({fault})."
        seconds = self._seconds + time.perf_counter() - started
        self._planes, self._seconds = [], 0.0
        if error:
            self._failed = piece.image
            return ManifestRow(piece.image.file, "failed", seconds, error)
        return ManifestRow(
            row.file, "done", seconds, objects=row.objects, regions=row.regions, score=row.score
        )

    def _draw(self, piece: Piece) -> None:
        """Write the small picture, of the middle plane."""
        drawn = piece.image.thumbnail
        middle = piece.plane == piece.planes // 2
        if drawn is not None and piece.pixels is not None and middle:
            write_thumbnail(drawn, piece.pixels, self._planes[-1].labels)

    def _table(self, piece: Piece) -> Any:
        return features_file(label_file(self._task.output, piece.image.key))

    def _write(self, piece: Piece) -> ManifestRow:
        """Write the files of an image."""
        task, image, planes = self._task, piece.image, self._planes
        scores = [each.score for each in planes if each.score is not None]
        reasons = dict.fromkeys(reason for each in planes for reason in each.reasons)
        objects = None if task.instances is None else sum(each.objects for each in planes)
        row = ManifestRow(
            image.file, "done", 0.0, objects=objects, regions=" ".join(reasons),
            score=min(scores, default=None),
        )  # fmt: skip
        if image.key in self._accepted:  # meanwhile
            return row
        labels, features = _joined(planes)
        target = label_file(task.output, image.key)
        target.parent.mkdir(parents=True, exist_ok=True)
        if features is None:
            features_file(target).unlink(missing_ok=True)  # of an earlier run with instances
        else:
            write_features(features_file(target), features)
        write_labels(target, labels, pixel_size=piece.pixel_size)
        if self._exporters:
            classes = None
            if features is not None:
                ids = {word: k for k, word in enumerate(task.words, start=1)}
                classes = np.array([ids[word] for word in features["class"]], np.uint16)
            stored = labels if labels.dtype == np.uint16 else labels.astype(np.uint32)
            labelled = Labelled(
                image.file, image.key, stored, classes, task.words, piece.pixel_size
            )
            for each in self._exporters:
                each.write(labelled)
        return row


@dataclass(frozen=True)
class _Plane:
    """Labels of one plane, their table, and what the manifest tells of it."""

    labels: NDArray[Any]
    features: dict[str, NDArray[Any]] | None
    score: float | None
    reasons: tuple[str, ...]

    @property
    def objects(self) -> int:
        return 0 if self.features is None else len(self.features["label"])


def _plane(result: Segmentation, task: LabelTask) -> _Plane:
    expected = [expected_iou(plane, task.threshold) for plane in result.probabilities]
    score = min((each for each in expected if each is not None), default=None)
    if task.instances is None:
        return _Plane(result.labels(task.threshold), None, score, result.region_reasons)
    labels, features = segmented_instances(result, task.threshold, task.instances)
    return _Plane(labels, features, score, result.region_reasons)


def _joined(planes: list[_Plane]) -> tuple[NDArray[Any], dict[str, NDArray[Any]] | None]:
    """One label array and one table; ids of objects go on from plane to plane."""
    if len(planes) == 1:
        return planes[0].labels, planes[0].features
    before = np.cumsum([0, *(each.objects for each in planes)])
    dtype = np.uint16 if before[-1] <= np.iinfo(np.uint16).max else np.uint32
    labels = np.zeros((len(planes), *planes[0].labels.shape), dtype)
    tables: list[dict[str, NDArray[Any]]] = []
    for k, plane in enumerate(planes):
        labels[k] = plane.labels
        if plane.features is not None:
            labels[k][plane.labels > 0] += dtype(before[k])
            number = np.full(plane.objects, k)
            ids = plane.features["label"] + before[k]
            tables.append({**plane.features, "label": ids, _PLANE: number})
    if not tables:
        return labels, None
    return labels, {name: np.concatenate([t[name] for t in tables]) for name in tables[0]}
