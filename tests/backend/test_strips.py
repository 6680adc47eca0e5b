"""Passes over images of any size: the same as one look, wherever a part begins or ends."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from clsclip import Predictor
from clsclip.blocks import blocks
from clsclip.image_sources import ImageSource
from clsclip.predict.resampling import ResizedAxis, resize_part
from clsclip.predict.strips import Strip
from clsclip.predict.transforms import resize


@pytest.fixture(scope="module")
def predictor(tiny_model: Path) -> Predictor:
    return Predictor(str(tiny_model), device="cpu")


@pytest.fixture
def reader() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def source_of(image: NDArray[np.generic]) -> ImageSource:
    return ImageSource("image", lambda: image, image.shape, image.dtype, "yxs"[: image.ndim])


sides = st.integers(2, 200)  # images one pixel wide are not resized well by PyTorch 2.14


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(sides, sides),
    resized=st.tuples(sides, sides),
    data=st.data(),
)
def test_a_part_is_resized_as_in_the_whole(
    shape: tuple[int, int], resized: tuple[int, int], data: st.DataObject
) -> None:
    image = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    whole = resize(image[None], resized)[0]
    axes = (ResizedAxis(shape[0], resized[0]), ResizedAxis(shape[1], resized[1]))
    wanted = tuple(
        slice(*sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True))))
        for n in resized
    )
    needed = tuple(axis.needed(part) for axis, part in zip(axes, wanted, strict=True))
    part = resize_part(image[(slice(None), *needed)], axes, needed, wanted)
    torch.testing.assert_close(part, whole[(slice(None), *wanted)], atol=2e-5, rtol=0)


@pytest.mark.parametrize("zoom", [0.13, 0.5, 0.8, 1.0, 2.3])
@pytest.mark.parametrize("colour", [False, True])
def test_blocks_equal_one_look(
    predictor: Predictor, rng: np.random.Generator, reader: ThreadPoolExecutor,
    zoom: float, colour: bool,
) -> None:  # fmt: skip
    """At most one step of 1/255 apart, at very few pixels: the order of float32 sums."""
    shape = (200, 330, 3) if colour else (200, 330)
    image = rng.integers(0, 255, shape, dtype=np.uint8)
    words = ["nucleus", "cell"]
    whole = predictor.segment(image, words, zoom=zoom).probabilities.astype(int)
    assert np.ptp(whole) > 10
    network = predictor.window_network(words)
    found = np.full(whole.shape, -1)
    for block in blocks(image.shape[:2], (64, 160)):
        columns = block.core[1]
        strip = Strip(network, source_of(image), columns, zoom, (0.0, 255.0), reader)
        found[(slice(None), *block.core)] = strip.probabilities(*block.core)
    difference = np.abs(found - whole)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


def test_going_on_or_starting_in_the_middle_is_the_same_to_the_last_bit(
    predictor: Predictor, rng: np.random.Generator, reader: ThreadPoolExecutor
) -> None:
    image = rng.integers(0, 255, (300, 250), dtype=np.uint8)
    network = predictor.window_network(["cell"])
    columns = slice(0, 250)

    def strip() -> Strip:
        return Strip(network, source_of(image), columns, 0.7, (0.0, 255.0), reader)

    one = strip()
    for start in (0, 64, 128, 192, 256, 0):
        rows = slice(start, min(start + 64, 300))
        np.testing.assert_array_equal(
            one.probabilities(rows, columns), strip().probabilities(rows, columns)
        )


def test_every_window_is_looked_at_once_per_strip(
    predictor: Predictor, rng: np.random.Generator, reader: ThreadPoolExecutor
) -> None:
    image = rng.integers(0, 255, (640, 64), dtype=np.uint8)
    network = predictor.window_network(["cell"])
    seen: list[int] = []

    def counted(crops: torch.Tensor) -> list[torch.Tensor]:
        seen.append(len(crops))
        return list(network.probabilities(crops))

    counting = type(network)(**{**vars(network), "probabilities": counted})
    strip = Strip(counting, source_of(image), slice(0, 64), 1.0, (0.0, 255.0), reader)
    for block in blocks(image.shape, 64):
        strip.probabilities(*block.core)
        assert len(strip._norm) <= 64 + 2 * network.image_size
    step = network.image_size - network.overlap
    assert sum(seen) == -(-(640 - network.overlap) // step)
