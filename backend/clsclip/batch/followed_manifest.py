"""A manifest that is read again and again while it grows: each row of it once.

Nothing here imports torch.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO, Final

from clsclip.batch.manifest import Manifest, ManifestRow
from clsclip.errors import FileError

_REMEMBERED: Final = 256
"""Bytes before the end of what was read that must be the same, or it is another manifest."""


class FollowedManifest:
    """Reads what was added to the manifest of an output folder. For one thread at a time.

    Parameters
    ----------
    output : Path
    """

    def __init__(self, output: Path) -> None:
        self._manifest = Manifest(output)
        self._begin()

    def _begin(self) -> None:
        self._file = 0
        self._end = 0
        self._heads = self._last = b""
        self._rows: dict[str, ManifestRow] = {}

    def rows(self) -> dict[str, ManifestRow]:
        """Rows by path of the image; see :meth:`clsclip.batch.manifest.Manifest.read`.

        What was returned before never changes.

        Raises
        ------
        FileError
        """
        try:
            with self._manifest.file.open("rb") as stream:
                self._go_on_or_begin(stream)
                complete = _complete(stream.read())
        except FileNotFoundError:
            self._begin()
            return self._rows
        except OSError as error:
            raise FileError(f"'{self._manifest.file}' cannot be read ({error}).") from error
        if complete:
            heads = self._heads or complete[: complete.index(b"\n") + 1]
            text = (self._heads + complete).decode("utf-8", errors="surrogateescape")
            rows = dict(self._rows)
            for file, row in self._manifest.parse(text).items():
                rows.pop(str(file), None)
                rows[str(file)] = row
            self._rows, self._heads = rows, heads
            self._end += len(complete)
            self._last = (self._last + complete)[-_REMEMBERED:]
        return self._rows

    def _go_on_or_begin(self, stream: BinaryIO) -> None:
        """Place a stream where the last reading ended, or at the begin of another manifest."""
        number = os.fstat(stream.fileno()).st_ino
        stream.seek(self._end - len(self._last))
        if number != self._file or stream.read(len(self._last)) != self._last:
            self._begin()
            self._file = number
            stream.seek(0)


def _complete(added: bytes) -> bytes:
    """Whole lines that end outside of quotes."""
    while True:
        added = added[: added.rfind(b"\n") + 1]
        if added.count(b'"') % 2 == 0:
            return added
        added = added[:-1]
