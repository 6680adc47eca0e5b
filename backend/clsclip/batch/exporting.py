"""Exports of images that are labelled already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from clsclip.batch.exports import Labelled, exporter, read_labelled_output
from clsclip.batch.files import label_file
from clsclip.batch.inputs import InputImage
from clsclip.batch.manifest import Manifest
from clsclip.batch.outputs import Begun
from clsclip.batch.reviews import Reviews
from clsclip.config import LabelFormat


def add_formats(
    images: Sequence[InputImage], begun: Begun, output: Path, words: Sequence[str]
) -> None:
    """Export images that are labelled already to the formats that they lack.

    Raises
    ------
    ClsClipError
        If labels cannot be read, or a format cannot hold them.
    OSError
    """
    exporters = [exporter(name, output, words) for name in begun.added]
    reviews = Reviews(output)
    for image in images:
        if exporters and image.key in begun.kept:
            with reviews.held():  # or a correction would be exported as it was before
                labelled = read_labelled_output(output, image.file, image.key, words)
                for each in exporters:
                    each.write(labelled)


def finish_exports(
    images: Sequence[InputImage], output: Path, formats: Sequence[LabelFormat], words: Sequence[str]
) -> None:
    """Write the files that are about all labelled images.

    Raises
    ------
    ClsClipError
        If labels cannot be read.
    OSError
    """
    rows, reviews = Manifest(output).read(), Reviews(output)
    done = [
        image
        for image in images
        if (row := rows.get(image.file)) is not None
        and row.status == "done"
        and label_file(output, image.key).exists()
    ]

    def labelled() -> Iterator[Labelled]:
        for image in done:
            yield reviews.labelled(image.file, image.key, words)

    for name in formats:
        if name != "tiff":
            exporter(name, output, words).finish(labelled())
