"""The manifest of an output folder: what it keeps, and what it survives."""

from __future__ import annotations

from pathlib import Path

import pytest

from clsclip.batch.followed_manifest import FollowedManifest
from clsclip.batch.manifest import HEADS, Manifest, ManifestRow
from clsclip.errors import FileError

ROWS = (
    ManifestRow(Path("a.png"), "done", 0.25, objects=3, regions="Tiles.", score=0.8125),
    ManifestRow(Path('ünder, "score"\n.tif'), "failed", 1.0, error="It is damaged."),
    ManifestRow(Path("c\udce4.png"), "done", 2.0),
)


def test_rows_come_back_as_they_were_in_their_order(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    assert manifest.read() == {}
    manifest.write(ROWS[:1])
    for row in ROWS[1:]:
        manifest.append(row)
    assert list(manifest.read().values()) == list(ROWS)
    assert (tmp_path / "manifest.csv").read_bytes().startswith(",".join(HEADS).encode())
    again = ManifestRow(Path("a.png"), "failed", 0.0, error="two\n lines")
    manifest.append(again)
    assert [row.file for row in manifest.read().values()] == [
        *(r.file for r in ROWS[1:]),
        again.file,
    ]
    assert manifest.read()[again.file].error == "two lines"


def test_wherever_it_was_cut_off_whole_rows_are_read(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    manifest.write(ROWS)
    whole = manifest.file.read_bytes()
    ends = [0]
    for row in ROWS:
        other = Manifest(tmp_path / "other")
        other.file.parent.mkdir(exist_ok=True)
        other.write(ROWS[: ROWS.index(row) + 1])
        ends.append(other.file.stat().st_size)
    for size in range(len(whole) + 1):
        manifest.file.write_bytes(whole[:size])
        complete = sum(end <= size for end in ends) - 1
        assert list(manifest.read().values()) == list(ROWS[:complete]), size


def test_manifests_without_scores_are_read_and_foreign_ones_refused(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    old = "file,status,seconds,error,objects,regions\r\na.png,done,0.5,,7,\r\n"
    manifest.file.write_text(old)
    assert list(manifest.read().values()) == [ManifestRow(Path("a.png"), "done", 0.5, objects=7)]
    for text in (
        "name,size\r\na.png,7\r\n",
        old + "b.png,perhaps,0.5,,,\r\n",
        old + "b.png\r\n" * 2,
    ):
        manifest.file.write_text(text)
        with pytest.raises(FileError, match=r"not a manifest of this version .*'Overwrite'"):
            manifest.read()


def test_a_followed_manifest_reads_what_was_added(tmp_path: Path) -> None:
    manifest, followed = Manifest(tmp_path), FollowedManifest(tmp_path)
    assert followed.rows() == {}
    paths = [Path(f'/data/a "{k}",\n.png') for k in range(4)]
    rows = [ManifestRow(path, "done", 1.0, score=0.5) for path in paths]
    manifest.write(rows[:1])
    first = followed.rows()
    assert list(first) == [str(paths[0])]
    assert followed.rows() is first
    manifest.append(rows[1])
    manifest.append(ManifestRow(paths[0], "failed", 2.0, "no"))
    assert list(followed.rows()) == [str(paths[1]), str(paths[0])]
    assert followed.rows()[str(paths[0])].error == "no"
    assert list(first) == [str(paths[0])]  # as it was
    whole = manifest.file.read_bytes()
    manifest.append(rows[2])
    added = manifest.file.read_bytes()[len(whole) :]
    for cut in range(len(added)):  # half written
        manifest.file.write_bytes(whole + added[:cut])
        assert len(followed.rows()) == 2
    manifest.file.write_bytes(whole + added)
    assert list(followed.rows()) == [str(paths[k]) for k in (1, 0, 2)]
    manifest.write(rows[2:])  # another one, longer or not
    assert list(followed.rows()) == [str(path) for path in paths[2:]]
    manifest.file.write_bytes(manifest.file.read_bytes().replace(b"done", b"lost"))
    with pytest.raises(FileError, match="lost"):
        followed.rows()
    manifest.file.unlink()
    assert followed.rows() == {}
