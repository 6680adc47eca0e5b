"""Tables of the annotation store, and how a database of them is opened."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import JSON, DateTime, ForeignKey, String, UniqueConstraint, create_engine, event
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import (
    ArgumentError,
    IntegrityError,
    NoSuchModuleError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from sqlalchemy.types import TypeDecorator

from clsclip.errors import InvalidConfigError, StoreError

SCHEMA_VERSION: Final = 1
DATABASE_FILE: Final = "annotations.db"

BUSY_SECONDS: Final = 30
"""How long SQLite waits for another process that writes."""

CREATION_TRIES: Final = 20
"""How often it is tried to make the tables that another process may be making, too."""

CREATION_PAUSE: Final = 0.05
"""Seconds between two tries."""

_SHA256: Final = String(64)


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC. SQLite forgets time zones, PostgreSQL does not."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        """Convert what is written to UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        """Say of what was read that it is UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Table(DeclarativeBase):
    """Base of the tables."""


class StoreRow(Table):
    """One row: which version of the tables this database has."""

    __tablename__ = "store"

    id: Mapped[int] = mapped_column(primary_key=True)
    schema_version: Mapped[int]


class AnnotationRow(Table):
    """One version of one annotation. Rows are added and read, never changed."""

    __tablename__ = "annotation"
    __table_args__ = (UniqueConstraint("lineage", "version"),)

    number: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(String(32), unique=True)
    lineage: Mapped[str] = mapped_column(String(32))
    version: Mapped[int]
    created: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    image_sha256: Mapped[str] = mapped_column(_SHA256, index=True)
    labels_sha256: Mapped[str] = mapped_column(_SHA256)
    vouched_sha256: Mapped[str | None] = mapped_column(_SHA256)
    content_sha256: Mapped[str] = mapped_column(_SHA256, index=True)
    details: Mapped[dict[str, Any]] = mapped_column(JSON)
    words: Mapped[list[WordRow]] = relationship(order_by="WordRow.class_id", lazy="selectin")


class WordRow(Table):
    """A class word of an annotation."""

    __tablename__ = "annotation_word"

    annotation: Mapped[int] = mapped_column(ForeignKey("annotation.number"), primary_key=True)
    class_id: Mapped[int] = mapped_column(primary_key=True)
    word: Mapped[str]
    folded: Mapped[str] = mapped_column(index=True)
    pixels: Mapped[int]


def open_database(folder: Path, url: str = "") -> Engine:
    """Open a database and make its tables if it has none.

    Parameters
    ----------
    folder : Path
        Folder of the store; holds the SQLite file that is used without a URL.
    url : str
        SQLAlchemy URL of a shared database, e.g. ``postgresql+psycopg://user@host/name``.

    Raises
    ------
    InvalidConfigError
        If the URL cannot be understood, or its driver is not installed.
    StoreError
        If the database cannot be opened, or a newer version made it.
    """
    address = _address(folder, url)
    try:
        engine = create_engine(address)
        if address.get_backend_name() == "sqlite":
            event.listen(engine, "connect", _set_up_sqlite)
        version = _make_tables_among_others(engine)
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise InvalidConfigError(
            f"The driver of the database '{_shown(address)}' is not installed ({error}). For "
            'PostgreSQL: pip install "napari-clsclip[postgresql]".'
        ) from error
    except SQLAlchemyError as error:
        raise StoreError(
            f"The annotation database '{_shown(address)}' cannot be opened ({cause(error)}). "
            "Check that the folder or server is there and may be written."
        ) from error
    if version > SCHEMA_VERSION:
        engine.dispose()
        raise StoreError(
            f"The annotation database '{_shown(address)}' was made by a newer version of "
            f"napari-clsclip (tables {version}, this one reads {SCHEMA_VERSION}). "
            "Update napari-clsclip."
        )
    return engine


def _make_tables_among_others(engine: Engine) -> int:
    """Make the tables, also if other processes are about to make them at the same moment."""
    for _ in range(CREATION_TRIES - 1):
        try:
            return _make_tables(engine)
        except (IntegrityError, OperationalError, ProgrammingError) as error:
            if not any(word in cause(error) for word in ("exist", "lock", "duplicate", "UNIQUE")):
                raise  # a server that is not there would only be waited for again
            time.sleep(CREATION_PAUSE)
    return _make_tables(engine)


def _make_tables(engine: Engine) -> int:
    """Make the tables that are missing; returns the version of those that are there."""
    Table.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        row = session.get(StoreRow, 1)
        if row is None:
            row = StoreRow(id=1, schema_version=SCHEMA_VERSION)
            session.add(row)
        return row.schema_version


def without_password(url: str) -> str:
    """A URL of a database as it may be written into files; what cannot be understood is not.

    >>> without_password("postgresql+psycopg://me:secret@host/name")
    'postgresql+psycopg://me@host/name'
    """
    try:
        return make_url(url)._replace(password=None).render_as_string() if url else ""
    except ArgumentError:
        return ""


def _address(folder: Path, url: str) -> URL:
    if not url:
        return URL.create("sqlite", database=str(folder / DATABASE_FILE))
    try:
        return make_url(url)
    except ArgumentError as error:
        raise InvalidConfigError(
            "The database is no SQLAlchemy URL. Give one such as "
            "postgresql+psycopg://user@host/name, or none for a file in the store's folder."
        ) from error


def _shown(address: URL) -> str:
    """The URL without its password."""
    return address.render_as_string(hide_password=True)


def cause(error: SQLAlchemyError) -> str:
    """What the database's driver said."""
    return str(getattr(error, "orig", None) or error).strip()


def _set_up_sqlite(connection: Any, _: Any) -> None:
    """Let others read while one writes, and lose nothing that was committed to a power cut."""
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON",
                   f"busy_timeout = {BUSY_SECONDS * 1000}"):  # fmt: skip
        connection.execute(f"PRAGMA {pragma}")
