"""Batches as processes of their own: started, paused, ended, found again, and reviewed.

A batch outlives the backend that started it. All that is known of it is in its folder and in the
output folder, so that the next backend knows as much. Nothing here loads torch.
"""

from __future__ import annotations

import contextlib
import csv
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clsclip.batch.inputs import InputImage
from clsclip.batch.job import PAUSE_FILE, THUMBNAILS, list_images, note_copies
from clsclip.batch.manifest import Manifest
from clsclip.batch.outputs import CLASSES_FILE
from clsclip.batch.reviews import Reviews
from clsclip.config import BackendSettings
from clsclip.errors import (
    CheckpointError,
    ConflictError,
    FileError,
    NotFoundError,
)
from clsclip.model.files import read_json
from clsclip.model.run_state import CANCEL_FILE
from clsclip.service.batch_files import BatchContent, BatchContents
from clsclip.service.batch_record import (
    LOG_FILE,
    RECORD_FILE,
    SESSION_FILE,
    BatchRecord,
    BatchSession,
    batch_folders,
    batch_state,
    batches_folder,
    command_arguments,
    read_batch,
    refuse_second,
)
from clsclip.service.batch_request import (
    check_copies,
    check_output,
    checked,
    make_output,
    new_folder,
)
from clsclip.service.export_renewal import ExportRenewal
from clsclip.service.run_processes import (
    RunProcesses,
    ask_to_end,
    readable_records,
    write_record,
)
from clsclip.wire_batch import (
    Batch,
    BatchCheck,
    BatchFile,
    BatchFiles,
    BatchRequest,
    FileOrder,
    FileStatus,
    ImageCopy,
)

COMMAND: Final = (sys.executable, "-P", "-m", "clsclip.cli.label")
"""What runs a batch; arguments of ``napari-clsclip-label`` follow."""

_log = logging.getLogger(__name__)


