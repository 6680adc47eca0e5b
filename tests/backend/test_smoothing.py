"""The Gaussian mean of probabilities, and the models that ask for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from clsclip import Predictor
from clsclip.cli.train import main
from clsclip.model.checkpoint import model_version
from clsclip.model.config import read_config
from clsclip.predict.smoothing import smooth


@pytest.mark.parametrize("sigma", [0.4, 2.0, 5.0])
def test_it_is_a_gaussian_of_each_plane(sigma: float) -> None:
    planes = torch.rand(3, 40, 9)
    expected = ndimage.gaussian_filter(
        planes.numpy(), (0, sigma, sigma), mode="nearest", truncate=3.0
    )
    np.testing.assert_allclose(smooth(planes, sigma).numpy(), expected, atol=1e-6)


def test_without_a_deviation_nothing_changes() -> None:
    planes = torch.rand(1, 5, 6)
    assert smooth(planes, 0.0) is planes


def test_a_bundle_that_smooths(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, soft = tmp_path / "plain", tmp_path / "soft"
    bundle = ["bundle", "--model", str(tiny_model), "--dtype", "float32"]
    assert main([*bundle, "--output", str(plain)]) == 0
    assert main([*bundle, "--smoothing", "1.5", "--output", str(soft)]) == 0
    assert read_config(soft).head.smoothing == 1.5
    assert model_version(soft) != model_version(plain)
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    sharp, smoothed = (
        Predictor(str(folder), device="cpu").segment(image, ["nucleus"], zoom=1.0)
        for folder in (plain, soft)
    )
    expected = ndimage.gaussian_filter(
        sharp.probabilities[0].astype(float), 1.5, mode="nearest", truncate=3.0
    )
    np.testing.assert_allclose(smoothed.probabilities[0], expected, atol=1.01)
    assert np.abs(np.diff(smoothed.probabilities[0].astype(int))).sum() < (
        np.abs(np.diff(sharp.probabilities[0].astype(int))).sum()
    )
    again = [*bundle, "--output", str(tmp_path / "again")]
    again[2] = str(soft)
    assert main(again) == 0
    assert model_version(tmp_path / "again") == model_version(soft)
    assert main([*bundle, "--smoothing", "-1", "--output", str(tmp_path / "wrong")]) == 2
    assert "--smoothing -1" in capsys.readouterr().err
