"""Labelling folders: difficult files, interruptions, accepted labels, formats."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tifffile import imread, imwrite

from clsclip.batch.unfinished import Journal
from clsclip.cli.label import main

LABELLED = {
    "one pixel", "sixteen bits", "pages", "größe 2/ein Bild mit Umlauten äöü", "good",
}  # fmt: skip


@pytest.fixture
def few(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A folder of images of several sizes."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name, side in zip("abcdef", (40, 30, 64, 40, 50, 33), strict=True):
        pixels = rng.integers(0, 255, (side, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def options(tiny_model: Path) -> list[str]:
    return ["--words", "nucleus, cell", "--model", str(tiny_model), "--threshold", "0.4"]


def rows(output: Path) -> list[dict[str, str]]:
    with (output / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def without_seconds(output: Path) -> list[dict[str, str]]:
    return [{head: cell for head, cell in row.items() if head != "seconds"} for row in rows(output)]


def contents(output: Path) -> dict[str, bytes]:
    """All files but those that tell times or belong to one folder."""
    own = {"manifest.csv", ".labelling.lock", ".finished.json"}
    return {
        str(file.relative_to(output)): file.read_bytes()
        for file in sorted(output.rglob("*"))
        if file.is_file() and file.name not in own
    }


def unreadable(file: Path) -> None:
    """Make a file that this user cannot read; root can read any, but not all of that one."""
    if os.geteuid() == 0:
        file.symlink_to("/proc/self/mem")
    else:
        file.touch(mode=0)


@pytest.mark.skipif(sys.platform != "linux", reason="links, rights and names as Linux has them")
# Pillow does not close a file that can be opened but not read
@pytest.mark.filterwarnings("ignore:Exception ignored in.*:pytest.PytestUnraisableExceptionWarning")
def test_a_difficult_folder(
    tmp_path: Path, options: list[str], rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, output = tmp_path / "in", tmp_path / "in" / "out"
    (folder / "größe 2").mkdir(parents=True)
    good = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(good).save(folder / "good.png")
    Image.fromarray(good).save(folder / "größe 2" / "ein Bild mit Umlauten äöü.PNG")
    (folder / "cut.png").write_bytes((folder / "good.png").read_bytes()[:3000])
    (folder / "text.tif").write_text("no TIFF")
    imwrite(folder / "one pixel.tif", np.array([[7]], np.uint8))
    deep = rng.integers(0, 60000, (30, 40, 3), dtype=np.uint16)
    imwrite(folder / "sixteen bits.tif", deep, photometric="rgb")
    pages = rng.integers(0, 255, (100, 12, 16), dtype=np.uint8)
    imwrite(folder / "pages.tif", pages, photometric="minisblack")
    (folder / "größe 2" / "up").symlink_to(folder)
    (folder / "itself.png").symlink_to(folder / "itself.png")
    unreadable(folder / "locked.png")
    arguments = [str(folder), "--recursive", *options, "--output", str(output)]
    assert main([*arguments, "--format", "coco"]) == 1
    became = {Path(row["file"]).stem: row for row in rows(output)}
    failed = {name: row["error"] for name, row in became.items() if row["status"] == "failed"}
    assert set(failed) == {"cut", "text", "itself", "locked"}
    assert "truncated" in failed["cut"]
    assert "not a TIFF file" in failed["text"]
    assert "symbolic links" in failed["itself"]
    assert all("cannot be read as an image (" in error for error in failed.values())
    assert len(became) == len(rows(output)) == 9
    written = {str(file.relative_to(output).with_suffix("")) for file in output.rglob("*.tif")}
    assert written == LABELLED
    assert imread(output / "one pixel.tif").shape == (1, 1)
    assert imread(output / "sixteen bits.tif").shape == (30, 40)
    planes = imread(output / "pages.tif")
    assert planes.shape == pages.shape
    imwrite(tmp_path / "page.tif", pages[42])
    assert main([str(tmp_path / "page.tif"), *options, "--output", str(tmp_path / "single")]) == 0
    np.testing.assert_array_equal(planes[42], imread(tmp_path / "single" / "page.tif"))
    same = output / "größe 2" / "ein Bild mit Umlauten äöü.tif"
    np.testing.assert_array_equal(imread(same), imread(output / "good.tif"))
    assert 0 < float(became["good"]["score"]) < 1
    coco = json.loads((output / "coco.json").read_text())
    assert len(coco["images"]) == 4 + 100
    assert "5 of 9 images labelled" in capsys.readouterr().out
    # again: what failed is tried again, the rest kept
    before = (output / "good.tif").stat().st_mtime_ns
    (folder / "cut.png").write_bytes((folder / "good.png").read_bytes())
    assert main([*arguments, "--resume", "--format", "coco"]) == 1
    assert "6 of 9 images labelled" in (told := capsys.readouterr().out)
    assert "(5 of them before)" in told
    assert (output / "good.tif").stat().st_mtime_ns == before
    assert [Path(row["file"]) for row in rows(output)] == sorted(
        Path(row["file"]) for row in rows(output)
    )


def test_single_objects_of_a_stack_have_ids_of_their_own(
    tmp_path: Path, options: list[str], rng: np.random.Generator
) -> None:
    imwrite(
        tmp_path / "stack.tif", rng.integers(0, 255, (3, 40, 50), dtype=np.uint8),
        photometric="minisblack",
    )  # fmt: skip
    output = tmp_path / "out"
    arguments = [str(tmp_path / "stack.tif"), *options, "--output", str(output), "--instances"]
    assert main([*arguments, "--min-area", "4", "--min-certainty", "0", "--format", "yolo"]) == 0
    planes = imread(output / "stack.tif")
    with (output / "stack.features.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [int(row["label"]) for row in table] == list(range(1, planes.max() + 1))
    assert {int(row["plane"]) for row in table} == {0, 1, 2}
    for row in table:
        where = np.nonzero(planes == int(row["label"]))[0]
        assert set(where) == {int(row["plane"])}
        assert len(where) == int(float(row["area"]))
    assert int(rows(output)[0]["objects"]) == len(table) > 3
    assert len(list((output / "yolo").rglob("stack_plane*.txt"))) == 3


@pytest.mark.slow
def test_killed_and_gone_on_with_it_is_as_if_nothing_had_been(
    few: Path, tmp_path: Path, options: list[str]
) -> None:
    (few / "bad.png").write_text("no image")
    arguments = [str(few), *options, "--instances", "--min-certainty", "0"]
    arguments += ["--format", "tiff,png,coco,yolo,voc", "--output"]
    output, undisturbed = tmp_path / "out", tmp_path / "undisturbed"
    assert main([*arguments, str(undisturbed)]) == 1
    process = subprocess.Popen(
        [sys.executable, "-m", "clsclip.cli.label", *arguments, str(output)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    manifest = output / "manifest.csv"
    deadline = time.monotonic() + 120
    while not (manifest.exists() and manifest.read_bytes().count(b",done,") >= 2):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.kill()
    assert process.wait(30) == -signal.SIGKILL
    assert (output / ".unfinished.json").exists()
    manifest.write_bytes(manifest.read_bytes() + b"half a ro")
    (output / "f.tif").write_bytes(b"half a file of an earlier version")
    kept = {row["file"]: row for row in rows(output) if row["status"] == "done"}
    assert 2 <= len(kept) < 7
    assert main([*arguments, str(output)]) == 1
    assert contents(output) == contents(undisturbed)
    assert "coco.json" in contents(output)
    assert without_seconds(output) == without_seconds(undisturbed)
    assert [row for row in rows(output) if row["file"] in kept] == list(kept.values())


def test_fail_fast_stops_and_the_same_command_goes_on(
    few: Path, tmp_path: Path, options: list[str]
) -> None:
    image = (few / "c.png").read_bytes()
    (few / "c.png").write_text("no image")
    output = tmp_path / "out"
    arguments = [str(few), *options, "--output", str(output), "--fail-fast"]
    assert main(arguments) == 1
    assert [row["status"] for row in rows(output)] == ["done", "done", "failed"]
    (few / "c.png").write_bytes(image)
    assert main(arguments) == 0
    assert [row["status"] for row in rows(output)] == ["done"] * 6
    assert [Path(row["file"]).stem for row in rows(output)] == list("abcdef")


def test_accepted_labels_are_left_alone(
    few: Path, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    arguments = [str(few), *options, "--output", str(output)]
    assert main([*arguments, "--format", "png"]) == 0
    imwrite(output / "b.tif", np.full((30, 50), 2, np.uint16))
    corrected, row = (output / "b.tif").read_bytes(), rows(output)[1]
    exported = (output / "png" / "b.png").read_bytes()
    journal = Journal(output / ".reviews.jsonl")
    for key, accepted in (("a", True), ("b", True), ("a", False)):
        journal.add({"key": key, "accepted": accepted, "corrected": key == "b", "time": 1.0})
    before = (output / "a.tif").stat().st_mtime_ns
    assert main([*arguments, "--words", "cell", "--overwrite"]) == 2
    assert "accepted 1 images" in capsys.readouterr().err
    others = [*arguments, "--threshold", "0.45", "--format", "png,yolo,coco", "--overwrite"]
    assert main(others) == 0
    assert "6 of 6 images labelled" in (told := capsys.readouterr().out)
    assert "(1 of them before, 1 accepted)" in told
    assert (output / "b.tif").read_bytes() == corrected
    assert (output / "png" / "b.png").read_bytes() == exported
    assert rows(output)[1] == row
    assert (output / "a.tif").stat().st_mtime_ns != before  # no longer accepted
    assert len((output / "yolo" / "labels" / "b.txt").read_text().splitlines()) == 1
    listed = json.loads((output / "coco.json").read_text())
    assert {each["file_name"] for each in listed["images"]} == {f"{k}.png" for k in "abcdef"}


def test_labels_that_are_accepted_meanwhile_stay(
    few: Path, tmp_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    arguments = [str(few), *options, "--output", str(output)]
    assert main(arguments) == 0
    (output / "f.tif").write_bytes(corrected := b"corrected")
    from clsclip.batch.manifest import Manifest, ManifestRow

    append = Manifest.append

    def accept(self: Manifest, row: ManifestRow) -> None:
        append(self, row)
        Journal(output / ".reviews.jsonl").add({"key": "f", "accepted": True})

    monkeypatch.setattr(Manifest, "append", accept)
    assert main([*arguments, "--overwrite"]) == 0
    assert (output / "f.tif").read_bytes() == corrected


def test_formats_can_be_added_later_and_other_settings_are_refused(
    few: Path, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    output, at_once = tmp_path / "out", tmp_path / "at once"
    arguments = [str(few), *options, "--output"]
    assert main([*arguments, str(output)]) == 0
    assert main([*arguments, str(output), "--format", "png, voc"]) == 0
    assert "(6 of them before)" in capsys.readouterr().out
    assert main([*arguments, str(at_once), "--format", "voc,png"]) == 0
    assert contents(output) == contents(at_once)
    assert main([*arguments, str(output), "--zoom", "1"]) == 2
    assert "zoom: None, now 1.0" in capsys.readouterr().err
    assert main([str(few / "a.png"), *options, "--output", str(output)]) == 2
    assert "inputs" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, str(output), "--format", "png,gif"])
    assert "'gif' is not a format; there are tiff, png" in capsys.readouterr().err


def test_an_image_that_does_not_fit_an_added_format_fails_alone(
    few: Path, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    arguments = [str(few), *options, "--output", str(output)]
    assert main(arguments) == 0
    good = (output / "c.tif").read_bytes()
    for key in "bc":
        imwrite(output / f"{key}.tif", np.full((30, 50), 7, np.uint16))  # there are two words
    Journal(output / ".reviews.jsonl").add({"key": "c", "accepted": True})
    assert main([*arguments, "--format", "png,coco", "--fail-fast"]) == 1
    assert not (output / "coco.json").exists()
    assert main([*arguments, "--format", "png,coco"]) == 1
    assert "5 of 6 images labelled" in (told := capsys.readouterr().out)
    assert "7 of 6" not in told
    failed = {Path(row["file"]).stem: row["error"] for row in rows(output) if row["error"]}
    assert list(failed) == ["c"]  # b was labelled anew, what a person accepted is left alone
    assert "7" in failed["c"]
    assert {file.stem for file in (output / "png").iterdir()} == set("abdef")
    assert len(json.loads((output / "coco.json").read_text())["images"]) == 5
    assert main(arguments) == 1  # these are no class ids, whatever the format
    (output / "c.tif").write_bytes(good)
    assert main([*arguments, "--format", "png,coco"]) == 0
    assert [row["status"] for row in rows(output)] == ["done"] * 6
    assert (output / "png" / "c.png").exists()
    assert len(json.loads((output / "coco.json").read_text())["images"]) == 6
