"""What can go wrong with a store's database and folder, as our own errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from clsclip.errors import FileError, StoreError
from clsclip.store.schema import cause


@contextmanager
def faults(folder: Path) -> Iterator[None]:
    """Turn what the database's driver and the file system raise into errors for the user.

    Raises
    ------
    StoreError, FileError
    """
    try:
        yield
    except SQLAlchemyError as error:
        raise StoreError(
            f"The annotation store '{folder}' cannot be used ({cause(error)}). What was accepted "
            "before is safe; make room or connect the database, and try again."
        ) from error
    except OSError as error:
        raise FileError(
            f"The annotation store '{folder}' cannot be used ({error}). Make room or give rights, "
            "and try again."
        ) from error
