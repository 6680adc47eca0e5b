"""The bundled model on real images: it must find nuclei, and only when asked for them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from skimage.data import cell, immunohistochemistry
from skimage.draw import ellipse
from tifffile import imread

from clsclip import Predictor
from clsclip.cli.label import main
from clsclip.image_files import read_image
from clsclip.model.registry import BUNDLED
from clsclip.training.metrics import Overlap


@pytest.fixture(scope="module")
def mini() -> Predictor:
    return Predictor("mini")


def test_bundled_model_is_small_and_complete() -> None:
    files = [file for file in (BUNDLED / "mini").rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 25_000_000
    assert {file.suffix for file in files} == {".json", ".safetensors"}


def test_cell_is_found_and_no_airplane(mini: Predictor) -> None:
    found, airplane = (p >= 128 for p in mini.segment(cell(), ["cell", "airplane"]).probabilities)
    truth = np.zeros(cell().shape, dtype=bool)
    truth[ellipse(374, 428, 60, 61)] = True  # the one cell of this image, without its dark rim
    assert (found & truth).sum() / (found | truth).sum() > 0.85
    assert airplane.mean() < 0.1 * found.mean()


def test_spelling_and_case_hardly_matter(mini: Predictor) -> None:
    words = ["nucleus", "Nuclei", "cell nucleus", "a nucleus"]
    masks = mini.segment(immunohistochemistry(), words, zoom=2.0).probabilities >= 128
    for word, mask in zip(words[1:], masks[1:], strict=True):
        assert (mask & masks[0]).sum() / (mask | masks[0]).sum() > 0.9, word


@pytest.mark.slow
def test_label_command_finds_nuclei_only_for_their_word(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "nuclei" / "val"
    images = sorted((folder / "images").iterdir())[::5]  # the README's figures are on all of them
    marked = {}
    for word in ("nucleus", "airplane"):
        output = tmp_path / word
        assert main([*map(str, images), "--words", word, "--output", str(output)]) == 0
        with (output / "manifest.csv").open(newline="") as stream:
            assert [row["status"] for row in csv.DictReader(stream)] == ["done"] * len(images)
        marked[word] = [imread(output / f"{image.stem}.tif") > 0 for image in images]
    overlap = Overlap()
    for image, mask in zip(images, marked["nucleus"], strict=True):
        overlap.add(mask, read_image(folder / "labels" / image.name) > 0)
    assert overlap.iou >= 0.65
    foreground = {word: sum(mask.sum() for mask in masks) for word, masks in marked.items()}
    assert foreground["airplane"] < 0.1 * foreground["nucleus"]
    assert all(np.unique(mask).size <= 2 for mask in marked["nucleus"])
