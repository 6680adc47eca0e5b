"""Fine-tuning through its command: what it writes, how it ends, what it refuses."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from tifffile import imwrite

from clsclip import Predictor
from clsclip.cli.label import main as label
from clsclip.cli.train import main
from clsclip.model.config import read_config
from clsclip.model.run_state import RunState, read_state
from small_disk import mounted
from waiting import PATIENCE, eventually


@pytest.fixture(autouse=True)
def few_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model marks everything and so "knows" every word; few scenes say as much."""
    for name in ("PROBES", "QUESTIONS"):
        monkeypatch.setattr(f"clsclip.training.holdout.{name}", 1)


@pytest.fixture
def lesson(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Five images of one disk each, with their label images."""
    folder = tmp_path / "lesson"
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for index in range(5):
        centre = np.array([20 + 5 * index, 30])[:, None, None]
        disk = np.hypot(*(np.indices((64, 80)) - centre)) < 12
        picture = rng.integers(0, 60, (64, 80), dtype=np.uint8)
        picture[disk] += 180
        Image.fromarray(picture).save(folder / "images" / f"{index}.png")
        imwrite(folder / "labels" / f"{index}.tif", disk.astype(np.int32) * 7)
    return folder


@pytest.fixture
def command(lesson: Path, tiny_model: Path, tmp_path: Path) -> list[str]:
    """The command that learns "blob" from it in the shortest possible time."""
    return [
        "finetune", "--images", str(lesson / "images"), "--labels", str(lesson / "labels"),
        "--model", str(tiny_model), "--output", str(tmp_path / "run"), "--device", "cpu",
        "--epochs", "0.5", "--word", "blob",
    ]  # fmt: skip


def state(run: Path) -> RunState:
    found = read_state(run)
    assert found is not None
    return found


def figures(run: Path) -> list[dict[str, float]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_the_run_is_a_model_and_only_its_head_has_moved(
    command: list[str], lesson: Path, tiny_model: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = tmp_path / "run"
    assert main([*command, "--accumulate", "2"]) == 0
    assert state(run).state == "done"
    report = json.loads((run / "report.json").read_text())
    for version in ("before", "after"):
        assert 0.0 <= report[version]["miou"] <= 1.0
        assert 0.0 <= report[version]["fb_iou"] <= 1.0
        assert report[version]["per_word"]["blob"]["miou"] == report[version]["miou"]
    assert (len(report["held_out"]), report["learnt_from"]) == (1, 4)
    assert report["seconds"] > 0
    assert report["reason"] == state(run).reason
    assert report["promoted"] == report["reason"].startswith("Better")
    assert figures(run)[-1]["step"] == report["steps"] > 0
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny_model, run))
    assert all(before[name].equal(after[name]) for name in before)
    head = load_file(run / "word-head-1.safetensors")
    assert {name for name in before if not before[name].equal(head[name])} == set(before)
    frozen = [load_file(folder / "clip" / "model.safetensors") for folder in (tiny_model, run)]
    assert all(frozen[0][name].equal(frozen[1][name]) for name in frozen[0])
    assert read_config(run).training["taught"][0]["word"] == "blob"

    images = str(lesson / "images")
    moved = str(run.rename(tmp_path / "elsewhere"))  # it needs nothing of where it came from
    assert Predictor(moved).version != Predictor(str(tiny_model)).version
    output = str(tmp_path / "found")
    assert label([images, "--words", "blob", "--model", moved, "--output", output]) == 0
    arguments = ["--images", images, "--labels", str(lesson / "labels"), "--word", "blob"]
    figures_file = tmp_path / "figures.json"
    assert main(["evaluate", *arguments, "--model", moved, "--json", str(figures_file)]) == 0
    assert json.loads(figures_file.read_text())["per_class"].keys() == {"blob"}

    capsys.readouterr()
    again = [*command, "--model", moved, "--word", "cell", "--images", images]
    assert main(again) == 0
    taught = read_config(run).training["taught"]
    assert [each["word"] for each in taught] == ["blob", "cell"]
    assert read_config(run).word_heads == (("blob",), ("cell",))
    report = json.loads((run / "report.json").read_text())
    assert report["before"]["old_words"].keys() == {"cell"}  # scenes show it
    picture = np.asarray(Image.open(lesson / "images" / "0.png"))
    versions = [Predictor(model) for model in (str(tiny_model), moved, str(run))]
    first, second, third = (v.segment(picture, ["blob", "cell", "dog"]) for v in versions)
    changed = [
        [not np.array_equal(*pair) for pair in zip(a.probabilities, b.probabilities, strict=True)]
        for a, b in ((first, second), (second, third))
    ]
    assert changed == [[True, False, False], [False, True, False]]
    spelled = versions[2].segment(picture, ["Blobs", "a blob"])
    words = versions[2].segment(picture, ["blobs", "the blob"])
    np.testing.assert_array_equal(spelled.probabilities[0], words.probabilities[0])
    assert main(again) == 1
    assert "--resume" in capsys.readouterr().err
    assert main([*again, "--resume"]) == 0
    assert "is over" in capsys.readouterr().err
    assert main([*again, "--resume", "--seed", "4"]) == 1
    assert "other settings" in capsys.readouterr().err
    assert state(run).state == "done"


def test_classes_and_ignored_pixels(command: list[str], lesson: Path, tmp_path: Path) -> None:
    labels = lesson / "labels"
    (labels / "classes.csv").write_text("id,name\n1,blob\n2,Rims\n")
    for file in labels.glob("*.tif"):
        values = np.zeros((64, 80), np.uint8)
        values[10:30, 10:40], values[30:40], values[60:] = 1, 2, 255
        file.unlink()
        picture = Image.fromarray(values)
        if file.stem == "1":  # labels with colours, as other programs save them
            picture.putpalette(list(range(256)) * 3)
        picture.save(file.with_suffix(".png"))
    command = command[:-2]
    assert main([*command, "--ignore", "255"]) == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["words"] == ["blob", "rims"]
    assert report["before"]["per_word"].keys() == {"blob", "rims"}
    other = [*command, "--output", str(tmp_path / "other"), "--ignore", "255"]
    assert main([*other, "--word", "Rims"]) == 0
    report = json.loads((tmp_path / "other" / "report.json").read_text())
    assert report["words"] == ["Rims"]


def test_two_images_are_too_few_to_be_promoted(
    command: list[str], lesson: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(2, 5):
        (lesson / "images" / f"{index}.png").unlink()
        (lesson / "labels" / f"{index}.tif").unlink()
    assert main(command) == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert (report["promoted"], report["held_out"]) == (False, [])
    assert report["after"]["miou"] is None
    assert report["steps"] == report["best_step"]
    assert "at least 3 images" in capsys.readouterr().err
    Predictor(str(tmp_path / "run"))


def _other_size(lesson: Path) -> None:
    imwrite(lesson / "labels" / "2.tif", np.ones((64, 79), np.uint8))


def _empty_labels(lesson: Path) -> None:
    for file in (lesson / "labels").glob("*.tif"):
        imwrite(file, np.zeros((64, 80), np.uint8))


def _floats(lesson: Path) -> None:
    imwrite(lesson / "labels" / "2.tif", np.ones((64, 80), np.float32))


def _no_image(lesson: Path) -> None:
    (lesson / "images" / "2.png").unlink()


def _no_label(lesson: Path) -> None:
    (lesson / "labels" / "2.tif").unlink()


def _truncated(lesson: Path) -> None:
    file = lesson / "images" / "2.png"
    file.write_bytes(file.read_bytes()[:60])


def _twice(lesson: Path) -> None:
    Image.new("L", (80, 64)).save(lesson / "images" / "2.bmp")


def _all_ignored(lesson: Path) -> None:
    imwrite(lesson / "labels" / "2.tif", np.full((64, 80), 7, np.uint8))


def _foreign_class(lesson: Path) -> None:
    (lesson / "labels" / "classes.csv").write_text("id,name\n1,blob\n")


def _other_class(lesson: Path) -> None:
    (lesson / "labels" / "classes.csv").write_text("id,name\n7,ring\n")


def _no_table(lesson: Path) -> None:
    (lesson / "labels" / "classes.csv").write_text("7;ring\n")


@pytest.mark.parametrize(
    ("spoil", "message", "code"),
    [
        (_other_size, "They must be of one size", 1),
        (_empty_labels, "the labels are empty", 1),
        (_floats, "dtype float32; expected one integer per pixel", 1),
        (_no_image, "The label image '.*2.tif' has no image of the same name", 1),
        (_no_label, "The image '.*2.png' has no label image of the same name", 1),
        (_truncated, "2.png' cannot be read as an image", 1),
        (_twice, "have one name", 1),
        (_all_ignored, "has the value 7 and is ignored", 1),
        (_foreign_class, "holds the value 7, for which '.*' names no class", 1),
        (_other_class, "names no class 'blob', only ring", 2),
        (_no_table, "expected id, name", 1),
    ],
)
def test_bad_labels_end_the_run_with_a_reason(
    spoil: Callable[[Path], None], message: str, code: int, command: list[str], lesson: Path,
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    spoil(lesson)
    command = [*command, "--ignore", "7"] if spoil is _all_ignored else command
    assert main(command) == code
    error = capsys.readouterr().err
    assert re.search(message, error), error
    ended = state(tmp_path / "run")
    assert ended.state == "failed"
    assert ended.reason in error
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_loss_that_is_not_finite(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--epochs", "4", "--learning-rate", "1e30"]) == 1
    assert "The loss is nan" in capsys.readouterr().err
    ended = state(tmp_path / "run")
    assert (ended.state, ended.reason[:11]) == ("failed", "The loss is")


def test_too_little_memory(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("clsclip.training.footprint.free_bytes", lambda _: 10 * 2**20)
    assert main(command) == 1
    assert "smaller --batch-size" in capsys.readouterr().err
    assert state(tmp_path / "run").state == "failed"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of eight megabytes."""
    with mounted(tmp_path / "disk", megabytes=8) as folder:
        yield folder


def test_a_full_disk(
    command: list[str], small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (small_disk / "other").write_bytes(bytes(8 * 2**20 - 100_000))
    command = [*command, "--output", str(small_disk / "run")]
    assert main(command) == 1
    assert "No space left on device" in capsys.readouterr().err
    ended = state(small_disk / "run")
    assert ended.state == "failed"
    assert "Free space" in ended.reason
    (small_disk / "other").unlink()
    assert main([*command, "--resume"]) == 0
    assert state(small_disk / "run").state == "done"


@pytest.mark.slow
def test_killed_resumed_cancelled_resumed(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    run, checkpoint = tmp_path / "run", tmp_path / "run" / "state.safetensors"
    command = [*command, "--epochs", "40"]

    def start(*more: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "clsclip.cli.train", *command, *more],
            env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        request.addfinalizer(process.wait)
        request.addfinalizer(process.kill)
        return process

    process = start()
    eventually(checkpoint.exists, 5 * PATIENCE)
    assert state(run).state == "running"
    assert main([*command, "--resume"]) == 1
    assert "Another process trains into" in capsys.readouterr().err
    process.send_signal(signal.SIGKILL)
    process.wait(PATIENCE)
    assert state(run).state == "interrupted"
    with safe_open(checkpoint, framework="pt") as opened:
        kept = int(opened.metadata()["step"])

    written = checkpoint.stat().st_mtime_ns
    process = start("--resume")
    eventually(lambda: checkpoint.stat().st_mtime_ns != written, 5 * PATIENCE)
    process.send_signal(signal.SIGTERM)
    assert process.wait(5 * PATIENCE) == 130
    assert state(run).state == "cancelled"
    report = json.loads((run / "report.json").read_text())
    assert 0 < report["best_step"] <= report["steps"]
    Predictor(str(run))
    assert figures(run)[-1]["step"] > kept

    assert main([*command, "--resume"]) == 0
    assert state(run).state == "done"
    finished = json.loads((run / "report.json").read_text())
    assert finished["steps"] > report["steps"]
    assert finished["seconds"] > report["seconds"]
