"""Messages about batches; their routes are tested with the service."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from clsclip.errors import InvalidRequestError, RequestTooLargeError
from clsclip.wire_batch import (
    BatchFile,
    BatchRequest,
    ImageCopy,
    decode_review,
    encode_review,
)


def test_corrected_labels_arrive_as_they_were_sent(rng: np.random.Generator) -> None:
    labels = rng.integers(0, 70000, (3, 17, 23)).astype(np.int32)
    got = decode_review(encode_review(labels), 10**6)
    assert got.dtype == np.uint32
    np.testing.assert_array_equal(got, labels)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.full((4, 4), -1), "from -1 to -1"),
        (np.full((4, 4), 2**32), "4294967296"),
        (np.zeros((4, 4)), "float64"),
        (np.zeros(4, np.uint8), r"\(4,\)"),
        (np.zeros((0, 4), np.uint8), r"\(0, 4\)"),
    ],
)
def test_what_cannot_be_labels_is_refused(labels: np.ndarray, said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        decode_review(encode_review(labels), 10**6)


def test_too_many_labels_are_refused() -> None:
    with pytest.raises(RequestTooLargeError):
        decode_review(encode_review(np.zeros((100, 100), np.uint16)), 10_000)


def test_other_bytes_are_refused() -> None:
    with pytest.raises(InvalidRequestError):
        decode_review(b"PK no archive", 10**6)


def test_what_older_versions_do_not_know_is_sent_only_where_it_is_needed() -> None:
    request = BatchRequest(inputs=("/images",), words=("cell",), output="/labels")
    file = BatchFile(number=0, file="/images/a.png", status="done")
    assert "copies" not in request.model_dump_json()
    assert "copied_to" not in file.model_dump_json()
    copies = (ImageCopy(file="/images/a.czi", copied_to="/labels/.read/a.ome.tif"),)
    for sent in (
        request.model_copy(update={"copies": copies}),
        file.model_copy(update={"copied_to": copies[0].copied_to}),
    ):
        assert type(sent).model_validate_json(sent.model_dump_json()) == sent


@pytest.mark.parametrize(
    "wrong", [{"inputs": []}, {"words": []}, {"formats": ["gif"]}, {"output": ""}, {"colour": 1}]
)
def test_a_request_names_what_is_wrong(wrong: dict[str, object]) -> None:
    right = {"inputs": ["/images"], "words": ["cell"], "output": "/labels"}
    assert BatchRequest.model_validate(right).formats == ("tiff",)
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        BatchRequest.model_validate({**right, **wrong})
