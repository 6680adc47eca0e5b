"""``napari-clsclip-label`` on images that are too large to hold, and after interruptions."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from tifffile import imread, imwrite

from clsclip import Predictor
from clsclip.batch import large_objects
from clsclip.batch.large_objects import ObjectNumbering
from clsclip.cli.label import main
from clsclip.errors import InvalidImageError
from clsclip.instances import InstanceOptions, find_instances


@pytest.fixture
def image(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A zarr of 420 x 500 pixels."""
    values = rng.integers(0, 255, (420, 500), dtype=np.uint8)
    array = zarr.create_array(
        tmp_path / "scan.zarr", shape=values.shape, dtype="u1", chunks=(99, 90)
    )
    array[...] = values
    return tmp_path / "scan.zarr"


@pytest.fixture
def options(tiny_model: Path) -> list[str]:
    """Small blocks: 7 rows of 64 pixels."""
    return [
        "--words", "nucleus, cell", "--model", str(tiny_model), "--device", "cpu",
        "--threshold", "0.4", "--zoom", "1", "--large-from", "10000", "--chunk", "64",
    ]  # fmt: skip


def rows(output: Path) -> list[dict[str, str]]:
    with (output / "manifest.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_large_image_becomes_a_zarr_with_the_same_labels(
    image: Path, tmp_path: Path, options: list[str], tiny_model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    output = tmp_path / "out"
    imwrite(tmp_path / "small.tif", np.zeros((30, 40), np.uint8))
    assert main([str(tmp_path), *options, "--output", str(output)]) == 0
    assert [Path(row["file"]).name for row in rows(output)] == ["scan.zarr", "small.tif"]
    labels = zarr.open_array(output / "scan.zarr", mode="r")
    assert (labels.shape, labels.dtype, labels.chunks) == ((420, 500), np.uint32, (64, 64))
    whole = Predictor(str(tiny_model), device="cpu").segment(
        zarr.open_array(image)[...], ["nucleus", "cell"], zoom=1.0
    )
    differing = labels[...] != whole.labels(0.4)
    assert differing.mean() < 0.001
    attributes = labels.attrs.asdict()
    assert attributes["words"] == ["nucleus", "cell"]
    assert (attributes["threshold"], attributes["zooms"]) == (0.4, [1.0, 1.0])
    assert (attributes["image"], attributes["model"]) == ("scan.zarr", str(tiny_model))
    assert attributes["model_version"] == whole.model_version
    assert "scan.zarr: block 7 of 7\n1 of 2: scan.zarr labelled\n" in capsys.readouterr().out
    assert 0 < float(rows(output)[0]["score"]) < 1
    assert sorted(path.name for path in output.iterdir()) == [
        ".finished.json", ".labelling.lock", ".reviews.lock", "classes.csv", "manifest.csv",
        "scan.zarr", "small.tif",
    ]  # fmt: skip
    assert imread(output / "small.tif").shape == (30, 40)


def test_an_image_that_is_not_large_is_labelled_as_ever(
    image: Path, tmp_path: Path, options: list[str], tiny_model: Path
) -> None:
    output = tmp_path / "out"
    assert main([str(image), *options, "--large-from", "210000", "--output", str(output)]) == 0
    whole = Predictor(str(tiny_model), device="cpu").segment(
        zarr.open_array(image)[...], ["nucleus", "cell"], zoom=1.0
    )
    np.testing.assert_array_equal(imread(output / "scan.tif"), whole.labels(0.4))


def start(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "clsclip.cli.label", *arguments], text=True, stderr=subprocess.PIPE
    )


def stop_after(process: subprocess.Popen[str], file: Path, lines: int, how: int) -> str:
    """Stop a process when a file has so many lines; what it wrote to standard error."""
    deadline = time.monotonic() + 120
    while not (file.exists() and file.read_text().count("\n") >= lines):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(how)
    return process.communicate(timeout=60)[1]


