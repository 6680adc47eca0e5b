"""Requests on their way to the backend, and what is said beside the arrays."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from clsclip.errors import InvalidImageError, InvalidRequestError
from clsclip.wire import (
    ErrorAnswer,
    SegmentRequest,
    decode_segment_request,
    encode_segment_request,
    error_json,
)
from npz_archives import archive, meta_of, npy, request_with

MB = 2**20
DTYPES = st.one_of(
    arrays.boolean_dtypes(),
    arrays.integer_dtypes(endianness="?"),
    arrays.unsigned_integer_dtypes(endianness="?"),
    arrays.floating_dtypes(endianness="?"),
)
WORDS = st.lists(
    st.text(st.characters(exclude_categories=("Cs", "Zs", "Cc")), min_size=1, max_size=20).filter(
        lambda word: word == " ".join(word.split())
    ),
    min_size=1,
    max_size=5,
    unique_by=str.casefold,
)


@given(
    image=arrays.arrays(DTYPES, arrays.array_shapes(min_dims=2, max_dims=3, max_side=6)),
    words=WORDS,
    fortran=st.booleans(),
)
def test_request_round_trip(image: NDArray[Any], words: list[str], fortran: bool) -> None:
    sent = np.asfortranarray(image) if fortran else image[::-1]
    asked = SegmentRequest(words=tuple(words), zoom=0.5, contrast_limits=(-1.5, 2.0))
    received, request = decode_segment_request(encode_segment_request(sent, asked), MB)
    assert request == asked
    assert received.dtype == sent.dtype
    np.testing.assert_array_equal(received, sent)


def test_words_are_cleaned_on_arrival() -> None:
    body = encode_segment_request(
        np.zeros((2, 2)), SegmentRequest(words=(" red  blood cell", "Nucleus", "nucleus"))
    )
    assert decode_segment_request(body, MB)[1].words == ("red blood cell", "Nucleus")


def test_regions_round_trip() -> None:
    asked = SegmentRequest(
        words=("cell",), regions="auto", detector="cells.onnx",
        drawn=((-3.5, 0.0, 4.25, 1e6), (0.0, 0.0, 1.0, 1.0)),
    )  # fmt: skip
    assert decode_segment_request(encode_segment_request(np.zeros((2, 2)), asked), MB)[1] == asked


def test_without_regions_older_backends_understand() -> None:
    # what they know; they refuse any other key
    request = encode_segment_request(np.zeros((2, 2)), SegmentRequest(words=("a",)))
    assert set(meta_of(request)) == {"model", "zoom", "templates", "words", "contrast_limits"}
    tiles = encode_segment_request(np.zeros((2, 2)), SegmentRequest(words=("a",), regions="tiles"))
    assert meta_of(tiles)["regions"] == "tiles"
    assert not {"detector", "drawn"} & set(meta_of(tiles))


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ('"drawn": [[0, 0, 4, 4], [3, 0, 3, 4]]', r"'drawn\.1'.*top < bottom"),
        ('"drawn": [[0, 5, 4, 4]]', r"'drawn\.0'.*left < right"),
        ('"drawn": [[0, 0, 4, NaN]]', r"'drawn\.0\.3'.*finite"),
        ('"drawn": [[0, 0, 4, Infinity]]', r"'drawn\.0\.3'.*finite"),
        ('"drawn": [[0, 0, 4]]', r"'drawn\.0\.3'.*required"),
        ('"drawn": [[0, 0, 4, 4, 4]]', r"'drawn\.0'.*at most 4"),
        ('"drawn": [["a", 0, 4, 4]]', r"'drawn\.0\.0'.*number"),
        ('"drawn": [' + ", ".join(["[0, 0, 1, 1]"] * 3001) + "]", "'drawn'.*at most 3000"),
        ('"regions": "magic"', "'regions'.*'open-vocabulary'"),
    ],
)
def test_wrong_regions_are_named(regions: str, message: str) -> None:
    meta = npy(np.frombuffer(f'{{"words": ["a"], {regions}}}'.encode(), np.uint8))
    with pytest.raises(InvalidRequestError, match=message):
        decode_segment_request(archive(image=npy(np.zeros((2, 2))), meta=meta), MB)


def test_attention_round_trip() -> None:
    asked = SegmentRequest(words=("cell",), attention=True)
    assert decode_segment_request(encode_segment_request(np.zeros((2, 2)), asked), MB)[1] == asked


def test_attention_of_a_part_of_a_plane_is_refused() -> None:
    with pytest.raises(ValueError, match="attention cannot be shown of a part"):
        SegmentRequest(
            words=("a",), contrast_limits=(0, 1), attention=True,
            part={"shape": (9, 9), "origin": (0, 0), "core": (0, 0, 4, 4), "passes": ((1.0,),)},
        )  # fmt: skip


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((2, 2), np.complex64),
        np.array([["a"]]),
        np.zeros((2, 2), [("x", "u1")]),
        np.zeros((2, 2), "M8[s]"),
    ],
)
def test_only_numbers_are_images(image: NDArray[Any]) -> None:
    with pytest.raises(InvalidImageError):
        decode_segment_request(request_with(npy(image)), MB)
    with pytest.raises(InvalidImageError):
        encode_segment_request(image, SegmentRequest(words=("cell",)))


@pytest.mark.parametrize(
    "meta",
    [
        np.zeros(2, "f8"),
        np.zeros((2, 2), np.uint8),
        np.zeros(3, [("x", "u1")]),
        np.array([255, 254], np.uint8),
        np.frombuffer(b"[]", np.uint8),
        np.frombuffer(b'{"words": ["a"], "unknown": 1}', np.uint8),
        np.frombuffer(b'{"words": ["a"], "zoom": 0}', np.uint8),
        np.frombuffer(b'{"words": ["a"], "contrast_limits": [NaN, 1]}', np.uint8),
    ],
)
def test_wrong_meta(meta: NDArray[Any]) -> None:
    body = archive(image=npy(np.zeros((2, 2))), meta=npy(meta))
    with pytest.raises(InvalidRequestError):
        decode_segment_request(body, MB)


def test_a_fault_of_the_meta_is_named() -> None:
    meta = npy(np.frombuffer(b'{"words": ["a"], "zoom": -3}', np.uint8))
    with pytest.raises(InvalidRequestError, match=r"'zoom'.*greater than 0.*'-3'"):
        decode_segment_request(archive(image=npy(np.zeros((2, 2))), meta=meta), MB)


def test_error_json_of_a_name_that_is_no_text() -> None:
    answer = ErrorAnswer.model_validate_json(error_json("file", "cannot read 'a\udcffb'"))
    assert answer.error.message == "cannot read 'a?b'"


def test_the_wire_never_loads_torch() -> None:
    code = "import sys, clsclip.wire_segmentation, clsclip.errors; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "False"
