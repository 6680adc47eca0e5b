"""Pascal VOC: boxes in XML, and class and object masks in indexed PNG."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from clsclip.batch.exports import Labelled, plane_key
from clsclip.batch.files import write_text
from clsclip.batch.formats.objects import PlaneObject, plane_objects
from clsclip.batch.formats.png import indexed, save_png
from clsclip.errors import InvalidConfigError, InvalidImageError

VOC_FOLDER: Final = Path("voc", "VOCdevkit", "VOC2012")
"""In the output folder: what torchvision looks for in the folder ``voc``."""

_VOID: Final = 255
"""What does not count in VOC's masks."""

_NO_TEXT: Final = re.compile("[\x00-\x1f\ud800-\udfff\ufffe\uffff]")


class VocExporter:
    """``voc/VOCdevkit/VOC2012``: boxes, class masks and object masks of every plane, and a list.

    Object ``i`` of ``Annotations/KEY.xml`` is the value ``i`` of ``SegmentationObject/KEY.png``.
    The images are not copied; VOC's readers look for them in ``JPEGImages``.
    """

    def __init__(self, output: Path, words: tuple[str, ...]) -> None:
        if len(words) >= _VOID:
            raise InvalidConfigError(
                f"There are {len(words)} words; Pascal VOC holds {_VOID - 1} classes, as 255 is "
                "what does not count. Choose another format."
            )
        self._folder, self._words = output / VOC_FOLDER, words

    def write(self, labelled: Labelled) -> None:
        """See :class:`clsclip.batch.exports.Exporter`."""
        if _NO_TEXT.search(labelled.file_name):
            raise InvalidImageError(
                f"The name of {labelled.file_name!r} holds bytes that are no text, which XML "
                "cannot hold. Rename the image, or choose another format."
            )
        planes = len(labelled.stack)
        files = iter(self.files(labelled.key, planes))
        for plane, (boxes, classes, objects) in enumerate(zip(files, files, files, strict=True)):
            found = plane_objects(labelled, plane)
            save_png(objects, _object_mask(labelled, found))
            save_png(classes, indexed(labelled.class_plane(plane)))
            write_text(boxes, _annotation(labelled, found, self._words))

    def finish(self, labelled: Iterable[Labelled]) -> None:
        """Write the list of all planes, in the order of their names."""
        names = sorted(
            plane_key(one.key, plane, len(one.stack))
            for one in labelled
            for plane in range(len(one.stack))
        )
        text = "".join(f"{name}\n" for name in names)
        for task in ("Segmentation", "Main"):
            write_text(self._folder / "ImageSets" / task / "trainval.txt", text)

    def files(self, key: str, planes: int) -> list[Path]:
        """See :class:`clsclip.batch.exports.Exporter`."""
        folders = (("Annotations", "xml"), ("SegmentationClass", "png"),
                   ("SegmentationObject", "png"))  # fmt: skip
        return [
            self._folder / folder / f"{plane_key(key, plane, planes)}.{ending}"
            for plane in range(planes)
            for folder, ending in folders
        ]


def _object_mask(labelled: Labelled, found: list[PlaneObject]) -> Image.Image:
    """Numbers of the objects; in 16 bits of grey where there are more than VOC can hold."""
    numbers = np.zeros(labelled.labels.shape[-2:], np.uint32)
    for number, one in enumerate(found, start=1):
        numbers[one.rows, one.columns] = number
    if len(found) < _VOID:
        return indexed(numbers)
    if len(found) > np.iinfo(np.uint16).max:
        raise InvalidImageError(
            f"'{labelled.image}' has {len(found)} objects in one plane; the PNG files of Pascal "
            "VOC hold up to 65535. The TIFF file and coco hold all of them."
        )
    return Image.fromarray(numbers.astype(np.uint16))


def _annotation(labelled: Labelled, found: list[PlaneObject], words: tuple[str, ...]) -> str:
    height, width = labelled.labels.shape[-2:]
    root = ET.Element("annotation")
    _add(root, "folder", VOC_FOLDER.name)
    _add(root, "filename", labelled.file_name)
    _add(ET.SubElement(root, "source"), "database", "napari-clsclip")
    size = ET.SubElement(root, "size")
    for name, value in (("width", width), ("height", height), ("depth", 3)):
        _add(size, name, value)
    _add(root, "segmented", 1)
    for one in found:
        top, left, bottom, right = one.box
        entry = ET.SubElement(root, "object")
        _add(entry, "name", words[one.class_id - 1])
        _add(entry, "pose", "Unspecified")
        _add(entry, "truncated", int(top == 0 or left == 0 or bottom == height or right == width))
        _add(entry, "difficult", 0)
        box = ET.SubElement(entry, "bndbox")  # of pixels counted from 1, the last ones included
        for name, value in (("xmin", left + 1), ("ymin", top + 1), ("xmax", right),
                            ("ymax", bottom)):  # fmt: skip
            _add(box, name, value)
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _add(parent: ET.Element, name: str, value: object) -> None:
    ET.SubElement(parent, name).text = str(value)
