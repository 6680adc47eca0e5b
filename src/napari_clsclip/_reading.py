"""Files that napari reads for a batch, one after the other; a thread does it, and the window looks.

Nothing here imports Qt.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from clsclip.errors import BusyError, CancelledError, FileError, InvalidImageError
from clsclip.wire_batch import ImageCopy
from napari_clsclip._foreign_files import ForeignFile
from napari_clsclip._image_copies import (
    copies_there,
    copy_of,
    file_part,
    remove_drafts,
    write_copy,
)
from napari_clsclip._image_reading import read_image_layer

LOCK_FILE: Final = ".lock"
LOCK_SECONDS: Final = 1.0


@dataclass(frozen=True)
class ReadingProgress:
    """How far it is.

    Attributes
    ----------
    done, total : int
        Files.
    name : str
        Of the present one.
    plane, planes : int
        Of the present file; 0 of 0 until it is known.
    """

    done: int
    total: int
    name: str
    plane: int = 0
    planes: int = 0


class Reading:
    """Reads files and writes a copy of each, unless there is one of the file as it is now.

    Parameters
    ----------
    closing : threading.Event
        Set when nobody waits for it any more.

    Attributes
    ----------
    progress : ReadingProgress or None
        None: no file has been begun. Any thread may look.
    """

    def __init__(self, closing: threading.Event) -> None:
        self.progress: ReadingProgress | None = None
        self._closing = closing
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """End it before the next plane; copies that are finished stay."""
        self._cancelled.set()

    def read(self, files: Sequence[ForeignFile], folder: Path) -> tuple[ImageCopy, ...]:
        """What came of each file.

        Parameters
        ----------
        files : sequence of ForeignFile
        folder : Path
            For the copies.

        Raises
        ------
        CancelledError
        FileError
            If a copy cannot be written; the others could not be either.
        BusyError
            If another window reads files into the folder.
        """
        try:
            with FileLock(folder / LOCK_FILE, timeout=LOCK_SECONDS):
                return self._read(files, folder)
        except Timeout as error:
            raise BusyError(
                f"Another napari window reads files into '{folder}' now. Wait for its end, or "
                "choose another output folder."
            ) from error
        except OSError as error:
            raise FileError(f"'{folder}' cannot be written ({error}).") from error

    def _read(self, files: Sequence[ForeignFile], folder: Path) -> tuple[ImageCopy, ...]:
        remove_drafts(folder)
        copies, there = [], copies_there(folder)
        for number, file in enumerate(files):
            self.progress = ReadingProgress(number, len(files), file.file.name)
            self._check()
            copy = self._copy(file, folder)
            copies.append(copy)
            if copy.copied_to:
                _discard_others(there, Path(copy.copied_to))
        return tuple(copies)

    def _copy(self, file: ForeignFile, folder: Path) -> ImageCopy:
        try:
            target = copy_of(folder, file.file, file.reader, file.channels)
            if not target.exists():
                layer = read_image_layer(file.file, file.reader, file.channels)
                write_copy(layer, file.file, target, self._tell)
        except InvalidImageError as error:
            return ImageCopy(file=str(file.file), error=error.message)
        except MemoryError as error:
            reason = f"'{file.file}' does not fit into memory ({error})."
            return ImageCopy(file=str(file.file), error=reason)
        return ImageCopy(file=str(file.file), copied_to=str(target))

    def _tell(self, plane: int, planes: int) -> None:
        self._check()
        now = self.progress
        if now is not None:
            self.progress = ReadingProgress(now.done, now.total, now.name, plane, planes)

    def _check(self) -> None:
        if self._cancelled.is_set() or self._closing.is_set():
            raise CancelledError("Cancelled. What was read is kept; press the button to go on.")


def _discard_others(there: dict[str, list[Path]], copy: Path) -> None:
    """Remove copies of the same file as it was before."""
    for old in there.get(file_part(copy), ()):
        if old != copy:
            with suppress(OSError):  # some systems keep what is open for review
                old.unlink()
