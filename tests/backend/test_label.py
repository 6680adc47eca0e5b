"""``napari-clsclip-label``: label files, tables, exit codes, bad files."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tifffile import imread, imwrite

from clsclip import Predictor
from clsclip.batch.files import write_labels
from clsclip.cli.label import main
from clsclip.instances import InstanceOptions, segmented_instances


@pytest.fixture
def images(tmp_path: Path, rng: np.random.Generator) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(folder / "a.png")
    imwrite(folder / "ünder score.tif", rng.integers(0, 4000, (30, 20), dtype=np.uint16))
    (folder / "notes.txt").write_text("no image")
    return folder


def rows(output: Path) -> list[dict[str, str]]:
    with (output / "manifest.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def drafts(output: Path) -> set[str]:
    """Hidden files that a finished run should not leave."""
    kept = {".finished.json", ".labelling.lock", ".reviews.lock"}
    return {file.name for file in output.rglob(".*")} - kept


def test_labels_tables_and_the_same_masks_as_the_predictor(
    images: Path, tmp_path: Path, tiny_model: Path
) -> None:
    output = tmp_path / "out"
    words = ["--words", "nucleus, cell", "--model", str(tiny_model), "--threshold", "0.4"]
    assert main([str(images), *words, "--output", str(output)]) == 0
    assert (output / "classes.csv").read_text().splitlines() == [
        "id,name", "1,nucleus", "2,cell",
    ]  # fmt: skip
    assert [row["status"] for row in rows(output)] == ["done", "done"]
    assert all(float(row["seconds"]) > 0 for row in rows(output))
    labels = imread(output / "a.tif")
    assert labels.dtype == np.uint16
    with Image.open(images / "a.png") as image:
        result = Predictor(str(tiny_model)).segment(np.asarray(image), ["nucleus", "cell"])
    np.testing.assert_array_equal(labels, result.labels(0.4))
    assert imread(output / "ünder score.tif").shape == (30, 20)
    assert not drafts(output)


def test_bad_files_fail_alone(images: Path, tmp_path: Path, tiny_model: Path) -> None:
    data = (images / "a.png").read_bytes()
    (images / "cut.png").write_bytes(data[: len(data) // 2])
    (images / "text.tif").write_text("not a tiff")
    imwrite(images / "stack.tif", np.zeros((5, 8, 8), np.uint8), photometric="minisblack")
    imwrite(images / "nan.tif", np.full((8, 8), np.nan, np.float32))
    output = tmp_path / "out"
    arguments = [str(images), "--words", "cell", "--model", str(tiny_model), "--output"]
    assert main([*arguments, str(output)]) == 1
    errors = {Path(row["file"]).name: row["error"] for row in rows(output)}
    assert errors["a.png"] == "" == errors["ünder score.tif"]
    assert "truncated" in errors["cut.png"]
    assert "cannot be read" in errors["text.tif"]
    assert errors["stack.tif"] == ""
    assert "nan_to_num" in errors["nan.tif"]
    written = ["a.tif", "stack.tif", "ünder score.tif"]
    assert sorted(f.name for f in output.glob("*.tif")) == written
    assert imread(output / "stack.tif").shape == (5, 8, 8)


def test_channels_are_chosen(
    tmp_path: Path, tiny_model: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, output = tmp_path / "images", tmp_path / "out"
    folder.mkdir()
    channels = rng.integers(0, 4000, (2, 40, 30), dtype=np.uint16)
    imwrite(folder / "a.tif", channels, ome=True, metadata={"axes": "CYX"})
    arguments = [str(folder), "--words", "cell", "--model", str(tiny_model)]
    assert main([*arguments, "--output", str(output)]) == 1
    assert "has 2 channels" in rows(output)[0]["error"]
    assert "--channels" in rows(output)[0]["error"]
    chosen = [*arguments, "--output", str(output), "--channels=1"]
    assert main([*chosen, "--overwrite"]) == 0
    result = Predictor(str(tiny_model)).segment(channels[1], ["cell"])
    np.testing.assert_array_equal(imread(output / "a.tif"), result.labels(0.5))
    before = (output / "a.tif").stat().st_mtime_ns
    assert main(chosen) == 0  # goes on, and has nothing to do
    assert (output / "a.tif").stat().st_mtime_ns == before
    capsys.readouterr()
    assert main([*arguments, "--output", str(output), "--channels=0"]) == 2
    assert "other settings" in (refused := capsys.readouterr().err)
    assert "channels" in refused
    assert main([*arguments, "--output", str(tmp_path / "b"), "--channels", "7"]) == 1
    assert "has no channel 7" in rows(tmp_path / "b")[0]["error"]
    capsys.readouterr()
    for wrong in ("0,1", "x", "1,2,3,4", "-1", "1,,2"):
        assert main([*arguments, "--output", str(tmp_path / "c"), f"--channels={wrong}"]) == 2
        assert f"--channels {wrong}: expected the number" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_labels_that_are_there_stay(images: Path, tmp_path: Path, tiny_model: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "a.tif").write_text("a person's work")
    arguments = [str(images / "a.png"), "--words", "cell", "--model", str(tiny_model)]
    arguments += ["--output", str(output)]
    assert main(arguments) == 2
    assert (output / "a.tif").read_text() == "a person's work"
    assert main([*arguments, "--overwrite"]) == 0
    assert imread(output / "a.tif").shape == (40, 50)


def features(output: Path, stem: str) -> list[dict[str, str]]:
    with (output / f"{stem}.features.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_instances_have_ids_of_their_own_and_a_table(
    images: Path, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    arguments = [str(images), "--words", "nucleus, cell", "--model", str(tiny_model)]
    arguments += ["--threshold", "0.4", "--output", str(output)]
    assert main([*arguments, "--instances", "--min-area", "4", "--min-certainty", "0"]) == 0
    with Image.open(images / "a.png") as image:
        result = Predictor(str(tiny_model)).segment(np.asarray(image), ["nucleus", "cell"])
    expected, columns = segmented_instances(result, 0.4, InstanceOptions(4, min_certainty=0.0))
    labels = imread(output / "a.tif")
    assert labels.dtype == np.uint16
    np.testing.assert_array_equal(labels, expected)
    table = features(output, "a")
    assert list(table[0]) == list(columns)
    assert [int(row["label"]) for row in table] == list(range(1, labels.max() + 1))
    assert [row["class"] for row in table] == columns["class"].tolist()
    for row in table:
        mask = labels == int(row["label"])
        assert int(float(row["area"])) == mask.sum() >= 4
        assert float(row["centroid_row"]) == pytest.approx(np.nonzero(mask)[0].mean(), abs=1e-3)
    counts = [int(row["objects"]) for row in rows(output)]
    assert counts == [len(table), len(features(output, "ünder score"))]
    assert f"{sum(counts)} objects" in capsys.readouterr().out
    assert not drafts(output)
    assert main(arguments) == 2
    assert main([*arguments, "--overwrite"]) == 0
    assert not list(output.glob("*.features.csv"))
    assert [row["objects"] for row in rows(output)] == ["", ""]
    np.testing.assert_array_equal(imread(output / "a.tif"), result.labels(0.4))


def test_an_image_without_objects_has_an_empty_table(
    images: Path, tmp_path: Path, tiny_model: Path
) -> None:
    output = tmp_path / "out"
    arguments = [str(images / "a.png"), "--words", "cell", "--model", str(tiny_model)]
    arguments += ["--instances", "--min-area", "100000", "--output", str(output)]
    assert main(arguments) == 0
    assert not imread(output / "a.tif").any()
    assert features(output, "a") == []
    assert (output / "a.features.csv").read_text().startswith("label,class,area,")
    assert rows(output)[0]["objects"] == "0"


def test_a_table_that_is_there_stays(images: Path, tmp_path: Path, tiny_model: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "a.features.csv").write_text("a person's work")
    arguments = [str(images / "a.png"), "--words", "cell", "--model", str(tiny_model)]
    assert main([*arguments, "--instances", "--output", str(output)]) == 2
    assert (output / "a.features.csv").read_text() == "a person's work"


def test_more_ids_than_16_bits_hold_are_written_as_32(tmp_path: Path) -> None:
    write_labels(tmp_path / "a.tif", np.array([[0, 70000]], np.int32))
    stored = imread(tmp_path / "a.tif")
    assert stored.dtype == np.uint32
    assert stored.tolist() == [[0, 70000]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{images}", "--words", " , "], "class word"),
        (["{images}/none.png", "--words", "cell"], "does not exist"),
        (["{images}", "--words", "cell", "--model", "minni"], "no model 'minni'"),
        (["{images}", "--words", "cell", "--threshold", "2"], "--threshold"),
        (["{images}", "--words", "cell", "--min-area", "0"], "--min-area"),
        (["{images}", "--words", "cell", "--min-certainty", "1"], "--min-certainty"),
        (["{images}", "--words", "cell", "--device", "cuda:99"], "cuda:99"),
        (["{images}", "--words", "cell", "--regions", "detector"], "There is no detector"),
        (["{images}", "--words", "cell", "--detector", "x.onnx"], "regions 'none' does not use"),
        (
            ["{images}", "--words", "cell", "--regions", "auto", "--detector", "x.onnx"],
            "There is no detector at 'x.onnx'",
        ),
    ],
)
def test_usage_errors_exit_with_2_and_start_nothing(
    images: Path, tmp_path: Path, tiny_model: Path, arguments: list[str], message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    output = tmp_path / "out"
    filled = [argument.format(images=images) for argument in arguments]
    if "--model" not in filled:
        filled += ["--model", str(tiny_model)]
    assert main([*filled, "--output", str(output)]) == 2
    assert message in capsys.readouterr().err
    assert not output.exists()


def test_regions_of_the_detector_and_why_they_were_chosen(
    tmp_path: Path, plus_model: Path, tiny_model: Path, disk_detector: Path, no_hub: None,
    disk: Callable[..., np.ndarray],
) -> None:  # fmt: skip
    folder = tmp_path / "images"
    folder.mkdir()
    for name, radius in (("dog", 30), ("empty", 0)):
        picture = (disk(100, 160, 60, 100, radius) * 255).astype(np.uint8)
        Image.fromarray(picture).save(folder / f"{name}.png")
    arguments = [str(folder), "--words", "dog", "--threshold", "0.01", "--output"]
    plus = [*arguments, str(tmp_path / "plus"), "--model", str(plus_model), "--regions", "auto"]
    assert main(plus) == 0
    why = {Path(row["file"]).stem: row["regions"] for row in rows(tmp_path / "plus")}
    assert why == {
        "dog": "Regions come from the detector, which knows 'dog'. The whole image was "
        "looked at too.",
        "empty": "Regions come from the detector, which knows 'dog'. It found none: the whole "
        "image was looked at.",
    }
    assert imread(tmp_path / "plus" / "dog.tif").all()
    assert imread(tmp_path / "plus" / "empty.tif").all()
    named = [*arguments, str(tmp_path / "named"), "--model", str(tiny_model)]
    assert main([*named, "--regions", "detector", "--detector", str(disk_detector)]) == 0
    labels = imread(tmp_path / "named" / "dog.tif")
    assert labels[45:75, 85:115].all()
    assert not labels[:10].any()
    tiles = [*arguments, str(tmp_path / "tiles"), "--model", str(plus_model)]
    assert main([*tiles, "--regions", "tiles", "--words", "dog, nucleus"]) == 0
    assert {row["regions"] for row in rows(tmp_path / "tiles")} == {
        "Regions are overlapping tiles and the whole image."
    }
    without = [*arguments, str(tmp_path / "none"), "--model", str(plus_model)]
    assert main(without) == 0
    assert all(row["regions"] == "" for row in rows(tmp_path / "none"))
    assert imread(tmp_path / "none" / "dog.tif").all()


def test_two_images_of_one_name_are_refused(
    images: Path, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(images / "a.jpg")
    arguments = [str(images), "--words", "cell", "--model", str(tiny_model), "--output"]
    assert main([*arguments, str(tmp_path / "out")]) == 2
    assert "would both be labelled" in capsys.readouterr().err
    assert main([str(images / "ünder score.tif"), *arguments[1:], str(images)]) == 2
    assert "labels would overwrite the image" in capsys.readouterr().err
