"""Exports of images that are labelled already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from clsclip.batch.exports import Exporter, Labelled, exporter, read_labelled_output
from clsclip.batch.files import label_file
from clsclip.batch.inputs import InputImage
from clsclip.batch.manifest import Manifest, ManifestRow
from clsclip.batch.outputs import Begun
from clsclip.batch.reviews import Reviews
from clsclip.config import LabelFormat
from clsclip.errors import ClsClipError


def add_formats(
    images: Sequence[InputImage], begun: Begun, output: Path, formats: Sequence[LabelFormat],
    words: Sequence[str],
) -> dict[str, ManifestRow]:  # fmt: skip
    """Export images that are labelled already to the formats that they lack.

    An image that does not fit a format does not keep the others from theirs.

    Parameters
    ----------
    images : sequence of InputImage
    begun : Begun
        Accepted images that failed so in an earlier run are tried again.
    output : Path
    formats : sequence of LabelFormat
        All formats of the run.
    words : sequence of str

    Returns
    -------
    dict of str to ManifestRow
        By key, of the images that have another row now: their labels cannot be read, a format
        cannot hold them, or it holds them now. They are for the caller to record.

    Raises
    ------
    BusyError
        If somebody else reviews the folder.
    InvalidConfigError
        If a format cannot hold so many words.
    OSError
        If exports cannot be written.
    """
    exporters: dict[LabelFormat, Exporter] = {
        name: exporter(name, output, words) for name in formats if name != "tiff"
    }
    reviews = Reviews(output)
    changed = {}
    for image in images:
        row = begun.kept.get(image.key)
        if row is None:
            continue
        wanted = begun.added if row.status == "done" else formats
        lacking = [exporters[name] for name in wanted if name in exporters]
        if row.status == "done" and not lacking:
            continue
        with reviews.held():  # or a correction would be exported as it was before
            try:
                labelled = read_labelled_output(output, image.file, image.key, words)
                for each in lacking:
                    each.write(labelled)
            except ClsClipError as error:
                changed[image.key] = replace(row, status="failed", error=error.message)
            else:
                if row.status == "failed":
                    changed[image.key] = replace(row, status="done", error="")
    return changed


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
