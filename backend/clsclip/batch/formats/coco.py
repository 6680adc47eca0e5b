"""COCO JSON: the masks of all objects of all images as run lengths, in one file."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from pycocotools import mask as coco_mask

from clsclip.batch.exports import Labelled
from clsclip.batch.files import write_at_once
from clsclip.batch.formats.objects import PlaneObject, plane_objects

COCO_FILE: Final = "coco.json"


class CocoExporter:
    """``coco.json``: a category per word, and an annotation per object, none of them a crowd.

    Of class ids, every connected piece is an object, see
    :func:`clsclip.batch.formats.objects.plane_objects`. Every plane of a stack is an image of its
    own with the file name of the stack, and its number from 0 as ``plane``.
    """

    def __init__(self, output: Path, words: tuple[str, ...]) -> None:
        self._file, self._words = output / COCO_FILE, words

    def write(self, labelled: Labelled) -> None:
        """Nothing: all images are in one file, see :meth:`finish`."""

    def finish(self, labelled: Iterable[Labelled]) -> None:
        """See :class:`clsclip.batch.exports.Exporter`; images are in the order of their keys."""
        images: list[tuple[str, int, dict[str, Any], int, int]] = []
        # not in memory: thousands of images have millions of objects
        with tempfile.TemporaryFile("w+b", dir=self._file.parent) as spool:
            for one in labelled:
                for plane in range(len(one.stack)):
                    start = spool.tell()
                    for found in plane_objects(one, plane):
                        entry = _annotation(found, one.labels.shape[-2:])
                        spool.write(json.dumps(entry).encode() + b"\n")
                    images.append((one.key, plane, _image(one, plane), start, spool.tell()))
            images.sort(key=lambda entry: entry[:2])

            def write(draft: Path) -> None:
                with draft.open("w", encoding="ascii", newline="\n") as stream:
                    stream.writelines(self._text(images, spool))

            write_at_once(self._file, write)

    def files(self, key: str, planes: int) -> list[Path]:
        """No file is about one image."""
        return []

    def _text(
        self, images: list[tuple[str, int, dict[str, Any], int, int]], spool: IO[bytes]
    ) -> Iterator[str]:
        categories = [
            {"id": number, "name": word, "supercategory": ""}
            for number, word in enumerate(self._words, start=1)
        ]
        head = {"info": {"description": "napari-clsclip"}, "licenses": [], "categories": categories}
        yield json.dumps(head)[:-1] + ', "images": [\n'
        for number, (_, _, image, _, _) in enumerate(images, start=1):
            comma = "," if number < len(images) else ""
            yield json.dumps({"id": number, **image}) + comma + "\n"
        yield '], "annotations": ['
        written = 0
        for number, (_, _, _, start, stop) in enumerate(images, start=1):
            spool.seek(start)
            while spool.tell() < stop:
                written += 1
                comma = "," if written > 1 else ""
                rest = spool.readline().decode()[1:]
                yield f'{comma}\n{{"id": {written}, "image_id": {number}, {rest.rstrip()}'
        yield "\n]}\n"


def _image(labelled: Labelled, plane: int) -> dict[str, Any]:
    height, width = labelled.labels.shape[-2:]
    image: dict[str, Any] = {"file_name": labelled.file_name, "width": width, "height": height}
    return image if labelled.labels.ndim == 2 else {**image, "plane": plane}


def _annotation(found: PlaneObject, shape: tuple[int, ...]) -> dict[str, Any]:
    """All of an annotation but its numbers."""
    height, width = shape
    places = found.columns * height + found.rows  # as COCO counts pixels: down the columns
    begins = np.flatnonzero(np.diff(places, prepend=-2) > 1)
    starts = places[begins]
    stops = places[np.append(begins[1:], len(places)) - 1] + 1
    edges = np.stack([starts, stops], axis=1).ravel()
    counts = np.diff(edges, prepend=0, append=height * width).tolist()
    packed: Any = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    top, left, bottom, right = found.box
    return {
        "category_id": found.class_id,
        "segmentation": {"size": [height, width], "counts": packed["counts"].decode("ascii")},
        "area": len(places),
        "bbox": [left, top, right - left, bottom - top],
        "iscrowd": 0,
    }
