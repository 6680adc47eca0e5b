"""The annotation store: add corrections, find them, read them back, keep every version."""

from __future__ import annotations

import builtins
import os
import uuid
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import platformdirs
from numpy.typing import NDArray
from sqlalchemy import Select, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from clsclip.config import StoreSettings
from clsclip.errors import ConflictError, InvalidConfigError, NotFoundError
from clsclip.store.annotation import AnnotationArrays, check_correction, content_hash
from clsclip.store.arrays import ArrayFiles, sha256_of
from clsclip.store.database import faults
from clsclip.store.schema import AnnotationRow, WordRow, open_database
from clsclip.typed_words import check_words
from clsclip.wire_annotations import Annotation, Correction, Details

ARRAYS_FOLDER: Final = "arrays"
"""Folder of the store that holds the arrays."""


STORE_VARIABLE: Final = "NAPARI_CLSCLIP_STORE"
"""Environment variable with the folder of the store, where no other is given."""

DATABASE_VARIABLE: Final = "NAPARI_CLSCLIP_DATABASE"
"""Environment variable with the URL of its database, where no other is given."""


def store_folder(given: str = "") -> Path:
    """Folder of a store.

    Parameters
    ----------
    given : str
        Empty: what ``STORE_VARIABLE`` says, else a folder of this user.
    """
    named = given or os.environ.get(STORE_VARIABLE, "").strip()
    if named:
        return Path(named).expanduser()
    return platformdirs.user_data_path("napari-clsclip") / "annotations"


def database_url(given: str = "") -> str:
    """URL of the database of a store.

    Parameters
    ----------
    given : str
        Empty: what ``DATABASE_VARIABLE`` says, else a file in the folder of the store.
    """
    return given or os.environ.get(DATABASE_VARIABLE, "").strip()


