"""Which labels of an output folder a person has accepted. No run changes those."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from clsclip.errors import FileError

REVIEWS_FILE: Final = ".reviews.jsonl"
"""A line ``{"key", "accepted", ...}`` per decision; the last one of a key counts."""


class AcceptedKeys:
    """Keys of images whose labels a person has accepted, as they are at the moment.

    Safe while another process writes the reviews.

    Parameters
    ----------
    output : Path
    """

    def __init__(self, output: Path) -> None:
        self._file = output / REVIEWS_FILE
        self._read_at: tuple[int, int] | None = None
        self._keys: frozenset[str] = frozenset()

    def __contains__(self, key: str) -> bool:
        return key in self.now()

    def now(self) -> frozenset[str]:
        """All of them.

        Raises
        ------
        FileError
            If the reviews are damaged.
        """
        try:
            found = self._file.stat()
        except FileNotFoundError:
            return frozenset()
        if self._read_at != (found.st_mtime_ns, found.st_size):
            complete, _, _ = self._file.read_text(encoding="utf-8").rpartition("\n")
            try:
                reviews = [json.loads(line) for line in complete.splitlines()]
                last = {str(review["key"]): bool(review["accepted"]) for review in reviews}
            except (ValueError, KeyError, TypeError) as error:
                raise FileError(
                    f"'{self._file}' is damaged ({error}), so it is not known which labels were "
                    "accepted. Repair it, or give another --output."
                ) from error
            self._keys = frozenset(key for key, accepted in last.items() if accepted)
            self._read_at = (found.st_mtime_ns, found.st_size)
        return self._keys
