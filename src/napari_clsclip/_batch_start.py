"""How a batch begins or goes on: files that only napari can read are read first."""

from __future__ import annotations

import os
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from qtpy.QtCore import QObject, Signal

from clsclip.errors import (
    BusyError,
    CancelledError,
    FileError,
    InvalidConfigError,
    InvalidImageError,
)
from clsclip.wire_batch import (
    COPIES_FOLDER,
    MOST_FILES,
    Batch,
    BatchPreview,
    BatchRequest,
    FileStatus,
    ImageCopy,
)
from napari_clsclip._backend_job import BackendJob
from napari_clsclip._client import Client
from napari_clsclip._connection import BackendConnection
from napari_clsclip._foreign_files import ForeignFile, foreign_files, foreign_reader
from napari_clsclip._image_copies import copy_of
from napari_clsclip._reading import Reading
from napari_clsclip._thread_job import Errand

PREVIEW_BYTES: Final = 256 * 2**20
"""A file larger than this is not read for a preview."""

_NAMED: Final = 3
_UNTRIED: Final = (
    "None of them is tried to tell the time: the backend was not started by this napari, and may "
    "not see what is read for a preview."
)


class _Prepared(NamedTuple):
    """What came of a preparation.

    ``ended`` says why it was ended by the user; then there are no copies.
    """

    copies: tuple[ImageCopy, ...] = ()
    note: str = ""
    ended: str = ""


class BatchStart(QObject):
    """Reads files, and then has a batch begun or gone on with. Nothing blocks the Qt thread.

    Parameters
    ----------
    connection : BackendConnection
    begin : callable
        Begins a batch.
    resume : callable
        Goes on with a batch of some name, with copies that were made anew.
    parent : QObject

    Attributes
    ----------
    changed : Signal
        It has begun or ended.
    told, refused : Signal(str)
        Something for the user.
    reading : Reading or None
        What is under way.
    """

    changed = Signal()
    told = Signal(str)
    refused = Signal(str)

    def __init__(
        self,
        connection: BackendConnection,
        begin: Callable[[BatchRequest], object],
        resume: Callable[[str, Sequence[ImageCopy]], object],
        parent: QObject,
    ) -> None:
        super().__init__(parent)
        self._supervisor = connection.supervisor
        self._begin, self._resume = begin, resume
        self._closing = threading.Event()
        self.destroyed.connect(self._closing.set)
        self._errand = Errand(self)
        self.reading: Reading | None = None

    def begin(self, request: BatchRequest) -> None:
        """Read what only napari can read, and begin a batch; returns at once."""
        reading = Reading(self._closing)

        def take(prepared: _Prepared) -> None:
            self._begin(request.model_copy(update={"copies": prepared.copies}))

        self._run(reading, partial(_read_new, request, reading), take)

    def resume(self, batch: Batch) -> None:
        """Read again what failed or has changed, and go on with a batch; returns at once."""
        reading = Reading(self._closing)

        def take(prepared: _Prepared) -> None:
            self._resume(batch.name, prepared.copies)

        self._run(reading, partial(_read_again, batch, reading), take)

    def cancel(self) -> None:
        """Read no further file, and begin nothing."""
        if self.reading is not None:
            self.reading.cancel()

    def _run(
        self,
        reading: Reading,
        work: Callable[[Client], _Prepared],
        then: Callable[[_Prepared], object],
    ) -> None:
        if self.reading is not None:
            return

        def prepare(client: Client) -> _Prepared:
            try:
                return work(client)
            except CancelledError as error:
                return _Prepared(ended=error.message)

        def take(prepared: _Prepared) -> None:
            self.reading = None
            if prepared.ended or prepared.note:
                self.told.emit(prepared.ended or prepared.note)
            if not prepared.ended:
                then(prepared)
            self.changed.emit()

        def refuse(message: str) -> None:
            self.reading = None
            self.refused.emit(message)
            self.changed.emit()

        self.reading = reading
        job = BackendJob(self._supervisor, self._closing, prepare, "clsclip-read-files")
        self._errand.run(job, take, refuse)
        self.changed.emit()


