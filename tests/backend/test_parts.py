"""Parts of a plane, as requests bring them, give what one look at the whole plane gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from clsclip.blocks import blocks, window_halo
from clsclip.errors import CancelledError, InvalidImageError, InvalidRequestError
from clsclip.predict.parts import PartPredictor
from clsclip.predict.strips import WindowNetwork
from clsclip.wire import PlanePart, SegmentRequest

LIMITS = (100.0, 3000.0)
WINDOW = 64  # of the tiny model


@pytest.fixture(scope="module")
def predictor(tiny_model: Path) -> PartPredictor:
    return PartPredictor(str(tiny_model), device="cpu")


def in_parts(
    predictor: PartPredictor,
    image: NDArray[np.uint16],
    words: list[str],
    passes: tuple[tuple[float, ...], ...],
    core: int,
) -> NDArray[np.int64]:
    """Probabilities of a plane of which each request brings a part."""
    found = np.full((len(words), *image.shape[:2]), -1)
    halo = window_halo(WINDOW, min(zoom for zooms in passes for zoom in zooms))
    for block in blocks(image.shape[:2], core, halo):
        part = PlanePart(
            shape=image.shape[:2], origin=(block.read[0].start, block.read[1].start),
            core=(block.core[0].start, block.core[1].start,
                  block.core[0].stop, block.core[1].stop),
            passes=passes,
        )  # fmt: skip
        answer = predictor.segment_part(image[block.read], words, part, contrast_limits=LIMITS)
        assert answer.probabilities.shape[1:] == block.shape
        assert answer.zooms == tuple(zooms[0] for zooms in passes)
        found[(slice(None), *block.core)] = answer.probabilities
    return found


@pytest.mark.parametrize("channels", [(), (3,)])
def test_parts_equal_one_look(
    predictor: PartPredictor, rng: np.random.Generator, channels: tuple[int, ...]
) -> None:
    """At most one step of 1/255 apart, at very few pixels, as docs/large.md says."""
    image = rng.integers(0, 4000, (200, 300, *channels), dtype=np.uint16)
    words, passes = ["nucleus", "cell"], ((1.0,), (1.0, 0.6))
    found = in_parts(predictor, image, words, passes, 96)
    for k, zooms in enumerate(passes):
        whole = [
            predictor.segment(image, [words[k]], zoom=zoom, contrast_limits=LIMITS)
            .probabilities[0]
            .astype(float)
            for zoom in zooms
        ]
        difference = np.abs(found[k] - np.mean(whole, axis=0))
        assert difference.max() <= 1
        assert (difference > 0.5).mean() < 0.01  # half a step is the rounding of the mean


class MeanPredictor(PartPredictor):
    """The windows of a network that answers each pixel's brightness, and is quick."""

    def __init__(self) -> None:
        self.name = self.version = "mean"

    def window_network(self, words: Sequence[str], *, templates: bool = True) -> WindowNetwork:
        return WindowNetwork(
            image_size=WINDOW, patch_size=16, overlap=WINDOW // 4, batch=64,
            device=torch.device("cpu"), probabilities=lambda crops: [crops.mean(dim=1)],
        )  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 300), width=st.integers(1, 300), core=st.integers(40, 200),
    zoom=st.floats(0.1, 2.5),
)  # fmt: skip
def test_the_halo_is_wide_enough(height: int, width: int, core: int, zoom: float) -> None:
    image = np.zeros((height, width), np.uint16)
    side = max(core, height // 2, width // 2)
    assert (in_parts(MeanPredictor(), image, ["nucleus"], ((zoom,),), side) == 0).all()


def test_a_part_that_is_too_small_is_refused(predictor: PartPredictor) -> None:
    part = PlanePart(
        shape=(500, 500), origin=(100, 100), core=(200, 200, 300, 300), passes=((1.0,),)
    )
    image = np.zeros((220, 220), np.uint8)
    with pytest.raises(InvalidImageError, match=r"holds 100 to 320 .* core needs"):
        predictor.segment_part(image, ["nucleus"], part, contrast_limits=(0, 255))
    with pytest.raises(InvalidImageError, match="part of shape"):
        predictor.segment_part(image[None, None], ["nucleus"], part, contrast_limits=(0, 255))
    with pytest.raises(InvalidRequestError, match="2 words have 1 lists of zooms"):
        predictor.segment_part(image, ["nucleus", "cell"], part, contrast_limits=(0, 255))


def test_windows_are_told_and_can_be_cancelled(predictor: PartPredictor) -> None:
    image = np.zeros((600, 400), np.uint8)
    part = PlanePart(shape=(2000, 400), origin=(700, 0), core=(900, 0, 1100, 400), passes=((1.0,),))
    steps: list[tuple[int, int]] = []
    predictor.segment_part(
        image, ["nucleus"], part, contrast_limits=(0, 255),
        progress=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    assert steps[0][0] == 0
    assert steps[-1][0] == steps[-1][1] == steps[0][1] > 3
    with pytest.raises(CancelledError):
        predictor.segment_part(
            image, ["nucleus"], part, contrast_limits=(0, 255),
            cancelled=lambda: True,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("part", "request_options", "words"),
    [
        ({"core": (0, 0, 101, 50)}, {}, "core is"),
        ({"core": (10, 0, 10, 50)}, {}, "core is"),
        ({"passes": ((),)}, {}, "at least one zoom"),
        ({"passes": ((0.0,),)}, {}, "greater than 0"),
        ({}, {"contrast_limits": None}, "contrast limits"),
        ({}, {"regions": "tiles"}, "regions"),
        ({}, {"words": ("cell", "dog")}, "2 words have 1"),
    ],
)
def test_requests_that_make_no_sense(part: dict, request_options: dict, words: str) -> None:
    good = {"shape": (100, 100), "origin": (0, 0), "core": (0, 0, 50, 50), "passes": ((1.0,),)}
    with pytest.raises(ValidationError, match=words):
        SegmentRequest(
            **{
                "words": ("cell",),
                "contrast_limits": (0, 255),
                "part": PlanePart(**(good | part)),
            }
            | request_options
        )
