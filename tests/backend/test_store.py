from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from clsclip.errors import (
    ClsClipError,
    ConflictError,
    InvalidConfigError,
    InvalidImageError,
    InvalidWordError,
    NotFoundError,
    StoreError,
)
from clsclip.store.store import AnnotationStore
from clsclip.wire_annotations import Correction, Details


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AnnotationStore]:
    with AnnotationStore(tmp_path / "store") as opened:
        yield opened


def correction(value: int = 0, words: tuple[str, ...] = ("cell", "nucleus")) -> Correction:
    image = np.full((6, 8, 3), value % 251, np.uint8)
    image[0, 0] = (value // 251 % 251, value // 251**2, 7)
    labels = np.zeros((6, 8), np.uint8)
    labels[1:4, 1:4] = 1
    labels[2, 2] = len(words)
    return Correction(image, labels, words)


def test_a_correction_comes_back_as_it_was(store: AnnotationStore) -> None:
    vouched = np.zeros((6, 8), bool)
    vouched[:4] = True
    details = Details(
        source="tissue.tif", position=(3, 0), model="mini", model_version="ab12",
        contrast_limits=(0.5, 300.0), scale=(0.25, 0.5), unit="µm", note="Größe geprüft",
    )  # fmt: skip
    image = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
    given = replace(correction(), image=image, vouched=vouched, details=details)
    before = datetime.now(UTC)
    added = store.add(given)
    assert added.words == ("cell", "nucleus")
    assert added.pixels == (8, 1)
    assert added.version == 1
    assert added.lineage == added.id
    assert added.details == details
    assert timedelta(0) <= added.created - before < timedelta(minutes=1)
    with AnnotationStore(store.folder) as again:
        assert again.get(added.id) == added
        arrays = again.read(added)
    np.testing.assert_array_equal(arrays.image, image)
    np.testing.assert_array_equal(arrays.labels, given.labels)
    assert arrays.vouched is not None
    np.testing.assert_array_equal(arrays.vouched, vouched)


def test_versions_are_kept(store: AnnotationStore) -> None:
    first = store.add(correction())
    changed = replace(correction(), labels=correction().labels.T.reshape(6, 8).copy())
    second = store.add(changed, replaces=first.id)
    other = store.add(correction(5))
    assert (second.lineage, second.version) == (first.id, 2)
    assert store.versions(first.lineage) == [first, second]
    assert store.list() == [other, second]
    assert len(store) == 2
    np.testing.assert_array_equal(store.read(first).labels, correction().labels)
    np.testing.assert_array_equal(store.read(second).labels, changed.labels)


def test_accepting_the_same_again_makes_no_version(store: AnnotationStore) -> None:
    first = store.add(correction())
    assert store.add(correction(), replaces=first.id) == first
    assert store.find(correction()) == first
    assert store.find(correction(1)) is None


def test_two_people_correct_the_same(store: AnnotationStore) -> None:
    first = store.add(correction())
    second = store.add(correction(1), replaces=first.id)
    with pytest.raises(ConflictError, match="somebody else"):
        store.add(correction(2), replaces=first.id)
    with pytest.raises(ConflictError):
        store.add(correction(), replaces=first.id)
    assert store.versions(first.lineage) == [first, second]
    third = store.add(correction(2), replaces=second.id)
    assert third.version == 3


def test_words_are_found_in_any_case_and_counted(store: AnnotationStore) -> None:
    a = store.add(correction(0, ("cell", "Nucleus")))
    b = store.add(correction(1, ("nucleus",)))
    c = store.add(correction(2, ("细胞",)))
    assert store.list(word=" NUCLEUS ") == [b, a]
    assert store.list(word="细胞") == [c]
    assert store.list(word="nucl") == []
    assert {word.casefold(): count for word, count in store.words().items()} == {
        "nucleus": 2, "cell": 1, "细胞": 1,
    }  # fmt: skip
    store.add(correction(3, ("cell",)), replaces=b.id)
    assert store.list(word="nucleus") == [a]


def test_annotations_of_some_words_in_the_order_of_joining(store: AnnotationStore) -> None:
    first = store.add(correction(words=("cell",)))
    store.add(correction(1, words=("vessel",)))
    second = store.add(correction(2, words=("Nucleus", "vessel")))
    latest = store.add(correction(3, words=("Cell",)), replaces=first.id)
    assert store.asked(["CELL", "nucleus"]) == [latest, second]
    assert store.asked([]) == store.asked(["membrane"]) == []


def test_lists_come_in_parts(store: AnnotationStore) -> None:
    added = [store.add(correction(k)) for k in range(5)]
    assert store.list(offset=1, limit=2) == [added[3], added[2]]
    assert store.list(offset=9) == []
    with pytest.raises(InvalidConfigError, match="at least 0"):
        store.list(offset=-1)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"labels": np.zeros((6, 9), int)}, InvalidImageError, r"\(6, 9\)"),
        ({"labels": np.zeros((6, 8))}, InvalidImageError, "float64"),
        ({"labels": np.full((6, 8), 3)}, InvalidImageError, "the id 3, but with 2 words"),
        ({"labels": np.full((6, 8), -1)}, InvalidImageError, "the id -1"),
        ({"vouched": np.zeros((6, 8), bool)}, InvalidImageError, "nothing to learn"),
        ({"vouched": np.ones((3, 8), bool)}, InvalidImageError, r"\(3, 8\)"),
        ({"words": ()}, InvalidWordError, "No class word"),
        ({"image": np.zeros((6, 8, 5))}, InvalidImageError, "cannot be stored"),
    ],
)
def test_what_does_not_fit_is_refused(
    store: AnnotationStore, change: dict[str, object], error: type[ClsClipError], text: str
) -> None:
    with pytest.raises(error, match=text):
        store.add(replace(correction(), **change))  # type: ignore[arg-type]
    assert len(store) == 0


