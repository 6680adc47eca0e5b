from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from clsclip.npz import encode_npz
from clsclip.store.store import AnnotationStore
from clsclip.wire import ErrorAnswer
from clsclip.wire_annotations import (
    Annotation,
    AnnotationList,
    Correction,
    Details,
    decode_correction,
    encode_correction,
)

IMAGE = np.arange(48, dtype=np.uint16).reshape(6, 8)


def correction(value: int = 0, **changes: Any) -> Correction:
    given = {
        "image": IMAGE + np.uint16(value), "labels": (IMAGE > 20).astype(np.uint8),
        "words": ("cell",), "vouched": IMAGE > 3, "details": Details(source="a layer"),
    }  # fmt: skip
    return Correction(**{**given, **changes})


@pytest.fixture
def service(serve: Any, gated: Any, tmp_path: Path) -> Any:
    return serve(gated, store=str(tmp_path / "store"))


def add(service: Any, given: Correction, replaces: str = "") -> httpx.Response:
    answer = service.http.post("/v1/annotations", content=encode_correction(given, replaces))
    assert isinstance(answer, httpx.Response)
    return answer


def test_the_wire_keeps_everything() -> None:
    given = correction()
    read, replaces = decode_correction(encode_correction(given, "abc"), 2**20)
    assert replaces == "abc"
    assert (read.words, read.details) == (given.words, given.details)
    for name in ("image", "labels", "vouched"):
        np.testing.assert_array_equal(getattr(read, name), getattr(given, name))


def test_what_is_accepted_is_in_the_store(service: Any, tmp_path: Path) -> None:
    answer = add(service, correction())
    assert answer.status_code == 201
    added = Annotation.model_validate_json(answer.content)
    with AnnotationStore(tmp_path / "store") as store:
        assert store.list() == [added]
        arrays = store.read(added)
    np.testing.assert_array_equal(arrays.image, IMAGE)
    assert arrays.vouched is not None
    np.testing.assert_array_equal(arrays.vouched, IMAGE > 3)


def test_lists_of_a_word(service: Any) -> None:
    first = Annotation.model_validate_json(add(service, correction()).content)
    add(service, correction(1, words=("vessel",)))
    answer = service.http.get("/v1/annotations", params={"word": "Cell", "limit": 5})
    found = AnnotationList.model_validate_json(answer.content)
    assert found.annotations == (first,)
    assert found.total == 2
    assert found.words == {"cell": 1, "vessel": 1}


def test_a_conflict_is_told(service: Any) -> None:
    first = Annotation.model_validate_json(add(service, correction()).content)
    assert add(service, correction(1), first.id).status_code == 201
    answer = add(service, correction(2), first.id)
    assert answer.status_code == 409
    assert ErrorAnswer.model_validate_json(answer.content).error.code == "conflict"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"no archive", "invalid_request"),
        (encode_correction(correction(labels=np.ones((2, 2), np.uint8))), "invalid_image"),
        (encode_correction(correction(words=())), "invalid_word"),
        (encode_correction(correction(), "beef"), "not_found"),
        (encode_npz('{"words": ["a"], "more": 1}', image=IMAGE, labels=IMAGE, vouched=IMAGE > 1),
         "invalid_request"),
        (encode_npz('{"words": ["a"]}', image=IMAGE, labels=IMAGE, vouched=IMAGE),
         "invalid_request"),
    ],
)  # fmt: skip
def test_bad_requests(service: Any, body: bytes, code: str) -> None:
    answer = service.http.post("/v1/annotations", content=body)
    assert answer.is_client_error
    assert ErrorAnswer.model_validate_json(answer.content).error.code == code
    listed = AnnotationList.model_validate_json(service.http.get("/v1/annotations").content)
    assert listed.total == 0


def test_strangers_are_refused(service: Any) -> None:
    for method in ("GET", "POST"):
        answer = httpx.request(
            method, f"{service.http.base_url}/v1/annotations", trust_env=False, timeout=10
        )
        assert answer.status_code == 401


def test_a_store_that_cannot_be_opened_leaves_segmentation_alone(
    serve: Any, gated: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("where the folder should be")
    service = serve(gated, store=str(tmp_path / "file"))
    answer = add(service, correction())
    assert ErrorAnswer.model_validate_json(answer.content).error.code == "file"
    gated.gate.set()
    assert service.post("one").status_code == 200
