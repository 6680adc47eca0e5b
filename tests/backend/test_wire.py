from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from typing import Any

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from clsclip.config import MAX_WORD_LENGTH, MAX_WORDS
from clsclip.errors import (
    ClsClipError,
    InvalidImageError,
    InvalidRequestError,
    InvalidWordError,
    RequestTooLargeError,
)
from clsclip.segmentation import AttentionMaps, RegionUsed, Segmentation
from clsclip.typed_words import check_words, parse_words
from clsclip.wire import (
    ErrorAnswer,
    SegmentRequest,
    decode_segment_request,
    decode_segmentation,
    encode_segment_request,
    encode_segmentation,
    error_json,
)

MB = 2**20
META = SegmentRequest(words=("cell",)).model_dump_json().encode()
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


def npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def archive(compression: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def request_with(image: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    return archive(compression, image=image, meta=npy(np.frombuffer(META, np.uint8)))


def npy_with_header(header: str, data: bytes = b"") -> bytes:
    text = header.encode("latin1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


# ---- round trips ----


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


def test_what_numpy_savez_compressed_writes_is_read(rng: np.random.Generator) -> None:
    image = rng.random((5, 6, 3))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, image=image, meta=np.frombuffer(META, np.uint8))
    received, _ = decode_segment_request(buffer.getvalue(), MB)
    np.testing.assert_array_equal(received, image)


def test_words_are_cleaned_on_arrival() -> None:
    body = encode_segment_request(
        np.zeros((2, 2)), SegmentRequest(words=(" red  blood cell", "Nucleus", "nucleus"))
    )
    assert decode_segment_request(body, MB)[1].words == ("red blood cell", "Nucleus")


# ---- regions ----


def meta_of(body: bytes) -> dict[str, Any]:
    with np.load(io.BytesIO(body)) as members:
        found: dict[str, Any] = json.loads(members["meta"].tobytes())
    return found


def test_regions_round_trip() -> None:
    asked = SegmentRequest(
        words=("cell",), regions="auto", detector="cells.onnx",
        drawn=((-3.5, 0.0, 4.25, 1e6), (0.0, 0.0, 1.0, 1.0)),
    )  # fmt: skip
    assert decode_segment_request(encode_segment_request(np.zeros((2, 2)), asked), MB)[1] == asked
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


def test_without_regions_older_plugins_and_backends_understand() -> None:
    # what they know; they refuse any other key
    request = encode_segment_request(np.zeros((2, 2)), SegmentRequest(words=("a",)))
    assert set(meta_of(request)) == {"model", "zoom", "templates", "words", "contrast_limits"}
    answer = Segmentation(np.zeros((1, 2, 2), np.uint8), ("a",), "m", "v", (1.0,), 0.0)
    known = {"words", "model", "model_version", "zooms", "seconds"}
    assert set(meta_of(encode_segmentation(answer))) == known
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


@pytest.mark.parametrize("wrong", [{"region_reasons": ("", "")}, {"proposals": ((), ())}])
def test_reasons_and_proposals_that_do_not_belong_to_the_words_are_refused(
    wrong: dict[str, Any],
) -> None:
    answer = Segmentation(np.zeros((1, 2, 2), np.uint8), ("a",), "m", "v", (1.0,), 0.0, **wrong)
    with pytest.raises(InvalidRequestError, match="same version"):
        decode_segmentation(encode_segmentation(answer), MB)


# ---- attention ----


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
    asked = SegmentRequest(words=("cell",), attention=True)
    assert decode_segment_request(encode_segment_request(np.zeros((2, 2)), asked), MB)[1] == asked
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


def test_attention_of_a_part_of_a_plane_is_refused() -> None:
    with pytest.raises(ValueError, match="attention cannot be shown of a part"):
        SegmentRequest(
            words=("a",), contrast_limits=(0, 1), attention=True,
            part={"shape": (9, 9), "origin": (0, 0), "core": (0, 0, 4, 4), "passes": ((1.0,),)},
        )  # fmt: skip


# ---- words ----


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nucleus", ("nucleus",)),
        (" red  cell , , Nucleus,nucleus ", ("red cell", "Nucleus")),
        ("straße,STRASSE", ("straße",)),
    ],
)
def test_parse_words(text: str, words: tuple[str, ...]) -> None:
    assert parse_words(text) == words


@pytest.mark.parametrize("text", ["", " , ,", ",".join(f"w{k}" for k in range(MAX_WORDS + 1))])
def test_parse_words_refuses(text: str) -> None:
    with pytest.raises(InvalidWordError):
        parse_words(text)


def test_word_lengths() -> None:
    longest = "x" * MAX_WORD_LENGTH
    assert check_words([longest]) == (longest,)
    with pytest.raises(InvalidWordError, match=str(MAX_WORD_LENGTH + 1)):
        check_words([longest + "x"])
    with pytest.raises(InvalidWordError, match="empty"):
        check_words(["cell", " "])


