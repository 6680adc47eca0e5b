"""Indexed PNG: the ids of the labels, drawn in colours by every viewer."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clsclip.batch.exports import Labelled, plane_key
from clsclip.batch.files import write_at_once
from clsclip.batch.formats.palette import voc_palette
from clsclip.errors import InvalidImageError


class PngExporter:
    """``png/KEY.png``: class ids or ids of single objects, one file per plane.

    Ids up to 255 are an indexed image of 8 bits with the palette of Pascal VOC, higher ones a grey
    image of 16 bits, as no indexed PNG holds more than 256 colours.
    """

    def __init__(self, output: Path, words: tuple[str, ...]) -> None:
        self._folder = output / "png"

    def write(self, labelled: Labelled) -> None:
        """See :class:`clsclip.batch.exports.Exporter`."""
        highest = int(labelled.labels.max())
        if highest > np.iinfo(np.uint16).max:
            raise InvalidImageError(
                f"'{labelled.image}' has ids up to {highest}; PNG holds ids up to 65535. The TIFF "
                "file and coco hold all of them."
            )
        planes = labelled.stack
        for file, plane in zip(self.files(labelled.key, len(planes)), planes, strict=True):
            image = indexed(plane) if highest <= 255 else Image.fromarray(plane.astype(np.uint16))
            save_png(file, image)

    def finish(self, labelled: Iterable[Labelled]) -> None:
        """Nothing is about all images."""

    def files(self, key: str, planes: int) -> list[Path]:
        """See :class:`clsclip.batch.exports.Exporter`."""
        return [self._folder / f"{plane_key(key, n, planes)}.png" for n in range(planes)]


def indexed(ids: NDArray[Any]) -> Image.Image:
    """An indexed image of ids up to 255, with the palette of Pascal VOC."""
    image = Image.fromarray(ids.astype(np.uint8), mode="P")
    image.putpalette(voc_palette().tobytes())
    return image


def save_png(file: Path, image: Image.Image) -> None:
    """Write a PNG file, at once or not at all.

    Raises
    ------
    OSError
    """
    write_at_once(file, lambda draft: image.save(draft, "png"))