def preview(
    request: BatchRequest, closing: threading.Event, client: Client, *, local: bool
) -> BatchPreview:
    """What a batch would do; of what only napari can read, at most one file is read.

    Parameters
    ----------
    request : BatchRequest
    closing : threading.Event
        Set when nobody waits for it any more.
    client : Client
    local : bool
        Whether napari started the backend. Another one may run on another machine, which would not
        see the file that is read only to tell the time.

    Raises
    ------
    ClsClipError
    """
    found = foreign_files(request)
    if not found.files:
        told = client.batches.preview(request)
        return told.model_copy(update={"notes": (*told.notes, *_left_out(found.left_out))})
    folder = _folder(request)
    with tempfile.TemporaryDirectory(prefix="clsclip-preview-") as scratch:
        copies = [_known(file, folder) for file in found.files]
        tried = _to_try(found.files, copies)
        if tried is not None and local:
            with suppress(FileError):  # no room to try it: then its time is not told
                copies[tried] = Reading(closing).read([found.files[tried]], Path(scratch))[0]
        asked = request.model_copy(update={"copies": tuple(copies)})
        told = client.batches.preview(asked)
    notes = [_first_read(found.files), *_left_out(found.left_out)]
    if tried is not None and not local:
        notes.append(_UNTRIED)
    return told.model_copy(update={"notes": (*told.notes, *notes)})


def _read_new(request: BatchRequest, reading: Reading, client: Client) -> _Prepared:
    """Read the files of a new batch, once the backend has said that it could begin."""
    found = foreign_files(request)
    note = " ".join(_left_out(found.left_out))
    if not found.files:
        return _Prepared(note=note)
    folder = _made(_folder(request))
    unread = tuple(ImageCopy(file=str(file.file)) for file in found.files)
    client.batches.check(request.model_copy(update={"copies": unread}))
    return _Prepared(reading.read(found.files, folder), note)


def _read_again(batch: Batch, reading: Reading, client: Client) -> _Prepared:
    """Read the files that a batch has not labelled yet, as far as this machine sees them."""
    files = [
        ForeignFile(file, reader, batch.request.channel_numbers)
        for file in (*_files(client, batch, "failed"), *_files(client, batch, "waiting"))
        if os.path.lexists(file) and (reader := foreign_reader(file)) is not None
    ]
    if not files:
        return _Prepared()
    for other in client.batches.list():
        if other.state in ("running", "paused") and other.name != batch.name:
            raise BusyError(f"The batch '{other.name}' runs. Wait for its end, or cancel it.")
    return _Prepared(reading.read(files, _made(_folder(batch.request))))


def _files(client: Client, batch: Batch, status: FileStatus) -> Iterator[Path]:
    start = 0
    while True:
        page = client.batches.files(batch.name, start=start, count=MOST_FILES, status=status)
        yield from (Path(file.file) for file in page.files)
        start += MOST_FILES
        if start >= page.total:
            return


def _folder(request: BatchRequest) -> Path:
    try:
        return Path(request.output).expanduser().absolute() / COPIES_FOLDER
    except RuntimeError as error:  # no such user
        raise InvalidConfigError(f"'{request.output}' cannot be found ({error}).") from error


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(
            f"'{folder}', where napari puts copies of what only its plugins can read, cannot be "
            f"written on this machine ({error}). Choose another output folder."
        ) from error
    return folder


def _known(file: ForeignFile, folder: Path) -> ImageCopy:
    """The copy of a file, if there is one."""
    try:
        copy = copy_of(folder, file.file, file.reader, file.channels)
    except InvalidImageError as error:
        return ImageCopy(file=str(file.file), error=error.message)
    return ImageCopy(file=str(file.file), copied_to=str(copy) if copy.exists() else "")


def _to_try(files: Sequence[ForeignFile], copies: Sequence[ImageCopy]) -> int | None:
    """The file of median size, if none has a copy and it is read quickly."""
    if any(copy.copied_to for copy in copies):
        return None
    sizes = {place: size for place, file in enumerate(files) if (size := _size(file.file)) > 0}
    places = sorted(sizes, key=sizes.__getitem__)
    middle = places[len(places) // 2] if places else None
    return middle if middle is not None and sizes[middle] <= PREVIEW_BYTES else None


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _first_read(files: Sequence[ForeignFile]) -> str:
    """What is read first: ``12 files (.czi, .nd2) are read by napari first, ...``."""
    endings = Counter(file.file.suffix.lower() for file in files)
    named = ", ".join(ending for ending, _ in endings.most_common(_NAMED))
    more = ", …" if len(endings) > _NAMED else ""
    count = "1 file" if len(files) == 1 else f"{len(files):,} files"
    verb = "is" if len(files) == 1 else "are"
    return f"{count} ({named}{more}) {verb} read by napari first, into the output folder."


def _left_out(files: Sequence[Path]) -> Iterator[str]:
    if files:
        named = ", ".join(file.name for file in files[:_NAMED])
        more = ", …" if len(files) > _NAMED else ""
        yield f"Left out, for an image of the same name is labelled: {named}{more}."
