"""Work that was begun and can be gone on with: its settings, and which parts are done.

What is on disk alone decides: after an interruption of any kind, parts that are recorded are
finished, and all others are done again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from clsclip.batch.files import write_at_once
from clsclip.errors import FileError

SETTINGS_FILE: Final = "settings.json"


class Journal:
    """Lines of JSON that are on disk when :meth:`add` returns.

    Parameters
    ----------
    file : Path
        Read if it is there. A last line that was cut off is left out.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.entries: list[dict[str, Any]] = []
        if file.exists():
            complete, newline, _ = file.read_text().rpartition("\n")
            self.entries = [json.loads(line) for line in complete.splitlines()]
            os.truncate(file, len((complete + newline).encode()))

    def add(self, entry: Mapping[str, Any]) -> None:
        """Append an entry.

        Raises
        ------
        OSError
        """
        with self._file.open("a") as stream:
            stream.write(json.dumps(entry) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        self.entries.append(dict(entry))


def read_record(file: Path) -> dict[str, Any] | None:
    """A JSON object that :func:`write_record` wrote; None if there is none.

    Raises
    ------
    FileError
        If it is not JSON.
    """
    try:
        record: dict[str, Any] = json.loads(file.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise FileError(
            f"'{file}' is damaged ({error}). Begin anew with 'Overwrite' (--overwrite on the "
            "command line)."
        ) from error
    return record


def write_record(file: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON object, at once or not at all.

    Raises
    ------
    OSError
    """
    text = json.dumps(record, indent=1)
    write_at_once(file, lambda draft: draft.write_text(text))


def check_same(what: Path, begun: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with work that was begun with other settings.

    Parameters
    ----------
    what : Path
        What is being written, for the message.
    begun, now : mapping of str to JSON values

    Raises
    ------
    FileError
        If they differ; the message names the settings.
    """
    wanted = json.loads(json.dumps(now))  # tuples are lists in what was read
    names = [name for name in {**begun, **wanted} if begun.get(name) != wanted.get(name)]
    if names:
        listed = "; ".join(f"{name}: {begun.get(name)}, now {wanted.get(name)}" for name in names)
        raise FileError(
            f"'{what}' was begun with other settings ({listed}). Give these again to go on, or "
            "'Overwrite' (--overwrite on the command line) to begin anew."
        )