def test_what_is_not_there(store: AnnotationStore) -> None:
    for call in (store.get, store.versions, lambda i: store.add(correction(), replaces=i)):
        with pytest.raises(NotFoundError, match="beef"):
            call("beef")


def test_a_damaged_file_harms_one_annotation(store: AnnotationStore) -> None:
    damaged, other = store.add(correction()), store.add(correction(1))
    file = next(store.folder.glob(f"arrays/*/{damaged.image_sha256[2:]}.tif"))
    file.write_bytes(b"II*\0")
    with pytest.raises(StoreError, match="backup"):
        store.read(damaged)
    assert store.read(other).image[1, 1, 0] == 1


def test_sqlite_is_safe_against_a_power_cut(store: AnnotationStore) -> None:
    store.add(correction())
    with store._engine.connect() as connection:
        found = [connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                 for name in ("journal_mode", "synchronous", "foreign_keys")]  # fmt: skip
    assert found == ["wal", 2, 1]


def test_a_database_of_a_newer_version_is_refused(store: AnnotationStore) -> None:
    with sqlite3.connect(store.folder / "annotations.db") as database:
        database.execute("UPDATE store SET schema_version = 99")
    database.close()
    with pytest.raises(StoreError, match="Update napari-clsclip"):
        AnnotationStore(store.folder)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "annotations.db").write_bytes(b"no database " * 100)
    with pytest.raises(StoreError, match="not a database"):
        AnnotationStore(tmp_path)
    assert (tmp_path / "annotations.db").read_bytes().startswith(b"no database")


@pytest.mark.parametrize(
    ("url", "error", "text"),
    [
        ("no url", InvalidConfigError, "no SQLAlchemy URL"),
        ("oracle+nothing://host/x", InvalidConfigError, "not installed"),
        ("postgresql+psycopg://me:secret@127.0.0.1:9/x", StoreError, "cannot be opened"),
    ],
)
def test_a_database_that_cannot_be_had(
    tmp_path: Path, url: str, error: type[ClsClipError], text: str
) -> None:
    with pytest.raises(error, match=text) as caught:
        AnnotationStore(tmp_path, url)
    assert "secret" not in caught.value.message


