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
from clsclip.training.scenes import Scenes

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


def test_drawn_objects_keep_the_shape_and_colour_that_their_words_name() -> None:
    scenes, rng = Scenes(3, size=128, count=40), np.random.default_rng(0)
    red = [e for e in (scenes[i] for i in range(40)) if e.exact and "red object" in e.masks]
    assert len(red) >= 3
    views = [random_view(example, 96, rng) for example in red for _ in range(30)]
    whole = [view for view in views if view.region is None]
    assert len(whole) > 0.8 * len(views)
    assert all(view.height == view.width for view in whole)
    seen = 0
    for view in whole:
        inside = view.mask("red object")
        if inside.sum() < 60:
            continue
        seen += 1
        r, g, b = view.image(rng)[:, inside].mean(1)
        assert r > 1.5 * g
        assert r > 1.5 * b
    assert seen > 20


def test_photographs_are_stretched_and_lose_their_colours() -> None:
    image = np.full((60, 60, 3), (200, 40, 40), dtype=np.uint8)
    rng = np.random.default_rng(0)
    views = [random_view(Example(image, {}, frozenset()), 32, rng) for _ in range(60)]
    assert any(view.height != view.width for view in views)
    grey = [bool(r.mean() < 1.05 * g.mean()) for r, g, _ in (view.image(rng) for view in views)]
    assert 0.05 < np.mean(grey) < 0.4
