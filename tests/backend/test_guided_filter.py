"""Masks that follow the edges of the image, and the models that ask for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from clsclip import Predictor
from clsclip.cli.train import main
from clsclip.model.checkpoint import model_version
from clsclip.model.config import read_config
from clsclip.predict.guided_filter import DIMMEST, FLATNESS, GuidedFilter

RADIUS = 10


def disk(radius: float, size: int = 96) -> Tensor:
    rows, columns = np.ogrid[:size, :size]
    return torch.from_numpy(np.hypot(rows - size / 2, columns - size / 2) < radius).float()


def iou(first: Tensor, second: Tensor) -> float:
    return float((first & second).sum() / (first | second).sum())


def coloured(brightness: Tensor) -> Tensor:
    return brightness[None, None].expand(-1, 3, -1, -1)


@pytest.fixture
def blocks() -> Tensor:
    """The disk as a network sees it: in blocks of eight pixels."""
    coarse = torch.nn.functional.avg_pool2d(disk(24)[None, None], 8)
    return torch.nn.functional.interpolate(coarse, scale_factor=8)[0]


def test_colours_of_the_same_brightness_have_edges_too(blocks: Tensor) -> None:
    inside = disk(24)
    image = torch.stack([inside, 1 - inside, torch.full_like(inside, 0.5)])[None]
    assert iou(GuidedFilter(image, RADIUS)(blocks)[0] >= 0.5, inside > 0) > 0.99


@pytest.mark.parametrize(("ground", "object_"), [(0.1, 0.8), (0.9, 0.3), (0.02, 0.12)])
def test_outlines_follow_edges_bright_dark_and_dim(
    blocks: Tensor, ground: float, object_: float
) -> None:
    image = coloured(ground + (object_ - ground) * disk(24))
    truth = disk(24) > 0
    assert iou(blocks[0] >= 0.5, truth) < 0.95
    assert iou(GuidedFilter(image, RADIUS)(blocks)[0] >= 0.5, truth) > 0.99


def test_edges_of_things_that_are_not_meant_make_no_mask() -> None:
    there = disk(10, 48)
    image = coloured(torch.cat([there, there], 1))
    meant = torch.cat([there, torch.zeros(48, 48)], 1)[None]
    found = GuidedFilter(image, 6)(meant)[0]
    assert iou(found >= 0.5, meant[0] > 0) > 0.99
    assert found[:, 60:].max() < 0.01


def test_rounding_is_not_blown_up_and_dim_edges_are_followed(blocks: Tensor) -> None:
    noise = 0.01 * DIMMEST * torch.randn(96, 96, generator=torch.Generator().manual_seed(0))
    flat = GuidedFilter(coloured(torch.full((96, 96), 0.4)), RADIUS)(blocks)
    torch.testing.assert_close(
        GuidedFilter(coloured(0.4 + noise), RADIUS)(blocks), flat, atol=0.01, rtol=0
    )
    dim = GuidedFilter(coloured(0.4 + 2 * DIMMEST * disk(24)), RADIUS)(blocks)
    assert iou(dim[0] >= 0.5, disk(24) > 0) > 0.99


def test_it_is_the_filter_of_the_paper() -> None:
    rng = np.random.default_rng(0)
    image, wanted = rng.random((40, 50)), rng.random((40, 50))

    def around(plane: np.ndarray) -> np.ndarray:
        inside = ndimage.uniform_filter(np.ones_like(plane), 9, mode="constant")
        return ndimage.uniform_filter(plane, 9, mode="constant") / inside

    guide = (image - image.mean()) / image.std()
    mean, variance = around(guide), around(guide**2) - around(guide) ** 2
    slope = (around(guide * wanted) - mean * around(wanted)) / (variance + FLATNESS)
    offset = around(wanted) - slope * mean
    expected = np.clip(around(slope) * guide + around(offset), 0, 1)
    filtered = GuidedFilter(coloured(torch.from_numpy(image)), 4)
    found = filtered(torch.from_numpy(wanted)[None].float())
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-4)


def test_without_a_radius_nothing_changes() -> None:
    planes = torch.rand(1, 5, 6)
    assert GuidedFilter(torch.rand(1, 3, 5, 6), 0)(planes) is planes


def test_a_bundle_that_follows_edges(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, edges = tmp_path / "plain", tmp_path / "edges"
    bundle = ["bundle", "--model", str(tiny_model), "--dtype", "float32"]
    assert main([*bundle, "--output", str(plain)]) == 0
    assert main([*bundle, "--edge-radius", "3", "--output", str(edges)]) == 0
    assert read_config(edges).head.edge_radius == 3
    assert model_version(edges) != model_version(plain)
    rng = np.random.default_rng(0)
    size = Predictor(str(plain), device="cpu").window_network(["nucleus"]).image_size
    image = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
    without, with_ = (
        Predictor(str(folder), device="cpu").segment(image, ["nucleus"], zoom=1.0)
        for folder in (plain, edges)
    )
    filtered = GuidedFilter(torch.from_numpy(image).permute(2, 0, 1)[None] / 255, 3)
    expected = filtered(torch.from_numpy(without.probabilities / np.float32(255)))
    np.testing.assert_allclose(with_.probabilities / 255, expected.numpy(), atol=0.005)
    again = [*bundle, "--output", str(tmp_path / "again")]
    again[2] = str(edges)
    assert main(again) == 0
    assert model_version(tmp_path / "again") == model_version(edges)
    assert main([*bundle, "--edge-radius", "-1", "--output", str(tmp_path / "wrong")]) == 2
    assert "--edge-radius -1" in capsys.readouterr().err