class BatchProcesses:
    """The batches of this user. One runs at a time.

    Parameters
    ----------
    settings : BackendSettings
    command : sequence of str, optional
        What runs a batch, before the arguments of ``napari-clsclip-label``; by default
        :data:`COMMAND`.
    """

    def __init__(self, settings: BackendSettings, command: Sequence[str] | None = None) -> None:
        self._settings, self._command = settings, tuple(command or COMMAND)
        self._processes = RunProcesses("batch", LOG_FILE, self._renew_exports)
        self._contents = BatchContents()
        self._renewal = ExportRenewal()

    def look(self) -> None:
        """Take note of what has happened while no backend was there."""
        for folder in batch_folders():
            if batch_state(folder).state == "running":
                _log.info("The batch '%s' runs", folder.name)
        self._renew_exports()

    def start(self, request: BatchRequest) -> Batch:
        """Start a batch.

        Raises
        ------
        BusyError
            If another one runs.
        InvalidRequestError
            If there is nothing to label, or the labels cannot be where they are asked for.
        InvalidWordError, UnknownModelError, FileError
        """
        asked, images = checked(request)
        check_output(asked, images)
        check_copies(asked, whole=True)
        with self._starting():
            make_output(asked)
            before = _kept(asked, images)
            started = datetime.now(UTC)
            try:
                folder = new_folder(batches_folder(), Path(asked.output), started)
            except OSError as error:
                raise FileError(f"'{batches_folder()}' cannot be written ({error}).") from error
            if asked.copies:  # else the process lists them
                list_images(folder, images)
                asked = asked.model_copy(update={"copies": ()})
            record = BatchRecord(request=asked, started=started, device=self._settings.device)
            write_record(folder / RECORD_FILE, record)
            self._run(folder, record, before, 0.0)
        return self._read(folder, record)

    def check(self, request: BatchRequest) -> BatchCheck:
        """Refuse what :meth:`start` would, before somebody reads files for it."""
        asked, images = checked(request)
        check_output(asked, images)
        check_copies(asked, whole=False)
        refuse_second()
        return BatchCheck(files=len(images))

    def pause(self, name: str) -> Batch:
        """Ask a batch to wait after the present file.

        Raises
        ------
        NotFoundError
        ConflictError
            If it does not run.
        FileError
        """
        folder, record = self._find(name)
        state = self._read(folder, record).state
        if state not in ("running", "paused"):
            raise ConflictError(f"The batch '{name}' does not run, so it cannot be paused.")
        if state == "running":
            with _written(folder / PAUSE_FILE) as file:
                file.touch()
        return self._read(folder, record)

    def resume(self, name: str, copies: Sequence[ImageCopy] = ()) -> Batch:
        """Go on with a batch, also with its files that failed. One that runs is left alone.

        Parameters
        ----------
        name : str
        copies : sequence of ImageCopy
            Files of it that napari has read anew.

        Raises
        ------
        NotFoundError
        ConflictError
            If all of its files are labelled.
        BusyError
            If another one runs.
        FileError
        """
        folder, record = self._find(name)
        batch = self._read(folder, record)
        if batch.state not in ("running", "paused"):
            if batch.state == "done" and batch.done == batch.files:
                raise ConflictError(
                    f"The batch '{name}' is done: all of its {batch.files} files are labelled."
                )
            check_copies(record.request.model_copy(update={"copies": tuple(copies)}), whole=True)
            with self._starting():
                note_copies(folder, copies)
                self._unmark(folder, CANCEL_FILE, PAUSE_FILE)
                self._run(folder, record, batch.done, batch.seconds)
        elif (folder / PAUSE_FILE).exists():
            self._unmark(folder, PAUSE_FILE)
        return self._read(folder, record)

    def cancel(self, name: str) -> Batch:
        """Ask a batch to end after the present file; what is done stays.

        Raises
        ------
        NotFoundError, FileError
        """
        folder, record = self._find(name)
        ask_to_end(folder, batch_state(folder))
        self._unmark(folder, PAUSE_FILE)  # after it was told to end, or it would go on
        return self._read(folder, record)

    def get(self, name: str) -> Batch:
        """How one batch stands.

        Raises
        ------
        NotFoundError
        """
        return self._read(*self._find(name))

    def list(self) -> tuple[Batch, ...]:
        """All batches, the newest first."""
        records = readable_records(batch_folders(), RECORD_FILE, BatchRecord)
        found = [self._read(folder, record) for folder, record in records]
        return tuple(sorted(found, key=lambda batch: batch.started, reverse=True))

    def files(
        self, name: str, *, start: int, count: int, status: FileStatus | None, order: FileOrder
    ) -> BatchFiles:
        """How some of the files of a batch stand.

        Raises
        ------
        NotFoundError
        """
        content = self._content(*self._find(name))
        numbers = content.numbers(status, order)
        shown = tuple(content.file(number) for number in numbers[start : start + count])
        return BatchFiles(total=len(numbers), files=shown)

    def thumbnail(self, name: str, number: int) -> Path:
        """The picture of a file of a batch.

        Raises
        ------
        NotFoundError
            If there is no such file, or no picture of it yet.
        """
        folder, record = self._find(name)
        _image(self._content(folder, record), name, number)
        file = folder / THUMBNAILS / f"{number}.png"
        if not file.is_file():
            raise NotFoundError(f"There is no picture of file {number} of the batch '{name}' yet.")
        return file

    def accept(self, name: str, number: int, labels: NDArray[np.uint32] | None) -> BatchFile:
        """Accept the labels of a file as they are, or corrected ones.

        Raises
        ------
        NotFoundError
        ConflictError
            If it is not labelled, or was labelled with other words since.
        InvalidImageError, BusyError, FileError
            See :meth:`clsclip.batch.reviews.Reviews.accept`.
        """
        folder, record = self._find(name)
        image = _image(self._content(folder, record), name, number)
        asked = record.request
        output = Path(asked.output)
        _check_words(output, asked.words)
        Reviews(output).accept(
            image.file, image.key, labels, words=asked.words, formats=asked.formats
        )
        self._renew(folder, record)
        return self._content(folder, record).file(number)

    def withdraw(self, name: str, number: int) -> BatchFile:
        """No longer accept a file.

        Raises
        ------
        NotFoundError, BusyError, FileError
        """
        folder, record = self._find(name)
        image = _image(self._content(folder, record), name, number)
        Reviews(Path(record.request.output)).withdraw(image.key)
        return self._content(folder, record).file(number)

    def close(self) -> None:
        """Stop what goes on in this process; what is left of it, the next backend does."""
        self._renewal.close()

    def _read(self, folder: Path, record: BatchRecord) -> Batch:
        try:
            session = read_json(folder / SESSION_FILE, BatchSession)
        except CheckpointError:  # how long it takes is not known then
            session = None
        return read_batch(folder, record, session, self._contents)

    def _content(self, folder: Path, record: BatchRecord) -> BatchContent:
        return self._contents.read(folder, Path(record.request.output))

    def _find(self, name: str) -> tuple[Path, BatchRecord]:
        folder = batches_folder() / name
        record = read_json(folder / RECORD_FILE, BatchRecord) if folder in batch_folders() else None
        if record is None:
            raise NotFoundError(
                f"There is no batch '{name}' in '{batches_folder()}'. List them to see what there "
                "is."
            )
        return folder, record

    @contextlib.contextmanager
    def _starting(self) -> Iterator[None]:
        """No other backend starts a batch meanwhile, and none runs."""
        with self._processes.starting(batches_folder()):
            refuse_second()
            yield

    def _run(self, folder: Path, record: BatchRecord, before: int, seconds: float) -> None:
        """Start the process; ``before`` files were labelled, and ``seconds`` worked, before."""
        session = BatchSession(begun=time.time(), before=before)
        write_record(folder / SESSION_FILE, session)
        command = [*self._command, *command_arguments(folder, record)]
        self._processes.start(folder, command, {}, seconds)

    def _unmark(self, folder: Path, *names: str) -> None:
        for name in names:
            with _written(folder / name) as file:
                file.unlink(missing_ok=True)

    def _renew_exports(self) -> None:
        for folder, record in readable_records(batch_folders(), RECORD_FILE, BatchRecord):
            self._renew(folder, record)

    def _renew(self, folder: Path, record: BatchRecord) -> None:
        """Bring exports about all images up to date; a batch that runs will do so itself."""
        asked = record.request
        reviews = Reviews(Path(asked.output))
        if reviews.exports_stale and batch_state(folder).state != "running":
            self._renewal.ask(
                reviews,
                lambda: self._content(folder, record).labelled(),
                asked.words,
                asked.formats,
            )


