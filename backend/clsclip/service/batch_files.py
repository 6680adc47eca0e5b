"""The files of a batch: which there are, what became of each, and what a person accepted.

Read from ``files.json`` of the batch, and from the manifest and the reviews of the output folder,
each of them again only if it has changed. Nothing here loads torch.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Final

from clsclip.batch.files import label_file
from clsclip.batch.followed_manifest import FollowedManifest
from clsclip.batch.inputs import InputImage
from clsclip.batch.job import FILES_FILE, listed_images
from clsclip.batch.large_files import large_target
from clsclip.batch.manifest import Manifest, ManifestRow
from clsclip.batch.reviews import Review, Reviews
from clsclip.errors import ClsClipError
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
    names : sequence of str
        Their paths; looking up ten thousand of these is ten times as fast as of ``Path``.
    rows : dict of str to ManifestRow
        By path, as in the manifest, which may tell of others, too.
    reviews : dict of str to Review
        What is accepted, by key.
    fault : str
        Why something of this is not known.
    """

    output: Path
    images: Sequence[InputImage] = ()
    names: Sequence[str] = ()
    rows: dict[str, ManifestRow] = field(default_factory=dict)
    reviews: dict[str, Review] = field(default_factory=dict)
    fault: str = ""

    @cached_property
    def counts(self) -> FileCounts:
        """How many files there are of each kind."""
        found = self._statuses
        accepted = sum(image.key in self.reviews for image in self.images) if self.reviews else 0
        return FileCounts(len(found), found.count("done"), found.count("failed"), accepted)

    @cached_property
    def _statuses(self) -> list[FileStatus]:
        rows = map(self.rows.get, self.names)
        return ["waiting" if row is None else row.status for row in rows]

    def last_seconds(self, count: int) -> list[float]:
        """Time that each of the files took which were finished last."""
        return [row.seconds for row in islice(reversed(self.rows.values()), count)]

    def labelled(self) -> dict[str, Path]:
        """Images by key that have a label file; very large ones have a zarr instead."""
        return {
            image.key: image.file
            for image, status in zip(self.images, self._statuses, strict=True)
            if status == "done" and label_file(self.output, image.key).exists()
        }

    def file(self, number: int) -> BatchFile:
        """How one file stands."""
        image, name = self.images[number], self.names[number]
        row, review = self.rows.get(name), self.reviews.get(image.key)
        told: dict[str, Any] = {}
        if row is not None:
            told = {"seconds": row.seconds, "error": row.error, "objects": row.objects,
                    "score": row.score}  # fmt: skip
            if row.status == "done":
                told["labels"] = str(self._labels(image))
        if image.copied_to is not None:
            told["copied_to"] = str(image.copied_to)
        if review is not None:
            told |= {"accepted": True, "corrected": review.corrected}
        return BatchFile(number=number, file=name, status=self._statuses[number], **told)

    def numbers(self, status: FileStatus | None, order: FileOrder) -> Sequence[int]:
        """Files of a status, or all, in an order; of labelled ones by score the worst first."""
        every = self._by_score if order == "score" else range(len(self.images))
        if status is None:
            return every
        return [number for number in every if self._statuses[number] == status]

    @cached_property
    def _by_score(self) -> list[int]:
        def place(number: int) -> tuple[int, float]:
            row = self.rows.get(self.names[number])
            if row is None:
                return 2, 0.0
            if row.status == "failed":
                return 1, 0.0
            return 0, NOTHING_FOUND if row.score is None else row.score

        return sorted(range(len(self.images)), key=place)

    def _labels(self, image: InputImage) -> Path:
        target = label_file(self.output, image.key)
        large = large_target(target)
        return large if not target.exists() and large.exists() else target


_Stamp = tuple[int, int, int] | None
"""What changes when a file does; None: there is none."""

_Stamps = tuple[_Stamp, _Stamp, _Stamp]
"""Of the list of files, the manifest and the reviews."""


class BatchContents:
    """Reads the files of batches, and remembers what it has read. For use in any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: OrderedDict[Path, _Held] = OrderedDict()
        self._counts: dict[Path, tuple[_Stamps, FileCounts, str]] = {}

    def counts(self, folder: Path, output: Path) -> tuple[FileCounts, str]:
        """How many files there are of each kind, and why that is not known.

        Parameters
        ----------
        folder, output : Path
            Of the batch, and of its labels.
        """
        with self._lock:
            known = self._counts.get(folder)
        if known is not None and known[0] == _stamps(folder, output):
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
            held = self._held.setdefault(folder, _Held(folder, output))
            self._held.move_to_end(folder)
            while len(self._held) > REMEMBERED:
                self._held.popitem(last=False)
            content = held.content()
            self._counts[folder] = (held.stamps, content.counts, content.fault)
            return content


class _Held:
    """What was read of one batch, and when it is to be read again."""

    def __init__(self, folder: Path, output: Path) -> None:
        self._folder, self._output = folder, output
        self._manifest, self._reviews = FollowedManifest(output), Reviews(output)
        self.stamps: _Stamps = (None, None, None)
        self._content = BatchContent(output)

    def content(self) -> BatchContent:
        """What is known now. One thread at a time."""
        stamps = _stamps(self._folder, self._output)
        if stamps == self.stamps and not self._content.fault:
            return self._content
        new: dict[str, Any] = {}
        faults = []
        readers: tuple[Callable[[], dict[str, Any]], ...] = (
            lambda: _read_images(self._folder),
            lambda: {"rows": self._manifest.rows()},
            lambda: {"reviews": self._reviews.accepted()},
        )
        for read, stamp, before in zip(readers, stamps, self.stamps, strict=True):
            if stamp != before or self._content.fault:
                try:
                    new |= read()
                except ClsClipError as error:
                    faults.append(error.message)
        self._content = replace(self._content, **new, fault=" ".join(faults))
        self.stamps = stamps
        return self._content


def _stamps(folder: Path, output: Path) -> _Stamps:
    return (
        _stamp(folder / FILES_FILE), _stamp(Manifest(output).file), _stamp(Reviews(output).file)
    )  # fmt: skip


def _stamp(file: Path) -> _Stamp:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _read_images(folder: Path) -> dict[str, Any]:
    """The images of a batch, and their names."""
    images = tuple(listed_images(folder) or ())
    return {"images": images, "names": tuple(str(image.file) for image in images)}
