"""YOLO segmentation text: the outline of every object as one polygon."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from clsclip.batch.exports import Labelled, plane_key
from clsclip.batch.files import write_text
from clsclip.batch.formats.objects import plane_objects
from clsclip.batch.formats.outline import outline


class YoloExporter:
    """``yolo/labels/KEY.txt``, a line per object, and ``yolo/data.yaml``, which names the classes.

    Classes count from 0: the class id less 1. An object in several pieces is a line per piece, as
    a line holds one polygon. The images are not copied; Ultralytics looks for them in
    ``yolo/images``.
    """

    def __init__(self, output: Path, words: tuple[str, ...]) -> None:
        self._folder, self._words = output / "yolo", words

    def write(self, labelled: Labelled) -> None:
        """See :class:`clsclip.batch.exports.Exporter`."""
        height, width = labelled.labels.shape[-2:]
        planes = len(labelled.stack)
        for plane, file in enumerate(self.files(labelled.key, planes)):
            lines = []
            for found in plane_objects(labelled, plane):
                for piece in found.pieces():
                    points = (outline(piece) / (width, height)).ravel()
                    line = " ".join(f"{value:.8g}" for value in points)
                    lines.append(f"{found.class_id - 1} {line}\n")
            write_text(file, "".join(lines))

    def finish(self, labelled: Iterable[Labelled]) -> None:
        """Write ``data.yaml``, which depends on the words alone."""
        names = "".join(
            f"  {number}: {json.dumps(word, ensure_ascii=False)}\n"  # JSON strings are YAML strings
            for number, word in enumerate(self._words)
        )
        write_text(self._folder / "data.yaml", f"train: images\nval: images\nnames:\n{names}")

    def files(self, key: str, planes: int) -> list[Path]:
        """See :class:`clsclip.batch.exports.Exporter`."""
        return [
            self._folder / _label_path(plane_key(key, plane, planes)) for plane in range(planes)
        ]


def _label_path(key: str) -> PurePosixPath:
    """Where Ultralytics looks for the labels of ``images/KEY``.

    That is beside the last folder ``images``, which may be one of the input folder.
    """
    parts = ["images", *PurePosixPath(f"{key}.txt").parts]
    last = max(n for n, part in enumerate(parts[:-1]) if part == "images")
    return PurePosixPath(*parts[:last], "labels", *parts[last + 1 :])
