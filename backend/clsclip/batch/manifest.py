"""``manifest.csv`` of an output folder: what became of each image, a row as soon as it is done.

A row that was cut off when a process was killed counts as none. Nothing here imports torch.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Final, Literal

from clsclip.batch.files import write_at_once
from clsclip.errors import FileError

MANIFEST_FILE: Final = "manifest.csv"

HEADS: Final = ("file", "status", "seconds", "error", "objects", "regions", "score")
_OLD_HEADS: Final = HEADS[:-1]
"""Of versions that did not tell scores."""

_STATUS: Final[tuple[Literal["done", "failed"], ...]] = ("done", "failed")


@dataclass(frozen=True)
class ManifestRow:
    """What became of one image.

    Attributes
    ----------
    file : Path
        The image.
    status : str
        "done": all its outputs are on disk; "failed": for the reason in ``error``.
    seconds : float
        Time that it was worked on.
    error : str
    objects : int or None
        Number of objects, where single objects are told apart.
    regions : str
        How regions were chosen, where they were asked for.
    score : float or None
        Expected IoU of the least certain word that was found, 0 to 1, see
        :func:`clsclip.ranking.expected_iou`. None where no word was found.
    """

    file: Path
    status: Literal["done", "failed"]
    seconds: float
    error: str = ""
    objects: int | None = None
    regions: str = ""
    score: float | None = None

    def _cells(self) -> tuple[str, ...]:
        return (
            str(self.file), self.status, f"{self.seconds:.3f}", " ".join(self.error.split()),
            "" if self.objects is None else str(self.objects), self.regions,
            "" if self.score is None else f"{self.score:.4f}",
        )  # fmt: skip


class Manifest:
    """The manifest of an output folder.

    Parameters
    ----------
    output : Path
        The folder. Neither it nor the manifest need exist yet.
    """

    def __init__(self, output: Path) -> None:
        self.file = output / MANIFEST_FILE

    def read(self) -> dict[Path, ManifestRow]:
        """Rows by image, in the order of the file; of two rows of one image the last one.

        Empty where there is no manifest. Safe while another process appends.

        Raises
        ------
        FileError
            If it cannot be read or is not a manifest.
        """
        try:
            with self.file.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
                text = stream.read()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise FileError(f"'{self.file}' cannot be read ({error}).") from error
        return self.parse(text)

    def parse(self, text: str) -> dict[Path, ManifestRow]:
        """Rows of the text of a manifest, as :meth:`read` gives them.

        Raises
        ------
        FileError
        """
        try:
            records = list(csv.reader(StringIO(text, newline="")))
        except csv.Error as error:
            raise self._foreign(f"{error}") from error
        if records and not text.endswith("\n"):
            del records[-1]
        if not records:
            return {}
        heads = tuple(records[0])
        if heads not in (HEADS, _OLD_HEADS):
            raise self._foreign(f"its columns are {', '.join(heads) or 'none'}")
        rows: dict[Path, ManifestRow] = {}
        for number, cells in enumerate(records[1:], start=2):
            if len(cells) < len(heads) and number == len(records):
                break  # cut off within a quoted cell of several lines
            row = self._row(cells, len(heads), number)
            rows.pop(row.file, None)
            rows[row.file] = row
        return rows

    def _row(self, cells: Sequence[str], columns: int, number: int) -> ManifestRow:
        try:
            file, status, seconds, error, objects, regions = cells[: len(_OLD_HEADS)]
            score = cells[columns - 1] if columns == len(HEADS) else ""
            if status not in _STATUS or len(cells) != columns:
                raise ValueError(f"its status is '{status}', in {len(cells)} columns")
            return ManifestRow(
                Path(file), "done" if status == "done" else "failed", float(seconds), error,
                int(objects) if objects else None, regions, float(score) if score else None,
            )  # fmt: skip
        except ValueError as fault:
            raise self._foreign(f"row {number} cannot be read: {fault}") from fault

    def _foreign(self, why: str) -> FileError:
        return FileError(
            f"'{self.file}' is not a manifest of this version ({why}). Choose another output "
            "folder, or 'Overwrite' (--overwrite on the command line) to begin anew."
        )

    def write(self, rows: Iterable[ManifestRow]) -> None:
        """Replace the manifest by one of these rows, at once or not at all.

        Raises
        ------
        OSError
        """
        lines = _lines([HEADS, *(row._cells() for row in rows)])

        def write(draft: Path) -> None:
            with draft.open("wb") as stream:
                stream.write(lines)
                stream.flush()
                os.fsync(stream.fileno())

        write_at_once(self.file, write)

    def append(self, row: ManifestRow) -> None:
        """Add a row to a manifest that :meth:`write` wrote; it is in the file on return.

        A full disk leaves no half a row.

        Raises
        ------
        OSError
        """
        size = self.file.stat().st_size
        try:
            with self.file.open("ab", buffering=0) as stream:
                line = _lines([row._cells()])
                if stream.write(line) != len(line):
                    raise OSError(f"'{self.file}' took a part of a row only; the disk is full")
        except OSError:
            os.truncate(self.file, size)
            raise


def _lines(rows: Iterable[Sequence[str]]) -> bytes:
    text = StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode("utf-8", errors="surrogateescape")
