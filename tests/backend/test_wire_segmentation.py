"""Segmentations on their way back from the backend."""

from __future__ import annotations

import io
import json
from typing import Any

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from clsclip.errors import InvalidRequestError
from clsclip.segmentation import AttentionMaps, RegionUsed, Segmentation
from clsclip.wire_segmentation import decode_segmentation, encode_segmentation
from npz_archives import archive, meta_of, npy

MB = 2**20


@given(
    probabilities=arrays.arrays(np.uint8, st.tuples(st.just(2), st.integers(0, 5), st.just(4))),
    seconds=st.floats(0, 1e6),
)
def test_segmentation_round_trip(probabilities: NDArray[np.uint8], seconds: float) -> None:
    sent = Segmentation(probabilities, ("a", "b"), "mini", "0f", (0.5, 2.0), seconds)
    received = decode_segmentation(encode_segmentation(sent), MB)
    np.testing.assert_array_equal(received.probabilities, probabilities)
    assert received.probabilities.dtype == np.uint8
    for name in ("words", "model", "model_version", "zooms", "seconds"):
        assert getattr(received, name) == getattr(sent, name)


def test_regions_round_trip() -> None:
    sent = Segmentation(
        np.zeros((2, 2, 2), np.uint8), ("a", "b"), "m", "v", (1.0, 2.0), 0.0,
        region_reasons=("Cells.", "Boxes."),
        proposals=(
            (RegionUsed((0.5, 1.0, 2.0, 2.0), 0.25, "detector"),),
            (RegionUsed((0.0, 0.0, 1.0, 1.0), None, "drawn"),) * 2,
        ),
    )  # fmt: skip
    received = decode_segmentation(encode_segmentation(sent), MB)
    assert received.region_reasons == sent.region_reasons
    assert received.proposals == sent.proposals


def test_no_proposals_of_a_word_are_told_from_no_proposals() -> None:
    nothing = Segmentation(
        np.zeros((1, 2, 2), np.uint8), ("a",), "m", "v", (1.0,), 0.0, ("None.",), ((),)
    )
    assert decode_segmentation(encode_segmentation(nothing), MB).proposals == ((),)


def test_without_regions_older_plugins_understand() -> None:
    # what they know; they refuse any other key
    answer = Segmentation(np.zeros((1, 2, 2), np.uint8), ("a",), "m", "v", (1.0,), 0.0)
    known = {"words", "model", "model_version", "zooms", "seconds"}
    assert set(meta_of(encode_segmentation(answer))) == known


@pytest.mark.parametrize("wrong", [{"region_reasons": ("", "")}, {"proposals": ((), ())}])
def test_reasons_and_proposals_that_do_not_belong_to_the_words_are_refused(
    wrong: dict[str, Any],
) -> None:
    answer = Segmentation(np.zeros((1, 2, 2), np.uint8), ("a",), "m", "v", (1.0,), 0.0, **wrong)
    with pytest.raises(InvalidRequestError, match="same version"):
        decode_segmentation(encode_segmentation(answer), MB)


def attentive(**changes: Any) -> Segmentation:
    maps = {
        "words": ("a", "b"), "layers": (3,),
        "original": np.full((1, 3, 4), 0.5, np.float16),
        "replaced": np.arange(24, dtype=np.float16).reshape(2, 1, 3, 4),
    }  # fmt: skip
    return Segmentation(
        np.zeros((2, 3, 4), np.uint8), ("a", "b"), "m", "v", (1.0, 1.0), 0.0,
        attention=AttentionMaps(**{**maps, **changes}),
    )  # fmt: skip


def test_attention_round_trip() -> None:
    sent, received = attentive(), decode_segmentation(encode_segmentation(attentive()), MB)
    assert sent.attention is not None
    assert received.attention is not None
    assert received.attention.words == ("a", "b")
    assert received.attention.layers == (3,)
    for name in ("original", "replaced"):
        array = getattr(received.attention, name)
        assert array.dtype == np.float16
        np.testing.assert_array_equal(array, getattr(sent.attention, name))


@pytest.mark.parametrize(
    "wrong",
    [
        {"layers": ()},
        {"layers": (3, 4)},
        {"original": np.zeros((1, 4, 3), np.float16)},
        {"original": np.zeros((1, 3, 4), np.float32)},
        {"replaced": np.zeros((1, 1, 3, 4), np.float16)},
    ],
)
def test_attention_of_another_shape_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match=r"attention maps.*same version"):
        decode_segmentation(encode_segmentation(attentive(**wrong)), MB)


def test_half_of_the_attention_is_refused() -> None:
    with np.load(io.BytesIO(encode_segmentation(attentive()))) as members:
        kept = {name: npy(members[name]) for name in members if name != "attention_original"}
    with pytest.raises(InvalidRequestError, match=r"attention maps.*same version"):
        decode_segmentation(archive(**kept), MB)


@pytest.mark.parametrize(
    "probabilities",
    [np.zeros((2, 3, 3), np.uint8), np.zeros((1, 3, 3)), np.zeros((1, 9), np.uint8)],
)
def test_foreign_segmentation(probabilities: NDArray[Any]) -> None:
    meta = {"words": ["a"], "model": "m", "model_version": "v", "zooms": [1.0], "seconds": 0.0}
    text = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    with pytest.raises(InvalidRequestError, match="same version"):
        decode_segmentation(archive(probabilities=npy(probabilities), meta=npy(text)), MB)
