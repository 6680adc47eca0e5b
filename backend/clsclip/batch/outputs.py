"""The output folder of a batch: what is in it already, what is gone on with, what is left alone.

The settings of a run lie in it, in ``.unfinished.json`` until it ends and in ``.finished.json``
from then on. The same command then goes on: it keeps what is labelled, and tries again what failed.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from clsclip.batch.exports import exporter
from clsclip.batch.files import features_file, label_file, write_at_once
from clsclip.batch.inputs import InputImage
from clsclip.batch.large_files import discard_unfinished, large_target, part_folder
from clsclip.batch.manifest import Manifest, ManifestRow
from clsclip.batch.reviews import Reviews
from clsclip.batch.unfinished import check_same, read_record, write_record
from clsclip.config import LabelFormat
from clsclip.errors import BusyError, FileError

CLASSES_FILE: Final = "classes.csv"
UNFINISHED_FILE: Final = ".unfinished.json"
FINISHED_FILE: Final = ".finished.json"
LOCK_FILE: Final = ".labelling.lock"

_BESIDE: Final = ("formats", "job")
"""What a record tells beside the settings that must stay the same."""


def check_outputs(
    images: Sequence[InputImage], output: Path, *, overwrite: bool,
    formats: Sequence[LabelFormat] = (), words: Sequence[str] = (),
) -> None:  # fmt: skip
    """Refuse to label images into a folder where that would destroy something.

    Raises
    ------
    FileError
        If an image could be overwritten by its labels, or ``overwrite`` is False and there are
        labels or tables in ``output`` already that are not of such a run.
    """
    for image in images:
        target = label_file(output, image.key)
        if any(_is_same(each, image.file) for each in (target, large_target(target))):
            raise FileError(
                f"The labels would overwrite the image '{image.file}'. Choose another output "
                "folder."
            )
    if overwrite or any((output / name).exists() for name in (UNFINISHED_FILE, FINISHED_FILE)):
        return
    written = [Manifest(output).file]
    exporters = [exporter(name, output, words) for name in formats if name != "tiff"]
    for image in images:
        target = label_file(output, image.key)
        large = large_target(target)
        written += [target, features_file(target), large, part_folder(large)]
        written += [file for each in exporters for file in each.files(image.key, 1)]
    existing = [path for path in written if path.exists()]
    if existing:
        raise FileError(
            f"'{existing[0]}' is there already. Choose another output folder, or 'Overwrite' "
            f"(--overwrite on the command line) to replace it ({len(existing)} files)."
        )


@dataclass(frozen=True)
class Begun:
    """How a run begins.

    Attributes
    ----------
    resumed : bool
        Whether it goes on with an earlier one.
    todo : tuple of InputImage
        What is to be labelled.
    kept : dict of str to ManifestRow
        Rows of images that are labelled already, by key.
    accepted : frozenset of str
        Keys among these, which a person has accepted.
    added : tuple of LabelFormat
        Formats that those lack.
    """

    resumed: bool
    todo: tuple[InputImage, ...]
    kept: dict[str, ManifestRow]
    accepted: frozenset[str]
    added: tuple[LabelFormat, ...]


def begin(
    images: Sequence[InputImage], output: Path, words: Sequence[str],
    settings: Mapping[str, Any], *, formats: Sequence[LabelFormat], overwrite: bool, job: str = "",
) -> Begun:  # fmt: skip
    """Record a run in its output folder: classes, settings, and the rows that stay.

    Parameters
    ----------
    images : sequence of InputImage
    output : Path
        Created where it does not exist.
    words : sequence of str
    settings : mapping of str to JSON values
        What the labels depend on.
    formats : sequence of LabelFormat
    overwrite : bool
        Begin anew. Accepted images are left alone even then.
    job : str
        Names a job which goes on where it began anew itself.

    Raises
    ------
    FileError
        If the folder holds labels of other settings.
    OSError
    """
    # nobody accepts meanwhile, and what has no row afterwards nobody accepts until it is labelled
    with Reviews(output).held() as reviews:
        accepted = frozenset(reviews) & {image.key for image in images}
        return _begin(
            images, output, words, settings, formats=formats, overwrite=overwrite, job=job,
            accepted=accepted,
        )  # fmt: skip


def _begin(
    images: Sequence[InputImage], output: Path, words: Sequence[str],
    settings: Mapping[str, Any], *, formats: Sequence[LabelFormat], overwrite: bool, job: str,
    accepted: frozenset[str],
) -> Begun:  # fmt: skip
    unfinished, finished = output / UNFINISHED_FILE, output / FINISHED_FILE
    earlier = None
    if job or accepted or not overwrite:
        earlier = read_record(unfinished) or read_record(finished)
    anew = overwrite and (earlier is None or not job or earlier.get("job") != job)
    begun = None if anew else earlier
    if anew and accepted:
        _check_words(output, words, len(accepted), earlier)
    if begun is not None:
        same = {name: value for name, value in begun.items() if name not in _BESIDE}
        check_same(output, same, settings)
    # what is kept has these already; what is labelled anew gets all
    shared = [each for each in (earlier or {}).get("formats", formats) if each in formats]
    rows = Manifest(output).read() if accepted or begun is not None else {}
    added = [each for each in formats if each not in ("tiff", *shared)]
    kept = {}
    for image in images:
        row = rows.get(image.file)
        target = label_file(output, image.key)
        if image.key in accepted:
            kept[image.key] = row or ManifestRow(image.file, "done", 0.0)
        elif begun is None:
            discard_unfinished(large_target(target))
        elif (
            row is not None
            and row.status == "done"
            and (
                # nothing can be exported of a zarr, which then is a failure with its reason
                target.exists() or (large_target(target).exists() and not added)
            )
        ):
            kept[image.key] = row
    # the rows first: those of a folder that is labelled anew must not count for the new settings
    Manifest(output).write(kept.values())
    write_record(unfinished, {**settings, "formats": shared, "job": job})
    finished.unlink(missing_ok=True)
    _write_classes(output / CLASSES_FILE, words)
    return Begun(
        begun is not None, tuple(image for image in images if image.key not in kept), kept,
        accepted, tuple(added),
    )  # fmt: skip


def finish(images: Sequence[InputImage], output: Path, formats: Sequence[LabelFormat]) -> None:
    """Record that a run has ended: its settings, and the rows in the order of the images.

    Raises
    ------
    OSError
    """
    rows = Manifest(output).read()
    ordered = [rows[image.file] for image in images if image.file in rows]
    if ordered != list(rows.values()):
        Manifest(output).write(ordered)
    record = read_record(output / UNFINISHED_FILE) or {}
    write_record(output / UNFINISHED_FILE, {**record, "formats": list(formats)})
    (output / UNFINISHED_FILE).replace(output / FINISHED_FILE)


@contextmanager
def labelling(output: Path) -> Iterator[None]:
    """Label into a folder alone. A killed process leaves no lock behind.

    Raises
    ------
    BusyError
        If another process does.
    OSError
    """
    output.mkdir(parents=True, exist_ok=True)
    lock = FileLock(output / LOCK_FILE)
    try:
        lock.acquire(timeout=1.0)
    except Timeout as error:
        raise BusyError(
            f"Another process labels into '{output}' now. Wait for its end, or choose another "
            "output folder."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _is_same(target: Path, image: Path) -> bool:
    """Whether a file is there, and is the image."""
    try:
        return target.exists() and target.samefile(image)
    except OSError:  # a link that leads nowhere is an image that cannot be read
        return False


def _check_words(
    output: Path, words: Sequence[str], accepted: int, earlier: Mapping[str, Any] | None
) -> None:
    """Refuse to give the class ids of accepted labels another meaning."""
    known = None if earlier is None else earlier.get("words")
    if known is not None and list(known) != list(words):
        raise FileError(
            f"A person has accepted {accepted} images in '{output}' with the words "
            f"{', '.join(known)}; their labels stay, and so must these words and their order (now: "
            f"{', '.join(words)}). Choose another output folder, or take the acceptance back."
        )


def _write_classes(file: Path, words: Sequence[str]) -> None:
    def write(draft: Path) -> None:
        with draft.open("w", newline="", encoding="utf-8") as stream:
            table = csv.writer(stream)
            table.writerow(["id", "name"])
            table.writerows(enumerate(words, start=1))

    write_at_once(file, write)
