"""The bundled model learns a structure that it did not see under its word.

That word is "airplane", for which it finds nothing in these images; of words that it does not know,
it marks what stands out.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from clsclip import Predictor
from clsclip.cli.train import main


def crosses(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Thick crosses among discs on a grey ground, and their label image; 192 x 192 pixels."""
    plane, labels = np.full((192, 192), 0.35), np.zeros((192, 192), np.uint8)
    rows, columns = np.indices(plane.shape)
    for row, column in ((48, 48), (48, 144), (144, 48), (144, 144)):
        turn, (down, right) = rng.uniform(0, np.pi), rng.integers(-8, 9, 2)
        y, x = rows - row - down, columns - column - right
        angles = (turn, turn + np.pi / 2)
        along, across = (np.abs(np.cos(a) * y + np.sin(a) * x) for a in angles)
        arm = rng.uniform(26, 34)
        cross = (np.minimum(along, across) < arm / 4) & (np.maximum(along, across) < arm)
        here = cross if rng.random() < 0.6 else np.hypot(y, x) < arm / 2
        plane[here] = rng.uniform(0.6, 0.9)
        labels[here & cross] = 1 if here is cross else 0
    blurred = ndimage.gaussian_filter(plane, 1) + rng.normal(0, 0.03, plane.shape)
    return np.clip(255 * blurred, 0, 255).astype(np.uint8), labels


@pytest.mark.slow
def test_a_new_structure_is_learnt_and_old_words_stay(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    for index in range(5):
        for part, pixels in zip(("images", "labels"), crosses(rng), strict=True):
            Image.fromarray(pixels).save(tmp_path / part / f"{index}.png")
    run = tmp_path / "run"
    assert main(
        ["finetune", "--images", str(tmp_path / "images"), "--labels", str(tmp_path / "labels"),
         "--word", "airplane", "--output", str(run), "--epochs", "3", "--device", "cpu"]
    ) == 0  # fmt: skip
    report = json.loads((run / "report.json").read_text())
    assert report["after"]["miou"] >= report["before"]["miou"] + 0.2
    picture = np.asarray(Image.open(tmp_path / "images" / "0.png"))
    versions = [Predictor(model, device="cpu") for model in ("mini", str(run))]
    older, newer = (each.segment(picture, ["nucleus", "airplanes"]) for each in versions)
    np.testing.assert_array_equal(older.probabilities[0], newer.probabilities[0])
    assert (older.probabilities[1] != newer.probabilities[1]).any()
