"""How training looks at microscopy: scale and light."""

from __future__ import annotations

import numpy as np
import torch

from clsclip.training.crops import (
    DIAMETERS,
    LAST_DIAMETERS,
    UNCHANGED_SHARE,
    random_view,
    relight,
)
from clsclip.training.examples import Example

DIAMETER = 20.0


def test_microscopy_is_seen_at_all_scales_and_mostly_where_outlines_are_drawn() -> None:
    image = np.zeros((700, 900, 3), dtype=np.uint8)
    example = Example(image, {"nucleus": image[..., 0] > 0}, frozenset(), diameter=DIAMETER)
    rng = np.random.default_rng(0)
    views = [random_view(example, 224, rng) for _ in range(600)]
    shown = np.array([DIAMETER * view.size / view.height for view in views])
    assert shown.min() < 1.2 * DIAMETERS[0]
    assert shown.max() > 0.95 * DIAMETERS[1]
    low, high = LAST_DIAMETERS
    by_chance = np.log(high / low) / np.log(DIAMETERS[1] / DIAMETERS[0])
    expected = 0.5 + 0.5 * by_chance
    assert abs(((shown > 0.99 * low) & (shown < 1.01 * high)).mean() - expected) < 0.06


def test_some_microscopy_keeps_its_light() -> None:
    image = torch.rand(3, 8, 8)
    rng = np.random.default_rng(0)
    kept = [torch.equal(relight(image, True, rng), image) for _ in range(600)]
    assert UNCHANGED_SHARE - 0.05 < np.mean(kept) < UNCHANGED_SHARE + 0.12  # and some by chance
