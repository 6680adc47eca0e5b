"""Accepting labels of an output folder: as they are, corrected, and killed in between."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clsclip.batch.corrected_objects import classes_after
from clsclip.batch.exports import exporter, read_labelled_output
from clsclip.batch.files import features_file, label_file, read_labels, write_features, write_labels
from clsclip.batch.manifest import Manifest, ManifestRow
from clsclip.batch.reviews import DRAFT_FOLDER, Reviews
from clsclip.errors import BusyError, ConflictError, FileError, InvalidImageError
from clsclip.instance_features import instance_features

WORDS = ("cell", "rim")
IMAGE = Path("/data/plate/a b.png")
KEY = "plate/a b"


def squares(*places: tuple[int, int, int]) -> np.ndarray:
    """Squares of 4 x 4 pixels: (row, column, id)."""
    labels = np.zeros((20, 30), np.uint16)
    for row, column, number in places:
        labels[row : row + 4, column : column + 4] = number
    return labels


OBJECTS = squares((1, 1, 1), (1, 10, 2), (12, 20, 3))
CLASSES = squares((1, 1, 1), (1, 10, 1), (12, 20, 2))


def label(output: Path, labels: np.ndarray, classes: tuple[int, ...] = ()) -> None:
    """Make an output folder as labelling leaves it, with PNG, too; classes for single objects."""
    target = label_file(output, KEY)
    target.parent.mkdir(parents=True, exist_ok=True)
    if classes:
        features = instance_features(labels, np.where(labels > 0, 0.75, 0.0))
        words = np.array([WORDS[number - 1] for number in classes])
        write_features(features_file(target), {"label": features["label"], "class": words,
                                               **features})  # fmt: skip
    write_labels(target, labels, (0.5, 0.25))
    exporter("png", output, WORDS).write(read_labelled_output(output, IMAGE, KEY, WORDS))
    Manifest(output).write([ManifestRow(IMAGE, "done", 1.0, score=0.5)])


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "labels"
    label(folder, OBJECTS, (1, 1, 2))
    return folder


def accept(output: Path, labels: np.ndarray | None = None) -> None:
    Reviews(output).accept(IMAGE, KEY, labels, words=WORDS, formats=("tiff", "png"))


def rows(output: Path) -> dict[int, dict[str, str]]:
    with features_file(label_file(output, KEY)).open(newline="") as stream:
        return {int(row["label"]): row for row in csv.DictReader(stream)}


def content(output: Path) -> dict[str, bytes]:
    """Every file but those of the reviews themselves."""
    return {
        str(file.relative_to(output)): file.read_bytes()
        for file in sorted(output.rglob("*"))
        if file.is_file() and not file.relative_to(output).parts[0].startswith(".")
    }


def test_as_it_is_and_withdrawn(output: Path) -> None:
    reviews, before = Reviews(output), content(output)
    assert reviews.accepted() == {}
    accept(output)
    found = reviews.accepted()[KEY]
    assert (found.accepted, found.corrected) == (True, False)
    assert content(output) == before
    reviews.withdraw(KEY)
    assert reviews.accepted() == {}
    reviews.withdraw("nobody/knows")
    accept(output)
    lines = [json.loads(line) for line in reviews.file.read_text().splitlines()]
    assert [line["accepted"] for line in lines] == [True, False, True]
    assert set(lines[0]) == {"key", "accepted", "corrected", "time"}
    assert not reviews.exports_stale


def test_corrected_class_ids(tmp_path: Path) -> None:
    output = tmp_path / "labels"
    label(output, CLASSES)
    corrected = squares((1, 1, 2), (5, 5, 1))
    accept(output, corrected.astype(np.uint32))
    stored, size = read_labels(label_file(output, KEY))
    np.testing.assert_array_equal(stored, corrected)
    assert (stored.dtype, size) == (np.uint16, (0.5, 0.25))
    np.testing.assert_array_equal(np.asarray(Image.open(output / "png" / f"{KEY}.png")), corrected)
    assert Reviews(output).accepted()[KEY].corrected
    assert Reviews(output).exports_stale
    assert not (output / DRAFT_FOLDER).exists()
    accept(output)  # once more, as it is now
    assert Reviews(output).accepted()[KEY].corrected


def test_corrected_objects(output: Path) -> None:
    corrected = squares((1, 1, 1), (12, 19, 3), (6, 10, 9), (12, 25, 70_000 - 65_535))
    corrected[0, 0] = 4  # a new one where nothing was, near the first
    accept(output, corrected)
    stored, _ = read_labels(label_file(output, KEY))
    np.testing.assert_array_equal(stored, corrected)
    found = rows(output)
    assert {number: row["class"] for number, row in found.items()} == {
        1: "cell", 3: "rim", 4: "cell", 9: "cell", 4465: "rim",
    }  # fmt: skip
    probabilities = {number: row["mean_probability"] for number, row in found.items()}
    assert probabilities == {1: "0.75", 3: "nan", 4: "nan", 9: "nan", 4465: "nan"}
    assert (found[3]["left"], found[3]["area"]) == ("19", "16.0")
    labelled = Reviews(output).labelled(IMAGE, KEY, WORDS)
    assert labelled.classes is not None
    assert labelled.classes[4464] == 2


def test_all_objects_removed(output: Path) -> None:
    accept(output, np.zeros_like(OBJECTS))
    assert rows(output) == {}
    assert Reviews(output).labelled(IMAGE, KEY, WORDS).labels.max() == 0


def test_classes_of_new_objects() -> None:
    before, classes = OBJECTS, np.array([1, 1, 2])
    split = before.copy()
    split[12:14, 20:24] = 5
    assert classes_after(split, before, classes, 2) == {1: 1, 2: 1, 3: 2, 5: 2}
    assert classes_after(split, np.zeros_like(before), classes * 0, 2) == dict.fromkeys(
        (1, 2, 3, 5), 1
    )
    assert classes_after(split, before, np.array([1, 1, 1]), 1)[5] == 1
    mostly = squares((0, 9, 8))  # over the second, which is a cell
    mostly[13, 21] = 8  # and a pixel of the third
    assert classes_after(mostly, before, classes, 2) == {8: 1}
    stack = np.stack([before, split])
    assert classes_after(stack, np.stack([before, before]), classes, 2)[5] == 2


def test_a_stack(tmp_path: Path) -> None:
    output = tmp_path / "labels"
    label(output, np.stack([CLASSES, CLASSES]))
    corrected = np.stack([CLASSES, squares((3, 3, 2))])
    accept(output, corrected)
    np.testing.assert_array_equal(read_labels(label_file(output, KEY))[0], corrected)
    second = np.asarray(Image.open(output / "png" / f"{KEY}_plane0001.png"))
    np.testing.assert_array_equal(second, corrected[1])


def test_objects_of_a_stack(output: Path) -> None:
    later = OBJECTS + np.where(OBJECTS > 0, 3, 0).astype(np.uint16)
    target = label_file(output, KEY)
    tables = [instance_features(plane, np.full((20, 30), 0.5)) for plane in (OBJECTS, later)]
    features = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    words = np.array(["cell", "cell", "rim"] * 2)
    write_features(target.with_suffix(".features.csv"), {
        "label": features["label"], "class": words, **features,
        "plane": np.repeat([0, 1], 3),
    })  # fmt: skip
    write_labels(target, np.stack([OBJECTS, later]))
    drawn = squares((12, 19, 9))  # over the last of the second plane, and in both
    accept(output, np.stack([OBJECTS, np.where(drawn > 0, drawn, later)]))
    with features_file(target).open(newline="") as stream:
        found = [(row["plane"], row["label"], row["class"], row["mean_probability"])
                 for row in csv.DictReader(stream)]  # fmt: skip
    assert found == [
        ("0", "1", "cell", "0.5"), ("0", "2", "cell", "0.5"), ("0", "3", "rim", "0.5"),
        ("1", "4", "cell", "0.5"), ("1", "5", "cell", "0.5"), ("1", "6", "rim", "nan"),
        ("1", "9", "rim", "nan"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.zeros((20, 29), np.uint16), "shape"),
        (np.zeros((1, 20, 30), np.uint16), "shape"),
        (np.full((20, 30), 3, np.uint16), "no class"),
        (np.full((20, 30), 2**32 - 1, np.uint32), "no class"),
    ],
)
def test_labels_that_do_not_fit(tmp_path: Path, labels: np.ndarray, words: str) -> None:
    output = tmp_path / "labels"
    label(output, CLASSES)
    before = content(output)
    with pytest.raises(InvalidImageError, match=words):
        accept(output, labels)
    assert content(output) == before
    assert Reviews(output).accepted() == {}


def test_an_id_that_no_table_could_hold(output: Path) -> None:
    with pytest.raises(InvalidImageError, match="4294967295"):
        accept(output, np.full((20, 30), 2**32 - 1, np.uint32))


def test_more_ids_than_a_format_holds(output: Path) -> None:
    before = content(output)
    many = OBJECTS.astype(np.uint32)
    many[0, 0] = 2**16
    with pytest.raises(InvalidImageError, match="PNG"):
        accept(output, many)
    assert content(output) == before
    accept(output, OBJECTS)  # what was drafted is not in the way
    assert KEY in Reviews(output).accepted()


def test_what_is_not_labelled(output: Path) -> None:
    with pytest.raises(ConflictError, match="not labelled"):
        Reviews(output).accept(Path("/data/other.png"), "other", words=WORDS, formats=("tiff",))
    Manifest(output).write([ManifestRow(IMAGE, "failed", 1.0, "no")])
    with pytest.raises(ConflictError, match="not labelled"):
        accept(output, OBJECTS)


def test_a_very_large_image(tmp_path: Path) -> None:
    (tmp_path / f"{KEY}.zarr").mkdir(parents=True)
    Manifest(tmp_path).write([ManifestRow(IMAGE, "done", 1.0)])
    with pytest.raises(FileError, match="very large"):
        accept(tmp_path, OBJECTS)
    accept(tmp_path)
    assert KEY in Reviews(tmp_path).accepted()


def test_damaged_and_cut_off_journals(output: Path) -> None:
    accept(output)
    reviews = Reviews(output)
    with reviews.file.open("a") as stream:
        stream.write('{"key": "plate/a b", "acc')  # killed
    assert KEY in reviews.accepted()
    reviews.withdraw(KEY)
    assert reviews.accepted() == {}
    for line in ("{}", "[]", "nothing", '{"key": 3}'):
        reviews.file.write_text(line + "\n")
        with pytest.raises(FileError, match="damaged"):
            reviews.accepted()


def test_one_at_a_time(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clsclip.batch.reviews.LOCK_SECONDS", 0.05)
    with Reviews(output).held() as accepted:
        assert accepted == {}
        with pytest.raises(BusyError):
            accept(output)
    accept(output)
    with Reviews(output).held() as accepted:
        assert list(accepted) == [KEY]


def test_exports_about_all_images_are_renewed(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reviews, told = Reviews(output), []

    class Counting:
        """Writes nothing, and accepts once more in the middle."""

        def write(self, labelled: Any) -> None:
            pass

        def finish(self, labelled: Iterator[Any]) -> None:
            told.append([(each.key, int(each.labels.max())) for each in labelled])
            if len(told) == 1:
                accept(output, squares((0, 0, 2)))

    accept(output, squares((1, 1, 1)))
    monkeypatch.setattr("clsclip.batch.reviews.exporter", lambda *about: Counting())
    for _ in range(3):
        reviews.renew_exports({KEY: IMAGE}, words=WORDS, formats=("tiff", "png"))
    assert told == [[(KEY, 1)], [(KEY, 2)]]
    assert not reviews.exports_stale


# ---- killed ----


def killed_at(step: int, output: Path, labels: np.ndarray) -> bool:
    """Accept in a process that kills itself before its n-th change of a file; whether it did."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
        child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    left = step

    def hook(event: str, about: tuple[Any, ...]) -> None:
        nonlocal left
        writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT
        changes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
        if changes or (event == "open" and isinstance(about[2], int) and about[2] & writes):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    code = 1
    try:
        import sys

        sys.addaudithook(hook)
        accept(output, labels)
        code = 0
    finally:
        os._exit(code)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_between_any_two_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda stream: None)  # against a loss of power, and slow
    corrected = squares((1, 1, 1), (12, 18, 3), (6, 10, 4))
    label(tmp_path / "never", OBJECTS, (1, 1, 2))
    label(tmp_path / "at once", OBJECTS, (1, 1, 2))
    accept(tmp_path / "at once", corrected)
    old, new = content(tmp_path / "never"), content(tmp_path / "at once")
    assert old != new
    seen = []
    for step in range(1000):
        output = tmp_path / str(step)
        shutil.copytree(tmp_path / "never", output)
        if not killed_at(step, output, corrected):
            break
        if KEY in Reviews(output).accepted():
            assert content(output) == new
        with Reviews(output).held() as accepted:
            found = content(output)
        assert found == (new if KEY in accepted else old)
        assert not (output / DRAFT_FOLDER).exists()
        assert Reviews(output).exports_stale == (KEY in accepted)
        seen.append(KEY in accepted)
    assert content(output) == new
    assert seen == sorted(seen)  # first not, from one step on always
    assert seen.count(False) > 8
    assert seen.count(True) > 5
