"""The files of a batch: which there are, what became of each, and what a person accepted.

Read from ``files.json`` of the batch, and from the manifest and the reviews of the output folder,
each of them again only if it has changed. Nothing here loads torch.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from clsclip.batch.files import label_file
from clsclip.batch.inputs import InputImage
from clsclip.batch.job import FILES_FILE
from clsclip.batch.large_files import large_target
from clsclip.batch.manifest import Manifest, ManifestRow
from clsclip.batch.reviews import Review, Reviews
from clsclip.config import Settings
from clsclip.errors import ClsClipError, FileError
from clsclip.wire_batch import BatchFile, FileOrder, FileStatus

REMEMBERED: Final = 8
"""Batches whose files are held in memory."""

NOTHING_FOUND: Final = 0.5
"""Where a file in which no word was found stands among scores: it may be right, or overlooked."""


@dataclass(frozen=True)
class FileCounts:
    """How many files there are of each kind."""

    files: int = 0
    done: int = 0
    failed: int = 0
    accepted: int = 0


@dataclass(frozen=True)
class BatchContent:
    """What is known of the files of a batch.

    Attributes
    ----------
    output : Path
    images : sequence of InputImage
        None yet where the process has not listed them.
    rows : dict of Path to ManifestRow
        As in the manifest, which may tell of others, too.
    reviews : dict of str to Review
        What is accepted, by key.
    fault : str
        Why something of this is not known.
    """

    output: Path
    images: Sequence[InputImage] = ()
    rows: dict[Path, ManifestRow] = field(default_factory=dict)
    reviews: dict[str, Review] = field(default_factory=dict)
    fault: str = ""

    @cached_property
    def counts(self) -> FileCounts:
        """How many files there are of each kind."""
        states = [self._status(image) for image in self.images]
        accepted = sum(image.key in self.reviews for image in self.images) if self.reviews else 0
        return FileCounts(len(states), states.count("done"), states.count("failed"), accepted)

    def last_seconds(self, count: int) -> list[float]:
        """Time that each of the files took which were finished last."""
        return [row.seconds for row in islice(reversed(self.rows.values()), count)]

    def labelled(self) -> dict[str, Path]:
        """Images by key that have a label file; very large ones have a zarr instead."""
        return {
            image.key: image.file
            for image in self.images
            if self._status(image) == "done" and label_file(self.output, image.key).exists()
        }

    def file(self, number: int) -> BatchFile:
        """How one file stands."""
        image = self.images[number]
        row, review = self.rows.get(image.file), self.reviews.get(image.key)
        told: dict[str, Any] = {}
        if row is not None:
            told = {"seconds": row.seconds, "error": row.error, "objects": row.objects,
                    "score": row.score}  # fmt: skip
            if row.status == "done":
                told["labels"] = str(self._labels(image))
        if review is not None:
            told |= {"accepted": True, "corrected": review.corrected}
        return BatchFile(number=number, file=str(image.file), status=self._status(image), **told)

    def numbers(self, status: FileStatus | None, order: FileOrder) -> Sequence[int]:
        """Files of a status, or all, in an order; of labelled ones by score the worst first."""
        if order == "score":
            return self._by_score(status)
        return self._by_name(status)

    def _by_name(self, status: FileStatus | None) -> Sequence[int]:
        if status is None:
            return range(len(self.images))
        return [k for k, image in enumerate(self.images) if self._status(image) == status]

    def _by_score(self, status: FileStatus | None) -> Sequence[int]:
        def place(number: int) -> tuple[int, float]:
            row = self.rows.get(self.images[number].file)
            if row is None:
                return 2, 0.0
            if row.status == "failed":
                return 1, 0.0
            return 0, NOTHING_FOUND if row.score is None else row.score

        return sorted(self._by_name(status), key=place)

    def _status(self, image: InputImage) -> FileStatus:
        row = self.rows.get(image.file)
        return "waiting" if row is None else row.status

    def _labels(self, image: InputImage) -> Path:
        target = label_file(self.output, image.key)
        large = large_target(target)
        return large if not target.exists() and large.exists() else target


_Stamp = tuple[int, int, int] | None
"""What changes when a file does; None: there is none."""


class BatchContents:
    """Reads the files of batches, and remembers what it has read. For use in any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read: OrderedDict[Path, tuple[_Stamp, Any]] = OrderedDict()
        self._contents: OrderedDict[Path, tuple[tuple[_Stamp, ...], BatchContent]] = OrderedDict()
        self._counts: dict[Path, tuple[tuple[_Stamp, ...], FileCounts, str]] = {}

    def counts(self, folder: Path, output: Path) -> tuple[FileCounts, str]:
        """How many files there are of each kind, and why that is not known.

        Parameters
        ----------
        folder, output : Path
            Of the batch, and of its labels.
        """
        stamps = _stamps(folder, output)
        with self._lock:
            known = self._counts.get(folder)
        if known is not None and known[0] == stamps:
            return known[1:]
        content = self.read(folder, output)
        return content.counts, content.fault

    def read(self, folder: Path, output: Path) -> BatchContent:
        """What is known of the files of a batch; what is damaged is left out, with its fault.

        Parameters
        ----------
        folder, output : Path
            Of the batch, and of its labels.
        """
        with self._lock:  # or several requests would read the same at the same time
            stamps = _stamps(folder, output)
            known = self._contents.get(folder)
            if known is not None and known[0] == stamps:
                self._contents.move_to_end(folder)
                return known[1]
            content = self._content(folder, output, stamps)
            self._contents[folder] = (stamps, content)
            self._contents.move_to_end(folder)
            self._counts[folder] = (stamps, content.counts, content.fault)
            while len(self._contents) > REMEMBERED:
                self._contents.popitem(last=False)
            return content

    def _content(self, folder: Path, output: Path, stamps: tuple[_Stamp, ...]) -> BatchContent:
        readers: tuple[tuple[Path, Callable[[], Any], Any], ...] = tuple(
            zip(
                _sources(folder, output),
                (lambda: _read_images(folder), Manifest(output).read, Reviews(output).accepted),
                ((), {}, {}),
                strict=True,
            )
        )
        parts, faults = [], []
        for (file, read, nothing), stamp in zip(readers, stamps, strict=True):
            try:
                parts.append(self._part(file, stamp, read))
            except ClsClipError as error:
                parts.append(nothing)
                faults.append(error.message)
        images, rows, reviews = parts
        return BatchContent(output, images, rows, reviews, " ".join(faults))

    def _part(self, file: Path, stamp: _Stamp, read: Callable[[], Any]) -> Any:
        """Content of one of the three files, read only if it has changed."""
        known = self._read.get(file)
        if known is None or known[0] != stamp:
            known = self._read[file] = (stamp, read())
        self._read.move_to_end(file)
        while len(self._read) > 3 * REMEMBERED:
            self._read.popitem(last=False)
        return known[1]


def _sources(folder: Path, output: Path) -> tuple[Path, Path, Path]:
    return folder / FILES_FILE, Manifest(output).file, Reviews(output).file


def _stamps(folder: Path, output: Path) -> tuple[_Stamp, ...]:
    return tuple(_stamp(file) for file in _sources(folder, output))


def _stamp(file: Path) -> _Stamp:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


class _Listed(Settings):
    """An entry of ``files.json``."""

    file: Path
    key: str


_LIST: Final = TypeAdapter(list[_Listed])


def _read_images(folder: Path) -> tuple[InputImage, ...]:
    try:
        listed = _LIST.validate_json((folder / FILES_FILE).read_bytes())
    except FileNotFoundError:
        return ()
    except (OSError, ValidationError) as error:
        raise FileError(f"'{folder / FILES_FILE}' cannot be read ({error}).") from error
    return tuple(InputImage(each.file, each.key) for each in listed)