def _image(content: BatchContent, name: str, number: int) -> InputImage:
    if number >= len(content.images):
        raise NotFoundError(
            f"The batch '{name}' has no file {number}; it has {len(content.images)}, from 0 on."
        )
    return content.images[number]


def _check_words(output: Path, words: tuple[str, ...]) -> None:
    """Refuse where a later batch has given other meanings to the class ids of a folder.

    Raises
    ------
    ConflictError
    FileError
        If the table of classes cannot be read.
    """
    try:
        with (output / CLASSES_FILE).open(newline="", encoding="utf-8") as stream:
            found = tuple(row["name"] for row in csv.DictReader(stream))
    except FileNotFoundError:  # nothing is labelled
        return
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise FileError(f"'{output / CLASSES_FILE}' cannot be read ({error!r}).") from error
    if found != words:
        raise ConflictError(
            f"'{output}' was labelled with other words since: {', '.join(found)}. Review it in the "
            "batch that did so."
        )


def _kept(request: BatchRequest, images: Sequence[InputImage]) -> int:
    """Files whose labels a new batch leaves alone."""
    output = Path(request.output)
    accepted, rows = Reviews(output).accepted(), Manifest(output).read()

    def is_kept(image: InputImage) -> bool:
        row = rows.get(image.file)
        labelled = row is not None and row.status == "done" and not request.overwrite
        return labelled or image.key in accepted

    return sum(is_kept(image) for image in images)


@contextlib.contextmanager
def _written(file: Path) -> Iterator[Path]:
    try:
        yield file
    except OSError as error:
        raise FileError(f"'{file}' cannot be written ({error}).") from error