@pytest.mark.slow
def test_after_a_kill_the_same_command_does_what_is_missing(
    image: Path, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with (tmp_path / "big.txt").open("w"):
        pass
    output, undisturbed = tmp_path / "out", tmp_path / "undisturbed"
    imwrite(tmp_path / "a.tif", np.full((30, 40), 9, np.uint8))
    arguments = [str(tmp_path), *options, "--output", str(output)]
    part = output / ".scan.zarr.part"
    process = start(arguments)
    stop_after(process, part / "blocks.jsonl", 2, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (output / "scan.zarr").exists()
    with (part / "blocks.jsonl").open("a") as stream:
        stream.write('{"blo')  # as if it had been killed while it wrote
    done = (part / "blocks.jsonl").read_text().count("\n")
    before = (output / "a.tif").stat().st_mtime_ns
    assert main([*arguments, "--threshold", "0.5"]) == 2
    assert "threshold: 0.4, now 0.5" in capsys.readouterr().err
    process = start(arguments)
    said = stop_after(process, part / "blocks.jsonl", done + 2, signal.SIGINT)
    assert process.returncode == 130
    assert f"{done} of 7 blocks are done already" in said
    assert "same command again" in said
    assert main(arguments) == 0
    assert "2 of 2 images labelled" in (told := capsys.readouterr()).out
    assert "(1 of them before)" in told.out
    assert (output / "a.tif").stat().st_mtime_ns == before
    assert main([str(tmp_path / "a.tif"), str(image), *options, "--output", str(undisturbed)]) == 0
    np.testing.assert_array_equal(
        zarr.open_array(output / "scan.zarr")[...], zarr.open_array(undisturbed / "scan.zarr")[...]
    )
    assert len(rows(output)) == 2
    assert sorted(path.name for path in output.iterdir()) == sorted(
        path.name for path in undisturbed.iterdir()
    )
    assert main(arguments) == 0  # it is finished: all is kept
    assert "(2 of them before)" in capsys.readouterr().out
    assert (output / "a.tif").stat().st_mtime_ns == before


def begin(image: Path, output: Path, options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Label an image, and stop after two blocks."""
    from clsclip.batch import large

    with monkeypatch.context() as patch:
        add = large.Journal.add

        def stop(self: large.Journal, entry: dict[str, int]) -> None:
            add(self, entry)
            if len(self.entries) == 2:
                raise KeyboardInterrupt

        patch.setattr(large.Journal, "add", stop)
        assert main([str(image), *options, "--output", str(output)]) == 130


def test_another_image_is_refused_and_overwrite_begins_anew(
    image: Path, tmp_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    output = tmp_path / "out"
    arguments = [str(image), *options, "--output", str(output)]
    begin(image, output, options, monkeypatch)
    zarr.open_array(image, mode="r+")[0, 0] ^= 1
    assert main(arguments) == 1
    assert "fingerprint" in rows(output)[0]["error"]
    assert not (output / "scan.zarr").exists()
    capsys.readouterr()
    assert main([*arguments, "--overwrite"]) == 0
    assert "already" not in capsys.readouterr().err
    assert zarr.open_array(output / "scan.zarr").shape == (420, 500)
    assert not list(output.glob(".*.part"))


def test_what_cannot_be_labelled_block_by_block_says_so(
    image: Path, tmp_path: Path, options: list[str]
) -> None:
    zarr.create_array(
        tmp_path / "stack.zarr", shape=(5, 200, 200), dtype="u1", dimension_names=("z", "y", "x")
    )
    stack = [str(tmp_path / "stack.zarr"), *options, "--output", str(tmp_path / "stack")]
    for number, (arguments, error) in enumerate(
        (
            (
                [str(image), *options, "--regions", "tiles"],
                "without region proposals ('tiles'). Choose regions 'none', or label it on the "
                "command line with a larger --large-from if",
            ),
            (
                [str(image), *options, "--format", "coco,tiff"],
                "without exports to coco. Choose no format but tiff, or",
            ),
            ([str(image), *options, "--level", "1"], "no level 1"),
            (stack[:-2], "one plane only"),
        )
    ):
        output = tmp_path / f"out{number}"
        assert main([*arguments, "--output", str(output)]) == 1
        assert error in rows(output)[0]["error"]
    assert main([*stack, "--large-from", "40000"]) == 0
    assert imread(tmp_path / "stack" / "stack.tif").shape == (5, 200, 200)
    beside = [str(image), *options, "--output", str(tmp_path)]
    assert main(beside) == 2


def disks(shape: tuple[int, int], rng: np.random.Generator, number: int) -> NDArray[np.uint8]:
    """Probabilities of disks, many of which touch."""
    plane = np.zeros(shape, np.uint8)
    y, x = np.indices(shape)
    for row, column in rng.integers(0, shape, (number, 2)):
        distance = np.hypot(y - row, x - column)
        plane = np.maximum(plane, np.clip(260 - 10 * distance, 0, 255).astype(np.uint8))
    return plane


def same_objects(one: NDArray[np.integer], other: NDArray[np.integer]) -> bool:
    """Whether two label images differ in their numbers only."""
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
    return len(np.unique(pairs[0])) == pairs.shape[1] == len(np.unique(pairs[1]))


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "features.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_an_object_across_blocks_is_one(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_objects, "CORE", 60)
    monkeypatch.setattr(large_objects, "HALO", 4)
    plane = disks((250, 300), rng, 70)
    options = InstanceOptions(min_certainty=0.0)
    whole = find_instances(plane, 0.5, options)
    labels = np.zeros(plane.shape, np.uint32)
    numbering = ObjectNumbering(plane[None], labels, ("cell",), 0.5, options, tmp_path)
    assert len(numbering) == 25
    numbers = numbering.run()
    for _ in range(8):
        next(numbers)
    halfway = numbering.objects
    unfinished = (tmp_path / "features.csv").stat().st_size
    kept = (tmp_path / "objects.jsonl").read_text()
    next(numbers)
    del numbers
    (tmp_path / "objects.jsonl").write_text(kept)  # as if it had been killed before it recorded
    assert (labels > halfway).any()
    assert (tmp_path / "features.csv").stat().st_size > unfinished
    numbering = ObjectNumbering(plane[None], labels, ("cell",), 0.5, options, tmp_path)
    assert (numbering.done, numbering.objects) == (8, halfway)
    assert list(numbering.run()) == list(range(9, 26))
    assert numbering.objects == labels.max() == whole.max()
    assert same_objects(labels, whole)
    features = table(tmp_path)
    assert [int(row["label"]) for row in features] == list(range(1, labels.max() + 1))
    for row in features:
        ys, xs = np.nonzero(labels == int(row["label"]))
        assert int(float(row["area"])) == len(ys)
        assert float(row["centroid_row"]) == pytest.approx(ys.mean(), abs=1e-3)
        assert float(row["centroid_column"]) == pytest.approx(xs.mean(), abs=1e-3)
        assert [int(row[n]) for n in ("top", "left", "bottom", "right")] == [
            ys.min(), xs.min(), ys.max() + 1, xs.max() + 1,
        ]  # fmt: skip
        assert row["class"] == "cell"


def test_an_object_that_no_block_sees_whole_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_objects, "CORE", 60)
    monkeypatch.setattr(large_objects, "HALO", 4)
    monkeypatch.setattr(large_objects, "WIDEST_HALO", 32)
    plane = np.zeros((1, 300, 300), np.uint8)
    plane[0, 20:280, 70:90] = 255
    numbering = ObjectNumbering(
        plane, np.zeros((300, 300), np.uint32), ("vessel",), 0.5, InstanceOptions(), tmp_path
    )
    with pytest.raises(InvalidImageError, match=r"'vessel' at row .* more than 32 pixels"):
        list(numbering.run())


def test_instances_of_a_large_image_go_on_too(
    image: Path, tmp_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    options = [*options, "--instances", "--min-certainty", "0"]
    one, other = tmp_path / "one", tmp_path / "other"
    begin(image, one, options, monkeypatch)
    for output in (one, other):
        assert main([str(image), *options, "--output", str(output)]) == 0
    labels = zarr.open_array(one / "scan.zarr", mode="r")
    np.testing.assert_array_equal(labels[...], zarr.open_array(other / "scan.zarr")[...])
    text = (one / "scan.features.csv").read_text()
    assert text == (other / "scan.features.csv").read_text()
    assert int(rows(one)[0]["objects"]) == labels[...].max() == text.count("\n") - 1
    assert labels.attrs["objects"] == labels[...].max()
    assert f"{labels[...].max()} objects" in capsys.readouterr().out
    assert json.loads(json.dumps(labels.attrs["instances"]))["min_certainty"] == 0
