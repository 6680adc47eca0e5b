"""What a person accepted of an output folder, as it was or corrected.

Accepting is one step whatever happens: corrected labels, their table and every export are written
into the folder ``.review`` first; once ``review.json`` is there, too, the acceptance will happen,
if not at once then when the folder is next worked on: files are moved to their places, and a line
is added to ``.reviews.jsonl``. Before that, nothing has changed. Nothing here imports torch.
"""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from clsclip.batch.corrected_objects import classes_after, features_after, read_probabilities
from clsclip.batch.exports import Labelled, exporter, read_labelled_output
from clsclip.batch.files import features_file, label_file, write_features, write_labels
from clsclip.batch.manifest import Manifest
from clsclip.batch.unfinished import Journal, read_record, write_record
from clsclip.config import LabelFormat, Settings
from clsclip.errors import BusyError, ConflictError, FileError, InvalidImageError
from clsclip.model.files import flush

REVIEWS_FILE: Final = ".reviews.jsonl"
LOCK_FILE: Final = ".reviews.lock"
DRAFT_FOLDER: Final = ".review"
COMMIT_FILE: Final = "review.json"

STALE_FILE: Final = ".exports.stale"
"""There while exports about all images, like coco.json, lack a correction."""

LOCK_SECONDS: Final = 10.0
"""How long to wait for whoever works on the reviews of a folder."""


class Review(Settings):
    """A line of ``.reviews.jsonl``; the last one of a key counts."""

    key: str = Field(description="Of the image.")
    accepted: bool = Field(description="False: no longer.")
    corrected: bool = Field(description="Whether the labels were corrected.")
    time: float = Field(description="In seconds since 1970.")


