"""Learning from the annotation store: what is read, which images are held out, what is repeated."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clsclip.cli.train import main
from clsclip.errors import ClsClipError, FileError, NotFoundError
from clsclip.model.config import read_config
from clsclip.store.schema import without_password
from clsclip.store.store import DATABASE_VARIABLE, AnnotationStore, database_url
from clsclip.training.accepted import read_accepted
from clsclip.training.corrections import Correction as Learnt
from clsclip.training.holdout import held_for_good
from clsclip.training.lessons import Lessons
from clsclip.training.taught import Material, Taught, read_earlier
from clsclip.wire_annotations import Annotation, Correction, Details

SHAPE = (64, 80)


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with AnnotationStore(tmp_path / "store") as opened:
        yield opened


def plane(index: int) -> tuple[np.ndarray, np.ndarray]:
    """A noisy 16-bit image with a bright disk, and the disk."""
    disk = np.hypot(*(np.indices(SHAPE) - np.array([20 + 4 * (index % 8), 30])[:, None, None])) < 12
    image = np.random.default_rng(index).integers(0, 6000, SHAPE).astype(np.uint16)
    image[disk] += 18000
    return image, disk


def accept(
    store: AnnotationStore, index: int, *words: str, shown: int = 1, replaces: str = "",
    vouched: np.ndarray | None = None,
) -> Annotation:  # fmt: skip
    """An annotation of some words (by default "blob"), of which word ``shown`` is the disk."""
    image, disk = plane(index)
    labels = disk.astype(np.uint8) * shown
    details = Details(contrast_limits=(0, 24000), source=f"plane {index}")
    correction = Correction(image, labels, words or ("blob",), vouched, details)
    return store.add(correction, replaces=replaces)


def silent(_: str) -> None:
    pass


def names(corrections: tuple[Learnt, ...]) -> set[str]:
    return {correction.name for correction in corrections}


# ---- reading ----


def test_latest_versions_as_they_were_shown_and_vouched_for(store: AnnotationStore) -> None:
    vouched = np.ones(SHAPE, bool)
    vouched[22:] = False
    first = accept(store, 0)
    other = accept(store, 1, "Rosettes", "BLOB", shown=2)
    absent = accept(store, 2, "rim", "blob", shown=1)
    unasked = accept(store, 3, "rim")
    latest = accept(store, 0, replaces=first.id, vouched=vouched)
    read = read_accepted(store, ["blob"], silent).corrections
    assert [each.name for each in read] == [
        a.image_sha256 for a in (latest, other, absent)
    ]  # in the order of joining, whatever was corrected since
    assert unasked.image_sha256 not in names(read)
    assert [each.shows for each in read] == [{"blob"}, {"blob"}, frozenset()]
    image, disk = plane(0)
    example = read[0].example
    assert example.ignore is not None
    np.testing.assert_array_equal(example.ignore, ~vouched)
    np.testing.assert_array_equal(example.masks["blob"], disk & vouched)
    expected = np.round(np.clip(image / 24000, 0, 1) * 255)
    assert np.abs(example.image[..., 0] - expected).max() <= 1
    np.testing.assert_array_equal(read[1].example.masks["blob"], plane(1)[1])
    assert not read[2].example.masks["blob"].any()  # its absence was accepted


def test_a_word_is_asked_only_where_the_person_was(
    store: AnnotationStore, rng: np.random.Generator
) -> None:
    accept(store, 0)
    accept(store, 1, "rim")
    accept(store, 2, "blob", "rim")
    words = ("blob", "rim")
    read = read_accepted(store, words, silent).corrections
    assert [each.asked(words) for each in read] == [("blob",), ("rim",), words]
    lessons = Lessons(read, words, 64, rng)
    asked = [{lessons.word(index) for _ in range(40)} for index in range(3)]
    assert asked == [{"blob"}, {"rim"}, {"blob", "rim"}]


def test_views_show_pixels_that_somebody_vouches_for(
    store: AnnotationStore, rng: np.random.Generator
) -> None:
    vouched = np.zeros(SHAPE, bool)
    vouched[:6, :6] = True
    accept(store, 0)
    accept(store, 1, vouched=vouched)
    read = read_accepted(store, ["blob"], silent).corrections
    lessons = Lessons(read[1:], ("blob",), 64, rng)
    views = [lessons.view(0, "blob", 16) for _ in range(20)]
    assert all(bool(view.valid().any()) for view in views)


def test_a_damaged_annotation_leaves_the_others(store: AnnotationStore) -> None:
    good, bad = accept(store, 0), accept(store, 1)
    file = store.folder / "arrays" / bad.labels_sha256[:2] / f"{bad.labels_sha256[2:]}.tif"
    file.write_bytes(b"damaged")
    told: list[str] = []
    accepted = read_accepted(store, ["blob"], told.append)
    assert names(accepted.corrections) == {good.image_sha256}
    assert list(accepted.images) == [good.image_sha256, bad.image_sha256]
    assert len(told) == 1
    assert bad.id in told[0]
    assert "SHA-256" in told[0]
    file = store.folder / "arrays" / good.image_sha256[:2] / f"{good.image_sha256[2:]}.tif"
    file.unlink()
    with pytest.raises(FileError, match=r"shows a pixel of 'blob'.*2 annotations cannot be read"):
        read_accepted(store, ["blob"], silent)


def test_old_annotations_are_left_out_where_memory_is_short(
    store: AnnotationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = [accept(store, index) for index in range(4)]
    each = SHAPE[0] * SHAPE[1] * 5

    class Memory:
        available = 2.5 * each / 0.3

    monkeypatch.setattr("psutil.virtual_memory", Memory)
    told: list[str] = []
    accepted = read_accepted(store, ["blob"], told.append)
    assert names(accepted.corrections) == {a.image_sha256 for a in added[2:]}
    assert len(accepted.images) == 4
    assert told == ["The 2 oldest annotations are left out: memory is short."]


@pytest.mark.parametrize(
    ("words", "message"),
    [("blob", "is empty.*import"), ("rim", "was asked for 'rim', only for blob.*accept some")],
)
def test_nothing_to_learn_from(store: AnnotationStore, words: str, message: str) -> None:
    if words == "rim":
        accept(store, 0)
    with pytest.raises(NotFoundError, match=message):
        read_accepted(store, [words], silent)


def test_only_absent(store: AnnotationStore) -> None:
    accept(store, 0, "rim", "blob")
    with pytest.raises(FileError, match=r"shows a pixel of 'blob'\. Paint"):
        read_accepted(store, ["blob"], silent)


# ---- held-out images ----


def images(*shown: str) -> dict[str, frozenset[str]]:
    return {f"image {n}": frozenset(each.split()) for n, each in enumerate(shown)}


@pytest.mark.parametrize("seed", range(6))
def test_sides_never_change_when_others_join(seed: int) -> None:
    everything = images(*["blob", "blob rim", "", "rim"] * 20)
    sides = [
        held_for_good(dict(list(everything.items())[:count]), 0.2, seed) for count in range(81)
    ]
    for count, (before, after) in enumerate(itertools.pairwise(sides)):
        assert before <= after <= before | {f"image {count}"}
    assert sides[2] == frozenset()
    assert len(sides[5]) >= 1
    assert 4 <= len(sides[80]) <= 24
    assert all(everything[name] for name in sides[80])
    assert held_for_good(everything, 0.0, seed) == frozenset()
    some = {name: shows for name, shows in everything.items() if "blob" in shows}
    moved = (sides[80] & some.keys()) ^ held_for_good(some, 0.2, seed)
    assert len(moved) <= 3  # nor, as a rule, when other words are learnt


def test_one_image_of_every_word_stays_to_learn_from() -> None:
    everything = images("blob", "blob", "rim", "blob", "rim", "rim")
    held = held_for_good(everything, 0.9, 0)
    assert "image 2" not in held
    assert held


def test_all_annotations_of_one_image_are_on_one_side(store: AnnotationStore) -> None:
    for index in (0, 1, 2, 3, 2):
        accept(store, index, *(("blob",) if len(store) < 4 else ("rim", "blob")), shown=1)
    accepted = read_accepted(store, ["blob"], silent)
    learnt, held = Material(("blob",), accepted.corrections, accepted.images).split(0.2, 0)
    assert names(learnt).isdisjoint(names(held))
    assert len(learnt) + len(held) == 5
    assert len(held) >= 1


def test_a_word_whose_learnt_images_are_damaged(store: AnnotationStore) -> None:
    added = [accept(store, index) for index in range(3)]
    for each in added[:2]:
        (store.folder / "arrays" / each.image_sha256[:2] / f"{each.image_sha256[2:]}.tif").unlink()
    accepted = read_accepted(store, ["blob"], silent)
    with pytest.raises(FileError, match="all held out"):
        Material(("blob",), accepted.corrections, accepted.images).split(0.2, 0)


# ---- lessons that are remembered ----


def test_earlier_lessons_of_the_learnt_words_are_repeated(
    store: AnnotationStore, tmp_path: Path
) -> None:
    accept(store, 0, "blob", "rim")
    accept(store, 1, "rim")
    folder = str(store.folder.absolute())
    elsewhere = Taught(word="rim", store=str(tmp_path / "other"))
    earlier = [
        Taught(word="blob,rim", store=folder), Taught(word="blob", store=folder),
        Taught(word="nothing", store=folder), Taught(word="disk", images="gone", labels="gone"),
    ]  # fmt: skip
    told: list[str] = []
    found = read_earlier(earlier, elsewhere, ("rim",), told.append)
    assert [list(correction.example.masks) for correction in found] == [["rim"], ["rim"]]
    for word, line in zip(("nothing", "disk"), told, strict=True):
        assert f"'{word}' cannot be repeated" in line
    here = Taught(word="rim", store=folder)  # which reads all of them anyway
    assert read_earlier(earlier[:3], here, ("rim",), told.append) == ()
    assert len(told) == 2


def test_a_password_is_in_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql+psycopg://me:secret@host/name"
    assert without_password(url) == "postgresql+psycopg://me@host/name"
    assert without_password("") == ""
    monkeypatch.setenv(DATABASE_VARIABLE, url)
    assert database_url() == url
    assert database_url("sqlite://") == "sqlite://"


# ---- the command ----


@pytest.fixture
def command(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    for name in ("PROBES", "QUESTIONS"):
        monkeypatch.setattr(f"clsclip.training.holdout.{name}", 1)
    return [
        "finetune", "--store", str(tmp_path / "store"), "--model", str(tiny_model), "--output",
        str(tmp_path / "run"), "--device", "cpu", "--epochs", "0.5", "--words",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_model_learns_from_the_store(
    store: AnnotationStore, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = [accept(store, index, "blob", "Rim") for index in range(4)]
    assert main([*command, "Blob"]) == 0
    run = tmp_path / "run"
    report = json.loads((run / "report.json").read_text())
    assert report["words"] == ["Blob"]
    assert report["learnt_from"] + len(report["held_out"]) == 4
    assert set(report["held_out"]) <= {each.image_sha256 for each in added}
    first = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    assert (first["step"], first["images"]) == (0, 4)
    assert first["miou"] == report["before"]["miou"]
    (lesson,) = read_config(run).training["taught"]
    assert (lesson["word"], lesson["store"]) == ("blob", str(store.folder))
    assert main([*command, "Blob", "--resume"]) == 0

    accept(store, 5, "rim")
    monkeypatch.setenv("NAPARI_CLSCLIP_STORE", str(store.folder))
    again = [*command, "rim", "--model", str(run), "--output", str(tmp_path / "next")]
    again[1:3] = ["--store"]  # without a folder: where it always is
    assert main(again) == 0
    assert read_config(tmp_path / "next").word_heads == (("blob",), ("rim",))


@pytest.mark.parametrize(
    ("words", "more", "message", "code"),
    [
        ("", (), "--words WORD", 2),
        ("blob", ("--images", "somewhere"), "Give one or the other", 2),
        ("blob", (), "is empty", 1),
    ],
)
def test_what_cannot_be_learnt(
    store: AnnotationStore, command: list[str], capsys: pytest.CaptureFixture[str], words: str,
    more: tuple[str, ...], message: str, code: int,
) -> None:  # fmt: skip
    assert main([*command, words, *more]) == code
    assert message in capsys.readouterr().err


def test_errors_are_ours(store: AnnotationStore) -> None:
    reads: list[Callable[[], object]] = [
        lambda: Taught(word="blob", store=str(store.folder / "nowhere")).read(silent),
        lambda: Taught(word=" ,", store=str(store.folder)).read(silent),
    ]
    for read in reads:
        with pytest.raises(ClsClipError):
            read()
