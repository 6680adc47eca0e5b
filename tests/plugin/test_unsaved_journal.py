"""What is kept on disk of labels that nobody has saved: tiles, when they are written, locks."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from clsclip.errors import FileError
from napari_clsclip._image_fingerprint import fingerprint
from napari_clsclip._kept import Kept, KeptPlacement
from napari_clsclip._unsaved_files import (
    TILE_PIXELS,
    KeptFolder,
    KeptSession,
    Tile,
    dead_sessions,
    tiles_in,
)
from napari_clsclip._unsaved_journal import Entry, Journal
from waiting import eventually

SHAPE = (3, 600, 1100)


def about(shape: tuple[int, ...] = SHAPE) -> Kept:
    axes = len(shape)
    unit = tuple(tuple(float(i == k) for i in range(axes)) for k in range(axes))
    return Kept(
        painted=datetime(2026, 11, 25, 2, 14, tzinfo=UTC),
        name="cells",
        shape=shape,
        dtype="<u2",
        placement=KeptPlacement(
            scale=(1.0,) * axes, translate=(0.0,) * axes, rotate=unit, shear=(), affine=(),
            units=("pixel",) * axes, axis_labels=("z", "y", "x")[-axes:],
        ),
        made={"words": ["cell"]},
        image=None,
        result=None,
        unsaved=((1,),),
    )  # fmt: skip


def whole(labels: NDArray[np.uint16]) -> list[Tile]:
    return list(tiles_in([slice(0, length) for length in labels.shape]))


def painted(rng: np.random.Generator) -> NDArray[np.uint16]:
    labels = np.zeros(SHAPE, np.uint16)
    labels[1] = rng.integers(0, 5, SHAPE[1:])
    labels[2, 590:, 1090:] = 7
    return labels


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def open_journal(tmp_path: Path, told: list[str]) -> Iterator[Callable[..., Journal]]:
    opened: list[Journal] = []

    def make(root: Path = tmp_path / "kept", **seconds: float) -> Journal:
        times = {"quiet": 0.05, "longest": 0.3, "retry": 0.05, **seconds}
        opened.append(Journal(root, told.append, **times))
        return opened[-1]

    yield make
    for journal in opened:
        journal.close()


def only(root: Path) -> KeptFolder:
    (session,) = root.iterdir()
    (folder,) = KeptSession(session).entries()
    return folder


def read(root: Path) -> NDArray[np.uint16]:
    folder = only(root)
    kept = folder.read_about()
    assert kept is not None
    labels, _, lost = folder.read(kept)
    assert lost == 0
    return labels


def test_tiles_of_a_box() -> None:
    box = [slice(1, 3), slice(510, 514), slice(0, 1)]
    assert [(t.position, t.row, t.column) for t in tiles_in(box)] == [
        ((1,), 0, 0), ((1,), 1, 0), ((2,), 0, 0), ((2,), 1, 0),
    ]  # fmt: skip
    assert len(list(tiles_in([slice(0, TILE_PIXELS), slice(0, TILE_PIXELS + 1)]))) == 2


def test_what_is_written_is_read_back(tmp_path: Path, rng: np.random.Generator) -> None:
    labels, folder = painted(rng), KeptFolder(tmp_path / "one")
    written = [folder.write_tile(tile, labels[tile.part]) for tile in whole(labels)]
    assert sum(written) == 6 + 1  # a plane, and a corner of the next: background takes no file
    features = {"index": np.array([1, 2]), "class": np.array(["cell", "Zelle"])}
    folder.write_about(about(), features)
    again = KeptFolder(folder.path)
    kept = again.read_about()
    assert kept == about()
    assert kept is not None
    restored, table, lost = again.read(kept)
    assert_array_equal(restored, labels)
    assert restored.dtype == np.uint16
    assert lost == 0
    assert {name: column.tolist() for name, column in table.items()} == {
        "index": [1, 2], "class": ["cell", "Zelle"],
    }  # fmt: skip
    assert not list(folder.path.glob("*.writing"))
    assert not any(again.write_tile(tile, labels[tile.part]) for tile in whole(labels))
    labels[1, :TILE_PIXELS, :TILE_PIXELS] = 0
    assert again.write_tile(Tile((1,), 0, 0), labels[Tile((1,), 0, 0).part])
    assert_array_equal(KeptFolder(folder.path).read(kept)[0], labels)


def test_a_broken_tile_is_counted_and_the_others_are_there(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    labels, folder = painted(rng), KeptFolder(tmp_path / "one")
    for tile in whole(labels):
        folder.write_tile(tile, labels[tile.part])
    folder.write_about(about(), {})
    broken = tmp_path / "one" / Tile((1,), 0, 0).name
    broken.write_bytes(broken.read_bytes()[:-30])
    restored, _, lost = KeptFolder(folder.path).read(about())
    assert lost == 1
    labels[1, :TILE_PIXELS, :TILE_PIXELS] = 0
    assert_array_equal(restored, labels)


def test_what_another_version_kept_is_left_where_it_is(tmp_path: Path) -> None:
    folder = KeptFolder(tmp_path / "one")
    folder.write_about(about(), {})
    path = tmp_path / "one" / "about.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(FileError, match="left where they are"):
        KeptFolder(folder.path).read_about()
    assert path.exists()


def test_stroke_is_written_a_moment_later_and_only_its_tile(
    open_journal: Callable[..., Journal], tmp_path: Path, rng: np.random.Generator
) -> None:
    journal, entry, labels = open_journal(), Entry(), painted(rng)
    journal.mark(entry, labels, whole(labels), about=about())
    assert journal.flush(10)
    files = {path: path.stat().st_mtime_ns for path in only(tmp_path / "kept").path.iterdir()}
    labels[1, 5, 5] = 99
    journal.mark(entry, labels, [Tile((1,), 0, 0)])
    eventually(lambda: read(tmp_path / "kept")[1, 5, 5] == 99)
    changed = [path.name for path, time in files.items() if path.stat().st_mtime_ns != time]
    assert changed == ["1-0-0.npz"]
    assert_array_equal(read(tmp_path / "kept"), labels)


def test_long_painting_does_not_put_writing_off(
    open_journal: Callable[..., Journal], tmp_path: Path, rng: np.random.Generator
) -> None:
    journal, entry, labels = open_journal(quiet=60.0, longest=0.2), Entry(), painted(rng)
    journal.mark(entry, labels, whole(labels), about=about())
    assert not (tmp_path / "kept").exists()
    eventually(lambda: list((tmp_path / "kept").glob("*/*/about.json")))


def test_planes_that_can_wait_are_written_too(
    open_journal: Callable[..., Journal], tmp_path: Path, rng: np.random.Generator
) -> None:
    journal, entry, labels = open_journal(), Entry(), painted(rng)
    later = [tile for tile in whole(labels) if tile.position == (2,)]
    first = [tile for tile in whole(labels) if tile.position == (1,)]
    journal.mark(entry, labels, first, later=later, about=about())
    assert journal.flush(10)
    assert_array_equal(read(tmp_path / "kept"), labels)


def test_full_disk_is_told_once_and_written_once_there_is_room(
    open_journal: Callable[..., Journal], tmp_path: Path, told: list[str], rng: np.random.Generator
) -> None:
    """The system refuses files of more than a few bytes, as a full disk does."""
    journal, entry, labels = open_journal(), Entry(), painted(rng)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        for value in range(5):
            labels[1, 3, 3] = value
            journal.mark(entry, labels, whole(labels), about=about())
            assert not journal.flush(10)
        eventually(lambda: told)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    eventually(lambda: list((tmp_path / "kept").glob("*/*/about.json")))
    assert journal.flush(10)
    assert_array_equal(read(tmp_path / "kept"), labels)
    assert len(told) == 1
    assert "cannot be kept" in told[0]
    assert str(tmp_path / "kept") in told[0]


def test_folder_that_cannot_be_made_is_told_once(
    open_journal: Callable[..., Journal], tmp_path: Path, told: list[str], rng: np.random.Generator
) -> None:
    (tmp_path / "file").write_text("in the way")
    journal, entry, labels = open_journal(tmp_path / "file" / "kept"), Entry(), painted(rng)
    for _ in range(4):
        journal.mark(entry, labels, whole(labels), about=about())
        assert not journal.flush(10)
    journal.close()
    assert len(told) == 1


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder in which nothing can be written, not even by root."""
    folder = tmp_path / "read only"
    folder.mkdir(mode=0o500)
    if os.geteuid() != 0:
        yield folder
        return
    mount = ["mount", "-t", "tmpfs", "-o", "ro,size=64k", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("root may not mount here, and nothing else is read-only for root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_read_only_folder_is_told_once(
    open_journal: Callable[..., Journal], read_only: Path, told: list[str], rng: np.random.Generator
) -> None:
    journal, entry, labels = open_journal(read_only), Entry(), painted(rng)
    for _ in range(4):
        journal.mark(entry, labels, whole(labels), about=about())
        assert not journal.flush(10)
    journal.close()
    assert len(told) == 1


def test_what_is_discarded_is_gone_and_painting_on_begins_anew(
    open_journal: Callable[..., Journal], tmp_path: Path, rng: np.random.Generator
) -> None:
    journal, entry, labels = open_journal(), Entry(), painted(rng)
    journal.mark(entry, labels, whole(labels), about=about())
    assert journal.flush(10)
    journal.discard(entry)
    assert journal.flush(10)
    assert not list((tmp_path / "kept").glob("*/*/"))
    journal.mark(entry, labels, whole(labels), about=about())
    assert journal.flush(10)
    assert_array_equal(read(tmp_path / "kept"), labels)


def test_sessions_are_found_once_their_owner_has_ended(
    open_journal: Callable[..., Journal], tmp_path: Path, rng: np.random.Generator
) -> None:
    root = tmp_path / "kept"
    assert list(dead_sessions(root)) == []
    journal, entry, labels = open_journal(quiet=60, longest=60), Entry(), painted(rng)
    journal.mark(entry, labels, whole(labels), about=about())
    assert journal.flush(10)
    assert list(dead_sessions(root)) == []
    labels[1, 0, 0] = 88
    journal.mark(entry, labels, [Tile((1,), 0, 0)])
    journal.close()  # what is left is written
    (session,) = dead_sessions(root)
    assert list(dead_sessions(root)) == []  # it is the first one's
    assert_array_equal(read(root), labels)
    session.release()
    (session,) = dead_sessions(root)
    (folder,) = session.entries()
    folder.remove()
    session.release()
    assert list(root.iterdir()) == []


def test_each_of_many_napari_at_once_gets_what_no_other_gets(tmp_path: Path) -> None:
    root = tmp_path / "kept"
    for _ in range(12):
        session = KeptSession.new(root)
        assert session.lock()
        session.folder().write_about(about(), {})
        session.release()
    script = (
        "import sys; from pathlib import Path; from napari_clsclip._unsaved_files import *\n"
        "found = list(dead_sessions(Path(sys.argv[1])))\n"
        "print(*[s.path.name for s in found], flush=True); sys.stdin.read()"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(root)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(3)
    ]  # fmt: skip
    try:
        found = [process.stdout.readline().split() for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert sorted(name for names in found for name in names) == sorted(
        path.name for path in root.iterdir()
    )
    assert len(list(dead_sessions(root))) == 12  # the killed ones have let go


def test_normal_end_of_the_process_writes_what_is_left(tmp_path: Path) -> None:
    (tmp_path / "about.json").write_text(about((40, 50)).model_dump_json())
    script = (
        "import sys, numpy as np; from pathlib import Path\n"
        "from napari_clsclip._kept import Kept\n"
        "from napari_clsclip._unsaved_files import Tile\n"
        "from napari_clsclip._unsaved_journal import Entry, Journal\n"
        "kept = Kept.model_validate_json(Path(sys.argv[1], 'about.json').read_bytes())\n"
        "journal = Journal(Path(sys.argv[1], 'kept'), print)\n"
        "labels = np.full((40, 50), 3, np.uint16)\n"
        "journal.mark(Entry(), labels, [Tile((), 0, 0)], about=kept)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=60)
    assert_array_equal(read(tmp_path / "kept"), np.full((40, 50), 3))


def test_marking_does_not_wait_for_the_disk(
    open_journal: Callable[..., Journal], tmp_path: Path, rng: np.random.Generator
) -> None:
    journal, labels, released = open_journal(quiet=0.0), painted(rng), threading.Event()
    entry = Entry(fingerprint=lambda: str(released.wait(20)))
    journal.mark(entry, labels, whole(labels), about=about())
    eventually(lambda: list((tmp_path / "kept").glob("*/*/*.npz")))
    journal.mark(entry, labels, whole(labels), about=about())  # while the thread is held up
    released.set()
    assert journal.flush(10)


def test_fingerprint_tells_images_apart(rng: np.random.Generator) -> None:
    image = rng.integers(0, 255, (4, 300, 400), dtype=np.uint8)
    index = (2, None, None)
    first = fingerprint(image, index)
    assert fingerprint(image.copy(), index) == first
    other = image.copy()
    other[2] += 1
    assert fingerprint(other, index) != first
    assert fingerprint(image.astype(np.uint16), index) != first
    assert fingerprint(image[:, :, :-1], index) != first
    elsewhere = image.copy()
    elsewhere[0] += 1  # only the plane is looked at: a lazy image computes nothing else
    assert fingerprint(elsewhere, index) == first