# ---- hostile archives ----


def test_zip_bomb_is_refused_by_what_it_declares() -> None:
    bomb = request_with(npy(np.zeros(64 * MB, np.uint8)), zipfile.ZIP_DEFLATED)
    assert len(bomb) < MB
    tracemalloc.start()
    with pytest.raises(RequestTooLargeError, match="67,"):
        decode_segment_request(bomb, 32 * MB)
    assert tracemalloc.get_traced_memory()[1] < 4 * MB
    tracemalloc.stop()


def test_zip_bomb_that_lies_is_not_unpacked() -> None:
    content = npy(np.zeros(64 * MB, np.uint8))
    body = bytearray(request_with(content, zipfile.ZIP_DEFLATED))
    size, lie = struct.pack("<L", len(content)), struct.pack("<L", 200)
    assert body.count(size) == 2  # local header and central directory
    body = body.replace(size, lie)
    tracemalloc.start()
    with pytest.raises(InvalidRequestError):
        decode_segment_request(bytes(body), 32 * MB)
    assert tracemalloc.get_traced_memory()[1] < 4 * MB
    tracemalloc.stop()


def test_other_compressions_are_refused() -> None:
    # Their decompressors cannot be told to stop.
    body = request_with(npy(np.zeros((2, 2))), zipfile.ZIP_BZIP2)
    with pytest.raises(InvalidRequestError, match="stored"):
        decode_segment_request(body, MB)


class Exploit:
    def __reduce__(self) -> Any:
        return (sys.exit, ("unpickled",))


def test_pickles_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="pickled"):
        decode_segment_request(request_with(npy(np.array([[Exploit()]], object))), MB)


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_archive(part: float) -> None:
    body = encode_segment_request(np.ones((30, 30)), SegmentRequest(words=("cell",)))
    with pytest.raises(InvalidRequestError, match="truncated"):
        decode_segment_request(body[: int(part * len(body))], MB)


@pytest.mark.parametrize(
    "shape", ["(2, 3)", "(1000000, 1000000)", "(-1, 4)", "(-2, -2)", "(10**9,)", "(2, 2.0)", "4",
              f"({2**63}, {2**63})", f"(0, {2**70})", "(4,) * 3", "(True, 4, 2)"],
)  # fmt: skip
def test_lying_header(shape: str) -> None:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}"
    with pytest.raises(InvalidRequestError):
        decode_segment_request(request_with(npy_with_header(header, b"abcd")), MB)


@given(header=st.text(max_size=60), data=st.binary(max_size=10))
@settings(max_examples=200)
def test_any_header_is_read_or_refused(header: str, data: bytes) -> None:
    image = npy_with_header(header.encode("latin1", "replace").decode("latin1"), data)
    with pytest.raises(InvalidRequestError):
        decode_segment_request(request_with(image), MB)


@given(flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), max_size=4))
@settings(max_examples=300)
def test_damaged_archive_is_read_or_refused(flips: list[tuple[int, int]]) -> None:
    body = bytearray(request_with(npy(np.arange(12.0).reshape(3, 4)), zipfile.ZIP_DEFLATED))
    for position, mask in flips:
        body[position % len(body)] ^= mask
    try:
        image, request = decode_segment_request(bytes(body), MB)
    except ClsClipError:
        undamaged = not flips
        assert not undamaged
    else:
        assert image.dtype.kind in "buif"
        assert request.words


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"image": npy(np.zeros(3))},
        {"image": npy(np.zeros(3)), "meta": npy(np.frombuffer(META, np.uint8)), "more": b""},
    ],
)
def test_wrong_members(members: dict[str, bytes]) -> None:
    with pytest.raises(InvalidRequestError, match="expected"):
        decode_segment_request(archive(**members), MB)


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


@pytest.mark.parametrize(
    "probabilities",
    [np.zeros((2, 3, 3), np.uint8), np.zeros((1, 3, 3)), np.zeros((1, 9), np.uint8)],
)
def test_foreign_segmentation(probabilities: NDArray[Any]) -> None:
    meta = {"words": ["a"], "model": "m", "model_version": "v", "zooms": [1.0], "seconds": 0.0}
    text = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    with pytest.raises(InvalidRequestError, match="same version"):
        decode_segmentation(archive(probabilities=npy(probabilities), meta=npy(text)), MB)


# ---- the rest ----


def test_error_json_of_a_name_that_is_no_text() -> None:
    answer = ErrorAnswer.model_validate_json(error_json("file", "cannot read 'a\udcffb'"))
    assert answer.error.message == "cannot read 'a?b'"


def test_the_wire_never_loads_torch() -> None:
    code = "import sys, clsclip.wire, clsclip.config, clsclip.errors; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "False"
