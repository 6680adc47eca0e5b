from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from clsclip.cli.train import main
from clsclip.store.store import AnnotationStore
from clsclip.training.corrections import read_corrections
from clsclip.training.exchange import IGNORED
from clsclip.wire_annotations import Correction, Details


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Three images with label images of two classes."""
    for part in ("images", "labels"):
        (tmp_path / "data" / part).mkdir(parents=True)
    for index in range(3):
        image = rng.integers(0, 60_000, (20, 30), dtype=np.uint16)
        labels = np.zeros((20, 30), np.uint8)
        labels[2:6, 3:9], labels[10:, 20:], labels[0] = 1, 5, 9
        tifffile.imwrite(tmp_path / "data" / "images" / f"{index}.tif", image)
        Image.fromarray(labels).save(tmp_path / "data" / "labels" / f"{index}.png")
    (tmp_path / "data" / "labels" / "classes.csv").write_text("id,name\n1,cell\n5,vessel\n")
    return tmp_path / "data"


def arguments(folder: Path, store: Path) -> list[str]:
    return ["import", "--images", str(folder / "images"), "--labels", str(folder / "labels"),
            "--ignore", "9", "--store", str(store)]  # fmt: skip


def export(folder: Path) -> list[str]:
    return ["export", "--store", str(folder / "store"), "--output", str(folder / "x")]


def test_a_folder_goes_in_once_and_comes_out_again(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments(folder, tmp_path / "store")
    assert main(given) == 0
    assert "3 annotations added, 0 were" in capsys.readouterr().out
    assert main(given) == 0
    assert "0 annotations added, 3 were" in capsys.readouterr().out
    with AnnotationStore(tmp_path / "store") as store:
        assert len(store) == 3
        newest = store.list()[0]
        assert newest.words == ("cell", "vessel")
        assert newest.pixels == (24, 100)
        assert newest.details == Details(source="2.tif", origin="import")
    assert (
        main(["export", "--store", str(tmp_path / "store"), "--output", str(tmp_path / "x")]) == 0
    )
    words, out = read_corrections(
        tmp_path / "x" / "vessel" / "images",
        tmp_path / "x" / "vessel" / "labels",
        "vessel",
        IGNORED,
    )
    _, was = read_corrections(folder / "images", folder / "labels", "vessel", 9)
    assert words == ("vessel",)
    key = lambda c: c.example.image.tobytes()  # noqa: E731
    for now, then in zip(sorted(out, key=key), sorted(was, key=key), strict=True):
        np.testing.assert_array_equal(now.example.image, then.example.image)
        np.testing.assert_array_equal(now.example.masks["vessel"], then.example.masks["vessel"])
        np.testing.assert_array_equal(now.example.ignore, then.example.ignore)


def test_an_image_is_exported_as_it_was_shown_and_only_for_words_that_were_asked(
    tmp_path: Path,
) -> None:
    image = np.array([[100, 150, 200, 300]], np.uint16)
    labels = np.array([[0, 1, 1, 0]], np.uint8)
    with AnnotationStore(tmp_path / "store") as store:
        shown = Details(contrast_limits=(100.0, 200.0))
        store.add(Correction(image, labels, ("a/b",), details=shown))
        store.add(Correction(image, labels, ("cell",)))
    assert (
        main(["export", "--store", str(tmp_path / "store"), "--output", str(tmp_path / "x")]) == 0
    )
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == ["a_b", "cell"]
    (file,) = (tmp_path / "x" / "a_b" / "images").iterdir()
    np.testing.assert_array_equal(tifffile.imread(file), [[0, 128, 255, 255]])
    (file,) = (tmp_path / "x" / "cell" / "images").iterdir()
    np.testing.assert_array_equal(tifffile.imread(file), image)


def test_what_cannot_be_exported_is_told(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(folder, tmp_path / "store")) == 0
    assert main([*export(tmp_path), "--word", "dog"]) == 1
    assert "no annotation of 'dog'" in capsys.readouterr().err
    assert main([*export(tmp_path), "--word", "CELL"]) == 0
    assert main([*export(tmp_path), "--word", "CELL"]) == 1
    assert "is there already" in capsys.readouterr().err


def test_a_bad_file_is_named_and_those_before_it_are_kept(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tifffile.imwrite(folder / "images" / "1.tif", np.zeros((20, 31), np.uint8))
    assert main(arguments(folder, tmp_path / "store")) == 1
    assert "1.tif' 20 x 31" in capsys.readouterr().err
    with AnnotationStore(tmp_path / "store") as store:
        assert len(store) == 1