def _replace(folder: str, replaces: str, value: int) -> str:
    with AnnotationStore(Path(folder)) as store:
        try:
            return store.add(correction(value), replaces=replaces).id
        except ConflictError:
            return ""


def test_one_of_many_at_the_same_moment_wins(store: AnnotationStore) -> None:
    first = store.add(correction())
    with ProcessPoolExecutor(4) as pool:
        ids = list(pool.map(_replace, [str(store.folder)] * 8, [first.id] * 8, range(1, 9)))
    (winner,) = filter(None, ids)
    assert [version.id for version in store.versions(first.id)] == [first.id, winner]


def _open(folder: str) -> int:
    with AnnotationStore(Path(folder)) as store:
        return len(store)


def test_many_open_a_new_store_at_the_same_moment(tmp_path: Path) -> None:
    with ProcessPoolExecutor(6) as pool:
        for attempt in range(5):
            assert list(pool.map(_open, [str(tmp_path / str(attempt))] * 6)) == [0] * 6


_WRITER = """
import sys
from pathlib import Path
import numpy as np
from clsclip.store.store import AnnotationStore
from clsclip.wire_annotations import Correction

with AnnotationStore(Path(sys.argv[1])) as store:
    for k in range(int(sys.argv[2]), 10**6):
        image = np.full((40, 40), k, np.uint32)
        store.add(Correction(image, (image % 7 == 0).astype(np.uint8), ("cell",)))
        print(k, flush=True)
"""


def _write(folder: Path, first: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(folder), str(first)], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_nothing_accepted_is_lost_when_writers_are_killed(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    accepted: set[int] = set()
    rng = np.random.default_rng(0)
    for attempt in range(6):
        writers = [_write(tmp_path, 10_000 * (2 * attempt + k)) for k in range(2)]
        for writer in writers:
            assert writer.stdout is not None
            for end in (writer.stdout.close, writer.wait, writer.kill):  # in reverse order
                request.addfinalizer(end)
        for writer in writers:
            assert writer.stdout is not None
            accepted.add(int(writer.stdout.readline()))
        time.sleep(rng.uniform(0, 0.3))
        for writer in writers:
            os.kill(writer.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
            assert writer.stdout is not None
            complete = [line for line in writer.stdout if line.endswith("\n")]
            accepted.update(map(int, complete))
            writer.wait()
            writer.stdout.close()
    with AnnotationStore(tmp_path) as store:
        found = {int(store.read(annotation).image[0, 0]) for annotation in store.list()}
    assert accepted <= found
    assert len(found) <= len(accepted) + 12  # written, and killed before it could say so


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pgserver = pytest.importorskip("pgserver", reason="no PostgreSQL to start")
    server = pgserver.get_server(tmp_path_factory.mktemp("postgresql"))
    yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    server.cleanup()


@pytest.mark.slow
def test_postgresql_does_the_same(tmp_path: Path, postgresql: str) -> None:
    with AnnotationStore(tmp_path / "a", postgresql) as store:
        first = store.add(replace(correction(), details=Details(note="µ")))
        second = store.add(correction(1), replaces=first.id)
        assert store.asked(["CELL"]) == [second]
        with pytest.raises(ConflictError):
            store.add(correction(2), replaces=first.id)
    with AnnotationStore(tmp_path / "a", postgresql) as again:
        assert again.list(word="CELL") == [second]
        assert again.versions(first.id) == [first, second]
        assert again.words() == {"cell": 1, "nucleus": 1}
        np.testing.assert_array_equal(again.read(second).image, correction(1).image)
    assert not (tmp_path / "a" / "annotations.db").exists()
