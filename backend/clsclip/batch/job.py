"""A batch as a job that others follow: its state, files and small pictures, in its own folder.

As with trainings, what is on disk is all there is (:mod:`clsclip.model.run_state`): the process
that labels holds the lock of the folder and writes how far it is; others look, and leave a file
``pause`` or ``cancel`` there. Nothing here imports torch.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from clsclip.batch.inputs import InputImage
from clsclip.errors import BusyError, CancelledError, ClsClipError, FileError
from clsclip.model.files import read_json, write_atomically
from clsclip.model.run_state import (
    CANCEL_FILE,
    LOCK_FILE,
    OUTCOME_FILE,
    RunState,
    locked,
    write_state,
)
from clsclip.wire_batch import ImageCopy

FILES_FILE: Final = "files.json"
"""``[{"file": ..., "key": ...}, ...]``: the images of the job, in order; they stay the same.

Those that napari reads also have ``copied_to``, or ``fault`` (:class:`InputImage`).
"""

PAUSE_FILE: Final = "pause"
"""While this is there, no further image is begun."""

THUMBNAILS: Final = "thumbnails"
"""Folder of small pictures: ``K.png`` of the image with number K, from 0."""

_LOOK_SECONDS: Final = 0.2
_STATE_SECONDS: Final = 1.0
"""How often the state is written, at most."""


def listed_images(folder: Path) -> list[InputImage] | None:
    """The images of the job of a folder; None if they are not listed yet.

    Raises
    ------
    FileError
        If their list is damaged.
    """
    file = folder / FILES_FILE
    try:
        return [_listed(**each) for each in json.loads(file.read_bytes())]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FileError(f"'{file}' cannot be read ({error}).") from error
    except (ValueError, TypeError) as error:
        raise FileError(
            f"'{file}' is damaged ({error}). Begin a new batch into the same output folder."
        ) from error


def list_images(folder: Path, images: Sequence[InputImage]) -> None:
    """Write down the images of the job of a folder.

    Raises
    ------
    FileError
    """
    rows = []
    for image in images:
        row = {"file": str(image.file), "key": image.key}
        if image.copied_to is not None:
            row["copied_to"] = str(image.copied_to)
        if image.fault:
            row["fault"] = image.fault
        rows.append(row)
    try:
        write_atomically(folder / FILES_FILE, json.dumps(rows, indent=0).encode())
    except OSError as error:
        raise FileError(f"'{folder / FILES_FILE}' cannot be written ({error}).") from error


def note_copies(folder: Path, copies: Sequence[ImageCopy]) -> None:
    """Write down which images of the job of a folder napari has read anew.

    Raises
    ------
    FileError
    """
    images = listed_images(folder) if copies else None
    if images is not None:
        known = {Path(copy.file): copy for copy in copies}
        list_images(
            folder,
            [each.with_copy(known[each.file]) if each.file in known else each for each in images],
        )


def _listed(*, file: str, key: str, copied_to: str = "", fault: str = "") -> InputImage:
    """An entry of the list."""
    copy = Path(copied_to) if copied_to else None
    return InputImage(Path(file), str(key), copied_to=copy, fault=str(fault))


class JobRequests:
    """What others ask of a job.

    Parameters
    ----------
    folder : Path
        Of the job.
    """

    def __init__(self, folder: Path) -> None:
        self._pause, self._cancel = folder / PAUSE_FILE, folder / CANCEL_FILE

    def wait_or_raise(self, waiting: Callable[[bool], None] = lambda waits: None) -> None:
        """Return at once, or when a pause is over.

        Parameters
        ----------
        waiting : callable
            Called with True when a pause begins, and with False when it is over.

        Raises
        ------
        CancelledError
            If the job is to end.
        """
        paused = False
        while self._pause.exists() and not self._cancel.exists():
            if not paused:
                paused = True
                waiting(True)
            time.sleep(_LOOK_SECONDS)
        if paused:
            waiting(False)
        if self._cancel.exists():
            raise CancelledError("The batch was cancelled. The same command goes on.")


class Job:
    """The folder of a job, for the process that works on it.

    Parameters
    ----------
    folder : Path
        Made where it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._requests = JobRequests(folder)
        self._writing = threading.Lock()
        self._before = 0.0  # seconds worked on it until the clock was started
        self._since: float | None = None
        self._written = 0.0

    @contextmanager
    def working(self) -> Iterator[None]:
        """Work on the job alone, and write how that goes.

        Raises
        ------
        BusyError
            If another process works on it.
        FileError
            If the folder cannot be written.
        """
        try:
            lock = locked(self.folder)
            lock.__enter__()
        except BusyError as error:
            raise BusyError(
                f"Another process works on the job '{self.folder}' now ({LOCK_FILE}). Wait for its "
                "end, or cancel it."
            ) from error
        try:
            earlier = read_json(self.folder / OUTCOME_FILE, RunState)
            self._before = 0.0 if earlier is None else earlier.seconds
            self._since = time.monotonic()
            write_state(self.folder, "running", seconds=self._seconds)
            try:
                yield
            except CancelledError as error:
                write_state(self.folder, "cancelled", error.message, self._seconds)
                (self.folder / CANCEL_FILE).unlink(missing_ok=True)  # it has been heard
                raise
            except ClsClipError as error:
                write_state(self.folder, "failed", error.message, self._seconds)
                raise
            except Exception as error:
                write_state(self.folder, "failed", repr(error), self._seconds)
                raise
        finally:
            lock.__exit__(None, None, None)

    def done(self, failure: str = "") -> None:
        """Write that the job has ended by itself; with a failure, that it gave up."""
        write_state(self.folder, "failed" if failure else "done", failure, self._seconds)

    def images(self, find: Callable[[], Sequence[InputImage]]) -> list[InputImage]:
        """The images of the job: those that it began with, else those that are found now.

        Raises
        ------
        FileError
            If their list is damaged or cannot be written.
        ClsClipError
            As ``find`` does.
        """
        listed = listed_images(self.folder)
        images = list(find()) if listed is None else listed
        if listed is None:
            list_images(self.folder, images)
        pictures = self.folder / THUMBNAILS
        try:
            pictures.mkdir(exist_ok=True)
        except OSError as error:
            raise FileError(f"'{pictures}' cannot be written ({error}).") from error
        return [replace(each, thumbnail=pictures / f"{k}.png") for k, each in enumerate(images)]

    def checkpoint(self) -> None:
        """Wait as long as the job is paused.

        Raises
        ------
        CancelledError
            If it is to end.
        """
        self._requests.wait_or_raise(self._waiting)

    def tick(self) -> None:
        """Write how long the job has been worked on, if that is not known."""
        with self._writing:
            if time.monotonic() - self._written >= _STATE_SECONDS:
                self._write_running()

    def _waiting(self, waits: bool) -> None:
        with self._writing:
            if waits:
                self._before, self._since = self._seconds, None
            else:
                self._since = time.monotonic()
            self._write_running()

    def _write_running(self) -> None:
        self._written = time.monotonic()
        write_state(self.folder, "running", seconds=self._seconds)

    @property
    def _seconds(self) -> float:
        """Seconds worked on the job, over all its sessions, without pauses."""
        return self._before + (0.0 if self._since is None else time.monotonic() - self._since)