class AnnotationStore:
    """Annotations in a folder with a database.

    Arrays are on disk before the database speaks of them, so that whatever is in the database
    can be read, also after a crash. Several processes may use one store at a time.

    Parameters
    ----------
    folder : Path
        Made if it does not exist.
    database : str
        SQLAlchemy URL of a shared database, see :func:`clsclip.store.schema.open_database`;
        empty: a SQLite file in ``folder``. The arrays are in ``folder`` in any case.

    Raises
    ------
    FileError, InvalidConfigError, StoreError
    """

    def __init__(self, folder: Path, database: str = "") -> None:
        self.folder = folder
        with faults(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._engine = open_database(folder, database)
        self._arrays = ArrayFiles(folder / ARRAYS_FOLDER)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the database."""
        self._engine.dispose()

    def __len__(self) -> int:
        """How many annotations there are, each counted once, whatever its versions."""
        with self._session() as session, faults(self.folder):
            rows = select(func.count()).where(AnnotationRow.version == 1)
            return session.scalars(rows).one()

    def add(self, correction: Correction, *, replaces: str = "") -> Annotation:
        """Keep a correction. Once this returns, it survives a crash and a power cut.

        Parameters
        ----------
        correction : Correction
        replaces : str
            Id of the version that was corrected further; empty: a new annotation. The old
            version stays.

        Returns
        -------
        Annotation
            What was added; or the latest version itself if nothing differs from it.

        Raises
        ------
        InvalidImageError, InvalidWordError
            If sizes, dtypes or ids do not fit each other.
        NotFoundError
            If there is nothing to replace.
        ConflictError
            If somebody else has replaced it meanwhile. Nothing is lost: add it without
            ``replaces``, or replace the newer version.
        FileError, StoreError
            If it cannot be written.
        """
        words = check_words(correction.words)
        labels, vouched = check_correction(correction, words)
        image_sha256 = self._arrays.add(correction.image)
        labels_sha256 = self._arrays.add(labels)
        vouched_sha256 = None if vouched is None else self._arrays.add(vouched)
        counted = labels if vouched is None else labels[vouched]
        pixels = np.bincount(counted.ravel(), minlength=len(words) + 1)[1:]
        row = AnnotationRow(
            id=uuid.uuid4().hex,
            created=datetime.now(UTC),
            image_sha256=image_sha256,
            labels_sha256=labels_sha256,
            vouched_sha256=vouched_sha256,
            content_sha256=content_hash(image_sha256, labels_sha256, vouched_sha256, words),
            details=correction.details.model_dump(mode="json", exclude_defaults=True),
            words=[
                WordRow(class_id=k, word=word, folded=word.casefold(), pixels=int(count))
                for k, (word, count) in enumerate(zip(words, pixels, strict=True), start=1)
            ],
        )
        with faults(self.folder), self._session() as session:
            if replaces:
                old = _row(session, replaces)
                if _is_replaced(session, old):
                    raise _conflict(replaces)
                if old.content_sha256 == row.content_sha256:
                    return _annotation(old)
                row.lineage, row.version = old.lineage, old.version + 1
            else:
                row.lineage, row.version = row.id, 1
            session.add(row)
            try:
                session.commit()
            except IntegrityError as error:  # between the question and the answer
                raise _conflict(replaces) from error
            return _annotation(row)

    def find(self, correction: Correction) -> Annotation | None:
        """An annotation whose latest version has the same arrays and words, if there is one.

        Raises
        ------
        InvalidImageError, InvalidWordError, StoreError
            As :meth:`add` does.
        """
        words = check_words(correction.words)
        labels, vouched = check_correction(correction, words)
        content = content_hash(
            sha256_of(correction.image), sha256_of(labels),
            None if vouched is None else sha256_of(vouched), words,
        )  # fmt: skip
        found = self._fetch(_latest().where(AnnotationRow.content_sha256 == content).limit(1))
        return found[0] if found else None

    def has_image(self, image: NDArray[Any]) -> bool:
        """Whether the latest version of an annotation is of this very image.

        Raises
        ------
        InvalidImageError, StoreError
        """
        rows = _latest().where(AnnotationRow.image_sha256 == sha256_of(image)).limit(1)
        return bool(self._fetch(rows))

    def get(self, id: str) -> Annotation:  # noqa: A002 - the attribute's name
        """One version.

        Raises
        ------
        NotFoundError, StoreError
        """
        with faults(self.folder), self._session() as session:
            return _annotation(_row(session, id))

    def list(
        self,
        *,
        word: str = "",
        offset: int = 0,
        limit: int | None = None,
    ) -> builtins.list[Annotation]:
        """Latest versions, newest first.

        Parameters
        ----------
        word : str
            Only annotations with this word, letter case ignored; empty: all.
        offset, limit : int
            Which part of the list; no limit: to its end.

        Raises
        ------
        InvalidConfigError
            If the part is none.
        StoreError
        """
        if offset < 0 or (limit is not None and limit < 0):
            raise InvalidConfigError(
                f"Annotations {offset} to {offset + (limit or 0)} are no part of a list; offset "
                "and limit must be at least 0."
            )
        rows = _latest().order_by(AnnotationRow.number.desc()).offset(offset).limit(limit)
        if word:
            asked = " ".join(word.split()).casefold()
            having = select(WordRow.annotation).where(WordRow.folded == asked)
            rows = rows.where(AnnotationRow.number.in_(having))
        return self._fetch(rows)

    def asked(self, words: Collection[str]) -> builtins.list[Annotation]:
        """Latest versions that have one of some words, in the order in which they joined.

        Parameters
        ----------
        words : collection of str
            Letter case is ignored.

        Returns
        -------
        list of Annotation
            By the moment at which the first version of each was added, so that further ones
            always come last.

        Raises
        ------
        StoreError
        """
        folded = {" ".join(word.split()).casefold() for word in words}
        having = select(WordRow.annotation).where(WordRow.folded.in_(folded))
        first = aliased(AnnotationRow)
        rows = _latest().where(AnnotationRow.number.in_(having))
        rows = rows.join(first, first.id == AnnotationRow.lineage).order_by(first.number)
        return self._fetch(rows)

    def versions(self, lineage: str) -> builtins.list[Annotation]:
        """All versions of an annotation, the first one first.

        Raises
        ------
        NotFoundError, StoreError
        """
        rows = select(AnnotationRow).where(AnnotationRow.lineage == lineage)
        found = self._fetch(rows.order_by(AnnotationRow.version))
        if not found:
            raise NotFoundError(f"There is no annotation '{lineage}' in '{self.folder}'.")
        return found

    def words(self) -> dict[str, int]:
        """Every word of the latest versions, and the number of annotations that have it.

        A word is counted where it was asked for, also if no pixel has it: its absence was
        accepted too. Of spellings that differ in case only, one is given.

        Raises
        ------
        StoreError
        """
        latest = _latest().subquery()
        counts = (
            select(func.min(WordRow.word), func.count())
            .join(latest, latest.c.number == WordRow.annotation)
            .group_by(WordRow.folded)
            .order_by(func.count().desc(), WordRow.folded)
        )
        with faults(self.folder), self._session() as session:
            return {row[0]: row[1] for row in session.execute(counts)}

    def read(self, annotation: Annotation) -> AnnotationArrays:
        """The arrays of a version, checked against their SHA-256.

        Raises
        ------
        StoreError
            If a file is missing or damaged.
        """
        vouched = annotation.vouched_sha256
        return AnnotationArrays(
            self._arrays.read(annotation.image_sha256),
            self._arrays.read(annotation.labels_sha256),
            None if vouched is None else self._arrays.read(vouched).astype(np.bool_),
        )

    def _fetch(self, rows: Select[AnnotationRow]) -> builtins.list[Annotation]:
        with faults(self.folder), self._session() as session:
            return [_annotation(row) for row in session.scalars(rows)]

    def _session(self) -> Session:
        return Session(self._engine)


def opened_store(settings: StoreSettings) -> AnnotationStore:
    """The store of some settings.

    Raises
    ------
    FileError, InvalidConfigError, StoreError
    """
    return AnnotationStore(store_folder(settings.store), database_url(settings.database))


def _latest() -> Select[AnnotationRow]:
    newer = aliased(AnnotationRow)
    replaced = (
        select(newer.number)
        .where(newer.lineage == AnnotationRow.lineage, newer.version > AnnotationRow.version)
        .exists()
    )
    return select(AnnotationRow).where(~replaced)


def _is_replaced(session: Session, row: AnnotationRow) -> bool:
    newer = select(AnnotationRow.number).where(
        AnnotationRow.lineage == row.lineage, AnnotationRow.version > row.version
    )
    return session.scalars(newer).first() is not None


def _conflict(replaces: str) -> ConflictError:
    return ConflictError(
        f"Annotation {replaces} was corrected by somebody else meanwhile. Nothing is lost: open "
        "the newer version, or accept yours as a new annotation."
    )


def _row(session: Session, identity: str) -> AnnotationRow:
    row = session.scalars(select(AnnotationRow).where(AnnotationRow.id == identity)).first()
    if row is None:
        raise NotFoundError(
            f"There is no annotation '{identity}' in this store. List them to see what there is."
        )
    return row


def _annotation(row: AnnotationRow) -> Annotation:
    return Annotation(
        id=row.id,
        lineage=row.lineage,
        version=row.version,
        created=row.created,
        words=tuple(word.word for word in row.words),
        pixels=tuple(word.pixels for word in row.words),
        image_sha256=row.image_sha256,
        labels_sha256=row.labels_sha256,
        vouched_sha256=row.vouched_sha256,
        details=Details.model_validate(row.details),
    )
