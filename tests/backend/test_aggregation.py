"""What regions show, joined: seams, duplicates, owners, many of them, words of any script."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from clsclip import Predictor
from clsclip.predict.aggregation import MAX_MAGNIFICATION, REGIONS_PER_BATCH, Seen, look_inside
from clsclip.predict.regions import MARGIN, Box
from clsclip.predict.steps import Steps

SIZE = 64


def brightness(crops: Tensor) -> list[Tensor]:
    """Stands for a network: what is bright is foreground."""
    assert crops.shape[1:] == (3, SIZE, SIZE)
    assert len(crops) <= REGIONS_PER_BATCH
    return [crops.mean(1)]


def seen(image: np.ndarray, boxes: list[Box]) -> Seen:
    pixels = torch.from_numpy(np.ascontiguousarray(image, np.float32))[None, None]
    return look_inside(
        pixels.expand(-1, 3, -1, -1), boxes, look=brightness, size=SIZE,
        steps=Steps(None, None),
    )  # fmt: skip


def test_a_region_without_the_object_adds_no_foreground(disk: Callable[..., np.ndarray]) -> None:
    image = disk(100, 160, 50, 50, 20)[..., 0]
    around: Box = (25, 25, 75, 75)
    alone, both = seen(image, [around]), seen(image, [around, (20, 100, 80, 150)])
    dark = float(image.min())
    assert both.probability[20:80, 100:150].max() <= dark + 1e-6
    torch.testing.assert_close(both.probability[:, :90], alone.probability[:, :90])
    assert both.owners.unique().tolist() == [0, 1]


def test_an_object_that_goes_on_fades_instead_of_ending_in_an_edge() -> None:
    found = seen(np.ones((100, 100)), [(30, 30, 70, 70)])
    row = found.probability[50].numpy()
    assert (row[30:70] > 0.999).all()
    margin = round(MARGIN * 40)
    assert (row[: 30 - margin] == 0).all()
    assert (row[70 + margin :] == 0).all()
    steps = np.diff(row[30 - margin - 1 : 31])
    assert (steps > 0).all()
    assert steps.max() < 0.2
    torch.testing.assert_close(found.trust, found.probability)


def test_regions_of_one_object_own_it_once_and_neighbours_share_by_the_middle() -> None:
    image = np.zeros((60, 120))
    image[20:40, 20:100] = 1
    left, again, right = (
        (15.0, 15.0, 45.0, 62.0),
        (16.0, 16.0, 45.0, 63.0),
        (15.0, 58.0, 45.0, 105.0),
    )
    found = seen(image, [left, again, right])
    assert found.owners.unique().tolist() == [0, 1, 3]
    owners = found.owners[30].numpy()
    assert (owners[20:60] == 1).all()
    assert (owners[60:100] == 3).all()
    assert (found.probability[22:38, 22:98] > 0.99).all()


def test_three_thousand_regions_take_batches_of_shared_crops() -> None:
    rng = np.random.default_rng(0)
    image = rng.random((1000, 1000))
    boxes: list[Box] = [
        (top, left, top + 6, left + 6) for top, left in rng.uniform(0, 994, (3000, 2)).tolist()
    ]
    told: list[tuple[int, int]] = []
    pixels = torch.from_numpy(image.astype(np.float32))[None, None].expand(-1, 3, -1, -1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = look_inside(
        pixels, boxes, look=brightness, size=SIZE,
        steps=Steps(lambda done, total: told.append((done, total)), None),
    )  # fmt: skip
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200 * 1024  # KiB
    assert told[-1][0] == told[-1][1] < 3000 / REGIONS_PER_BATCH
    assert found.owners.max() > 2000
    assert found.zoom == pytest.approx(MAX_MAGNIFICATION, rel=0.02)
    inside = found.trust > 0
    assert 0.05 < inside.float().mean() < 0.25
    assert (found.probability[~inside] == 0).all()


def test_words_in_another_script_are_looked_for_in_regions_too(
    plus_model: Path, disk: Callable[..., np.ndarray], no_hub: None
) -> None:
    plus = Predictor(str(plus_model), device="cpu")
    image = (disk(100, 160, 60, 100, 30) * 255).astype(np.uint8)
    words = ["細胞核", "क", "خلية"]
    tiled = plus.segment(image, words, regions="auto")
    assert tiled.words == tuple(words)
    for k, word in enumerate(words):
        assert f"does not know '{word}'" in tiled.region_reasons[k]
        assert {region.origin for region in tiled.proposals[k]} == {"tile"}
    drawn = plus.segment(image, words[:1], regions="auto", drawn=[(30.0, 70.0, 90.0, 130.0)])
    assert drawn.probabilities[0, 40:80, 80:120].all()
    assert not drawn.probabilities[0, :15].any()