class Reviews:
    """The reviews of an output folder.

    Parameters
    ----------
    output : Path
        Neither it nor the journal need exist.
    """

    def __init__(self, output: Path) -> None:
        self._output = output
        self._draft = output / DRAFT_FOLDER

    @property
    def file(self) -> Path:
        """The journal."""
        return self._output / REVIEWS_FILE

    def accepted(self) -> dict[str, Review]:
        """What is accepted, by key. Safe while another process accepts.

        Raises
        ------
        FileError
            If the journal cannot be read.
        """
        try:
            complete, _, _ = self.file.read_text(encoding="utf-8").rpartition("\n")
            reviews = [Review(**json.loads(line)) for line in complete.splitlines()]
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, ValidationError) as error:
            raise FileError(
                f"'{self.file}', which says what was accepted, is damaged ({error}). Remove the "
                "line, or the file if nothing in the folder is to be kept."
            ) from error
        last = {review.key: review for review in reviews}
        return {key: review for key, review in last.items() if review.accepted}

    @contextmanager
    def held(self) -> Iterator[dict[str, Review]]:
        """What is accepted, while nobody accepts or withdraws anything.

        Whoever is about to label the folder decides meanwhile which rows of the manifest stay: what
        has no row there can be accepted only when it is labelled again.

        Yields
        ------
        dict of str to Review
            Also what a process that was killed had begun to accept.

        Raises
        ------
        BusyError
            If another process takes long.
        FileError
            If the folder cannot be written.
        """
        with self._locked():
            self._complete()
            yield self.accepted()

    def accept(
        self,
        image: Path,
        key: str,
        labels: NDArray[Any] | None = None,
        *,
        words: Sequence[str],
        formats: Sequence[LabelFormat],
    ) -> Review:
        """Accept the labels of an image; once this returns, it survives a crash.

        Parameters
        ----------
        image : Path
        key : str
        labels : ndarray of unsigned int, shape of the labels in the label file, optional
            Corrected ones: class ids, or ids of single objects if there is a table of these. None:
            the labels are right as they are.
        words : sequence of str
            Word ``k`` has class id ``k + 1``.
        formats : sequence of str
            Those in which the folder has labels; all of them get corrected ones.

        Raises
        ------
        ConflictError
            If it has not been labelled, or is being labelled again.
        InvalidImageError
            If the labels are of another shape, hold ids that have no class, or are too many for a
            format.
        BusyError
        FileError
            If the image is so large that its labels are a zarr, which cannot be replaced, or a
            file cannot be read or written.
        """
        with self._locked():
            self._complete()
            row = Manifest(self._output).read().get(image)
            if row is None or row.status != "done":
                raise ConflictError(
                    f"'{image}' is not labelled in '{self._output}' now. Wait until it is, or look "
                    "why it failed."
                )
            before = self.accepted().get(key)
            as_before = before is not None and before.corrected
            review = Review(
                key=key, accepted=True, corrected=labels is not None or as_before, time=time.time()
            )
            if labels is None:
                self._add(review)
                return review
            self._write_draft(image, review, labels, tuple(words), formats)
            self._complete()
            return review

    def withdraw(self, key: str) -> None:
        """No longer accept an image; its labels stay as they are until it is labelled again.

        Raises
        ------
        BusyError, FileError
        """
        with self._locked():
            self._complete()
            before = self.accepted().get(key)
            if before is not None:
                update = {"accepted": False, "time": time.time()}
                self._add(before.model_copy(update=update))

    def labelled(self, image: Path, key: str, words: Sequence[str]) -> Labelled:
        """Labels of an image as they lie in the folder, never half corrected.

        Raises
        ------
        InvalidImageError, BusyError, FileError
        """
        with self._locked():
            self._complete()
            return read_labelled_output(self._output, image, key, words)

    @property
    def exports_stale(self) -> bool:
        """Whether exports about all images lack a correction."""
        return (self._output / STALE_FILE).exists()

    def renew_exports(
        self, images: Mapping[str, Path], *, words: Sequence[str], formats: Sequence[LabelFormat]
    ) -> None:
        """Write the exports that are about all images again, if they lack a correction.

        Others may accept meanwhile; then they lack that one.

        Parameters
        ----------
        images : mapping of str to Path
            The labelled images by key.
        words, formats : sequence of str
            See :meth:`accept`.

        Raises
        ------
        InvalidImageError, BusyError, FileError
        """
        stale = self._output / STALE_FILE
        if not stale.exists():
            return
        try:
            mark = stale.read_bytes()
            for name in _others(formats):
                whole = (self.labelled(image, key, words) for key, image in images.items())
                exporter(name, self._output, tuple(words)).finish(whole)
            with self._locked():
                if stale.read_bytes() == mark:
                    stale.unlink()
        except OSError as error:
            raise _unwritable(self._output, error) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = FileLock(self._output / LOCK_FILE)
        try:
            self._output.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=LOCK_SECONDS)
        except Timeout as error:
            raise BusyError(
                f"Another process reviews or begins to label '{self._output}'. Try again in a "
                "moment."
            ) from error
        except OSError as error:
            raise _unwritable(self._output, error) from error
        try:
            yield
        finally:
            lock.release()

    def _add(self, review: Review) -> None:
        try:
            Journal(self.file).add(review.model_dump())
        except OSError as error:
            raise _unwritable(self.file, error) from error

    def _write_draft(
        self, image: Path, review: Review, labels: NDArray[Any], words: tuple[str, ...],
        formats: Sequence[LabelFormat],
    ) -> None:  # fmt: skip
        """Write everything that changes beside the files that it will replace."""
        old = read_labelled_output(self._output, image, review.key, words)
        labels = _narrow(labels)
        if labels.shape != old.labels.shape:
            raise InvalidImageError(
                f"The corrected labels of '{image}' have the shape {labels.shape}; its labels have "
                f"{old.labels.shape}."
            )
        if old.classes is not None and labels.max() > max(labels.size, 2**16):
            raise InvalidImageError(
                f"The corrected labels of '{image}' hold the id {labels.max()}; ids of objects go "
                f"up to {max(labels.size, 2**16)} there. Number new objects on from the others."
            )
        self._discard_draft()
        try:
            files = self._files
            target = label_file(files, review.key)
            target.parent.mkdir(parents=True)
            if old.classes is not None:
                table = features_file(label_file(self._output, review.key))
                classes = classes_after(labels, old.labels, old.classes, len(words))
                write_features(
                    features_file(target),
                    features_after(labels, old.labels, read_probabilities(table), classes, words),
                )
            write_labels(target, labels, old.pixel_size)
            new = read_labelled_output(files, image, review.key, words)
            for name in _others(formats):
                exporter(name, files, words).write(new)
            if _others(formats):
                (files / STALE_FILE).write_text(uuid.uuid4().hex)
            for file in _all_files(files):
                flush(file)
            write_record(self._commit, review.model_dump())
            flush(self._commit)
        except OSError as error:
            raise _unwritable(self._draft, error) from error

    def _complete(self) -> None:
        """Do what was begun: move files to their places, and note what was accepted.

        Every step can be done twice, so that a process may be killed at any of them.
        """
        try:
            entry = read_record(self._commit)
            if entry is not None:
                for file in _all_files(self._files):
                    place = self._output / file.relative_to(self._files)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    file.replace(place)
                self._add(Review(**entry))
                self._commit.unlink()
            self._discard_draft()
        except OSError as error:
            raise _unwritable(self._output, error) from error

    @property
    def _commit(self) -> Path:
        return self._draft / COMMIT_FILE

    @property
    def _files(self) -> Path:
        return self._draft / "files"

    def _discard_draft(self) -> None:
        if self._draft.exists():
            shutil.rmtree(self._draft)


def _others(formats: Sequence[LabelFormat]) -> list[LabelFormat]:
    """Formats beside the label files themselves."""
    return [name for name in formats if name != "tiff"]


def _narrow(labels: NDArray[Any]) -> NDArray[Any]:
    small = labels.max() <= np.iinfo(np.uint16).max
    return labels.astype(np.uint16 if small else np.uint32)


def _all_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _unwritable(path: Path, error: OSError) -> FileError:
    return FileError(f"'{path}' cannot be written ({error}). Free space there, and try again.")
