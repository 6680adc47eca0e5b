from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import clsclip
from clsclip.config import DEFAULT_MODEL, BackendSettings
from clsclip.errors import DeviceError
from clsclip.model.registry import list_models
from clsclip.predict.predictor import Predictor
from clsclip.service.app import create_app
from clsclip.wire import (
    NPZ_MEDIA_TYPE,
    ErrorAnswer,
    HealthReport,
    ModelList,
    Progress,
    SegmentRequest,
    encode_segment_request,
)
from clsclip.wire_segmentation import decode_segmentation
from waiting import PATIENCE, eventually

MB = 2**20


def error_of(answer: httpx.Response) -> tuple[int, str, str]:
    assert answer.headers["content-type"] == "application/json"
    detail = ErrorAnswer.model_validate_json(answer.content).error
    return answer.status_code, detail.code, detail.message


def health(service: Any) -> HealthReport:
    return HealthReport.model_validate_json(service.http.get("/v1/health").content)


# ---- a model at work ----


def test_a_segmentation_is_the_predictor_s(
    serve: Any, tiny_model: Path, rng: np.random.Generator
) -> None:
    image = rng.integers(0, 4000, (70, 90)).astype(np.uint16)
    asked = SegmentRequest(
        words=("nucleus", "cell"), model=str(tiny_model), zoom=1.0, contrast_limits=(10, 3900),
        templates=False,
    )  # fmt: skip
    service = serve(Predictor)
    answer = service.post("real", encode_segment_request(image, asked))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == NPZ_MEDIA_TYPE
    assert int(answer.headers["content-length"]) == len(answer.content)
    received = decode_segmentation(answer.content, MB)
    expected = Predictor(str(tiny_model), device="cpu").segment(
        image, asked.words, contrast_limits=(10, 3900), zoom=1.0, templates=False
    )
    assert received.words == asked.words
    assert received.model_version == expected.model_version
    assert received.probabilities.shape == (2, 70, 90)
    # Two threads may add up in another order.
    difference = received.probabilities.astype(int) - expected.probabilities
    assert np.abs(difference).max() <= 1
    assert health(service).loaded_models == (str(tiny_model),)


def test_regions_are_the_predictor_s(serve: Any, plus_model: Path, disk: Any, no_hub: None) -> None:
    image = (disk(100, 160, 60, 100, 30) * 255).astype(np.uint8)
    service = serve(Predictor)
    predictor = Predictor(str(plus_model), device="cpu")
    for number, how in enumerate(
        ({"regions": "detector"}, {"regions": "tiles", "zoom": 1.0},
         {"regions": "auto", "drawn": ((-5.0, 100.0, 30.0, 999.0),)})
    ):  # fmt: skip
        asked = SegmentRequest(words=("dog",), model=str(plus_model), **how)
        answer = service.post(f"r{number}", encode_segment_request(image, asked))
        received = decode_segmentation(answer.content, MB)
        expected = predictor.segment(image, ["dog"], **how)
        assert received.region_reasons == expected.region_reasons
        assert len(received.region_reasons) == 1
        assert received.proposals == expected.proposals
        assert len(received.proposals[0]) > 0
        difference = received.probabilities.astype(int) - expected.probabilities
        assert np.abs(difference).max() <= 1


@pytest.mark.parametrize(
    ("settings", "status", "code", "words"),
    [
        ({"regions": "tiles", "drawn": ((0, 0, 5, 5),)}, 422, "invalid_config", "drawn boxes"),
        ({"regions": "detector"}, 422, "invalid_config", "There is no detector"),
        ({"regions": "auto", "detector": "/no/where.onnx"}, 500, "checkpoint", "/no/where.onnx"),
    ],
)
def test_regions_that_cannot_be_had(
    serve: Any, tiny_model: Path, settings: dict[str, Any], status: int, code: str, words: str
) -> None:
    asked = SegmentRequest(words=("cell",), model=str(tiny_model), **settings)
    answer = serve(Predictor).post("bad", encode_segment_request(np.zeros((9, 9)), asked))
    assert error_of(answer)[:2] == (status, code)
    assert words in error_of(answer)[2]


def test_an_answer_of_many_pieces(serve: Any, gated: Any) -> None:
    gated.gate.set()
    image = np.zeros((1500, 1001), np.uint8)
    asked = SegmentRequest(words=("a", "b", "c"))
    answer = serve(gated).post("large", encode_segment_request(image, asked))
    result = decode_segmentation(answer.content, 8 * MB)
    assert result.probabilities.shape == (3, 1500, 1001)
    assert result.words == asked.words


@pytest.mark.parametrize(
    ("image", "settings", "status", "code"),
    [
        (np.zeros((4, 4, 7), np.uint8), {}, 422, "invalid_image"),
        (np.full((4, 4), np.nan), {}, 422, "invalid_image"),
        (np.zeros((0, 4), np.uint8), {}, 422, "invalid_image"),
        (np.zeros((4, 4), np.uint8), {"words": (" ",)}, 422, "invalid_word"),
        (np.zeros((4, 4), np.uint8), {"model": "no-such-model"}, 404, "unknown_model"),
    ],
)
def test_what_cannot_be_segmented(
    serve: Any, tiny_model: Path, image: Any, settings: dict[str, Any], status: int, code: str
) -> None:
    asked = SegmentRequest(**{"words": ("cell",), "model": str(tiny_model), **settings})
    answer = serve(Predictor).post("bad", encode_segment_request(image, asked))
    assert error_of(answer)[:2] == (status, code)


def test_models(serve: Any, gated: Any) -> None:
    answer = serve(gated).http.get("/v1/models")
    models = ModelList.model_validate_json(answer.content).models
    assert models == list_models()
    if models:
        assert models[0].name == DEFAULT_MODEL


def test_the_window_of_a_model(serve: Any, gated: Any, tiny_model: Path) -> None:
    service = serve(gated)
    answer = service.http.get("/v1/window", params={"model": str(tiny_model)})
    assert answer.json() == {"image_size": 64}
    answer = service.http.get("/v1/window", params={"model": "no-such-model"})
    assert error_of(answer)[:2] == (404, "unknown_model")


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(DeviceError, match="warp-drive"):
        create_app(BackendSettings(device="warp-drive"), "token")


# ---- while the device is busy ----


def test_health_is_answered_while_a_segmentation_runs(serve: Any, gated: Any) -> None:
    service = serve(gated)
    before = health(service)
    assert (before.queued, before.running, before.loaded_models) == (0, 0, ())
    assert before.version == clsclip.__version__
    assert before.device.startswith("CPU (")
    answers = service.post_in_thread("busy")
    assert gated.entered.wait(PATIENCE)
    started = time.monotonic()
    during = health(service)
    assert time.monotonic() - started < 1.0
    assert (during.queued, during.running, during.loaded_models) == (0, 1, ("mini",))
    assert during.uptime_seconds > before.uptime_seconds
    assert not answers
    gated.gate.set()
    eventually(lambda: answers)
    assert answers[0].status_code == 200
    assert health(service).running == 0


def test_progress(serve: Any, gated: Any) -> None:
    service = serve(gated)
    answers = service.post_in_thread("a")
    assert gated.entered.wait(PATIENCE)
    service.post_in_thread("b")
    eventually(lambda: health(service).queued == 1)

    def progress(request_id: str) -> Progress:
        answer = service.http.get(f"/v1/segment/{request_id}")
        return Progress.model_validate_json(answer.content)

    assert progress("a") == Progress(state="running", done=1, total=2)
    assert progress("b") == Progress(state="queued", done=0, total=0)
    gated.gate.set()
    eventually(lambda: answers)
    assert error_of(service.http.get("/v1/segment/a"))[:2] == (404, "not_found")


def test_a_full_queue(serve: Any, gated: Any) -> None:
    service = serve(gated, queue_size=1)
    service.post_in_thread("running")
    assert gated.entered.wait(PATIENCE)
    waiting = service.post_in_thread("waiting")
    eventually(lambda: health(service).queued == 1)
    refused = service.post("refused")
    status, code, message = error_of(refused)
    assert (status, code) == (503, "busy")
    assert "--queue-size" in message
    assert int(refused.headers["retry-after"]) > 0
    gated.gate.set()
    eventually(lambda: waiting)
    assert waiting[0].status_code == 200


def test_an_unfinished_request_id_is_refused(serve: Any, gated: Any) -> None:
    service = serve(gated)
    first = service.post_in_thread("same")
    assert gated.entered.wait(PATIENCE)
    assert error_of(service.post("same"))[:2] == (422, "invalid_request")
    gated.gate.set()
    eventually(lambda: first)
    assert first[0].status_code == 200


def test_cancel_waiting_and_running(serve: Any, gated: Any) -> None:
    service = serve(gated)
    running = service.post_in_thread("running")
    assert gated.entered.wait(PATIENCE)
    waiting = service.post_in_thread("waiting")
    eventually(lambda: health(service).queued == 1)
    for request_id, answers in (("waiting", waiting), ("running", running)):
        cancelled = service.http.delete(f"/v1/segment/{request_id}")
        assert (cancelled.status_code, cancelled.content) == (204, b"")
        eventually(lambda answers=answers: answers)
        assert error_of(answers[0])[:2] == (409, "cancelled")
        again = service.http.delete(f"/v1/segment/{request_id}")
        assert error_of(again)[:2] == (404, "not_found")
    eventually(lambda: health(service).running == 0)
    assert len(gated.images) == 1


@pytest.mark.parametrize("request_id", ["running", "waiting"])
def test_a_client_that_goes_away_cancels(serve: Any, gated: Any, request_id: str) -> None:
    service = serve(gated)
    if request_id == "waiting":
        service.post_in_thread("running")
        assert gated.entered.wait(PATIENCE)
    with pytest.raises(httpx.ReadTimeout):
        service.http.post(
            "/v1/segment",
            params={"request_id": request_id},
            content=encode_segment_request(np.zeros((3, 3)), SegmentRequest(words=("a",))),
            timeout=0.5,
        )
    eventually(lambda: service.http.get(f"/v1/segment/{request_id}").status_code == 404)
    if request_id == "running":
        eventually(lambda: health(service).running == 0)
    assert len(gated.images) == 1


def test_shutting_down_answers_what_waits(serve: Any, gated: Any) -> None:
    service = serve(gated)
    answers = service.post_in_thread("a")
    assert gated.entered.wait(PATIENCE)
    service.jobs.close()
    eventually(lambda: answers)
    status, code, message = error_of(answers[0])
    assert (status, code) == (503, "busy")
    assert "shutting down" in message


# ---- faults ----


def test_an_unexpected_error_is_json(serve: Any) -> None:
    def load(model: str, *, device: str) -> Any:
        raise ZeroDivisionError("by nought")

    service = serve(load)
    status, code, message = error_of(service.post("a"))
    assert (status, code) == (500, "error")
    assert "ZeroDivisionError: by nought" in message
    assert health(service).running == 0


def test_an_unexpected_error_of_a_route_is_json(
    serve: Any, gated: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve(gated)

    def broken() -> tuple[int, int]:
        raise KeyError("lost")

    monkeypatch.setattr(service.jobs, "counts", broken)
    status, code, message = error_of(service.http.get("/v1/health"))
    assert (status, code) == (500, "error")
    assert "KeyError" in message


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/nothing", 404),
        ("GET", "/v2/health", 404),
        ("PUT", "/v1/health", 405),
        ("GET", "/v1/segment", 405),
    ],
)
def test_unknown_routes(serve: Any, gated: Any, method: str, path: str, status: int) -> None:
    assert error_of(serve(gated).http.request(method, path))[:2] == (status, "not_found")


@pytest.mark.parametrize("request_id", ["", "a b", "a/b", "x" * 65, "é", "../health", "a\n"])
def test_request_ids_that_are_refused(serve: Any, gated: Any, request_id: str) -> None:
    service = serve(gated)
    status, code, message = error_of(service.post(request_id))
    assert (status, code) == (422, "invalid_request")
    assert "'request_id'" in message
    assert service.jobs.counts() == (0, 0)


def test_a_missing_request_id(serve: Any, gated: Any) -> None:
    answer = serve(gated).http.post("/v1/segment", content=b"")
    assert error_of(answer)[:2] == (422, "invalid_request")


@pytest.mark.parametrize("body", [b"{}", b"PK\x03\x04", b"\x00" * 1000])
def test_bodies_that_are_refused(serve: Any, gated: Any, body: bytes) -> None:
    service = serve(gated)
    assert error_of(service.post("a", body))[:2] == (422, "invalid_request")
    assert service.jobs.counts() == (0, 0)


def test_an_empty_body_is_refused(serve: Any, gated: Any) -> None:
    answer = serve(gated).http.post("/v1/segment", params={"request_id": "a"})
    assert error_of(answer)[:2] == (422, "invalid_request")


# ---- documentation ----


def test_documentation_is_open_and_complete(serve: Any, gated: Any) -> None:
    http = httpx.Client(base_url=serve(gated).http.base_url, trust_env=False)
    with http:
        assert http.get("/docs").status_code == 200
        schema = http.get("/openapi.json").json()
    assert schema["info"]["version"] == clsclip.__version__
    operations = {
        (method, path): operation
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    }
    answers = {
        ("get", "/v1/health"): "HealthReport",
        ("get", "/v1/models"): "ModelList",
        ("get", "/v1/models/{name}/download"): "ModelDownload",
        ("delete", "/v1/models/{name}/download"): "ModelDownload",
        ("get", "/v1/window"): "ModelWindow",
        ("post", "/v1/gain"): "ImageGain",
        ("get", "/v1/annotations/embeddings"): "Embeddings",
        ("get", "/v1/segment/{request_id}"): "Progress",
        ("get", "/v1/annotations"): "AnnotationList",
        ("get", "/v1/trainings"): "TrainingList",
        ("get", "/v1/trainings/{name}"): "Training",
        ("post", "/v1/trainings/{name}/resume"): "Training",
        ("delete", "/v1/trainings/{name}"): "Training",
        ("get", "/v1/versions"): "VersionList",
        ("put", "/v1/versions/active"): "VersionList",
        ("post", "/v1/batches/preview"): "BatchPreview",
        ("post", "/v1/batches/check"): "BatchCheck",
        ("get", "/v1/batches"): "BatchList",
        ("get", "/v1/batches/{name}"): "Batch",
        ("delete", "/v1/batches/{name}"): "Batch",
        ("post", "/v1/batches/{name}/pause"): "Batch",
        ("post", "/v1/batches/{name}/resume"): "Batch",
        ("get", "/v1/batches/{name}/files"): "BatchFiles",
        ("put", "/v1/batches/{name}/files/{number}/review"): "BatchFile",
        ("delete", "/v1/batches/{name}/files/{number}/review"): "BatchFile",
    }
    assert set(operations) == {
        *answers, ("post", "/v1/segment"), ("delete", "/v1/segment/{request_id}"),
        ("post", "/v1/annotations"), ("post", "/v1/trainings"), ("post", "/v1/batches"),
        ("get", "/v1/batches/{name}/files/{number}/thumbnail"),
        ("post", "/v1/models/{name}/download"),
    }  # fmt: skip
    for route, model in answers.items():
        content = operations[route]["responses"]["200"]["content"]["application/json"]
        assert content["schema"]["$ref"].endswith(f"/{model}")
    segment = operations["post", "/v1/segment"]
    assert set(segment["responses"]["200"]["content"]) == {NPZ_MEDIA_TYPE}
    assert set(segment["requestBody"]["content"]) == {NPZ_MEDIA_TYPE}
    assert {"401", "404", "409", "413", "422", "500", "503"} < set(segment["responses"])
    for operation in operations.values():
        assert operation["security"] == [{"token": []}]
        for status, answer in operation["responses"].items():
            if status >= "400":
                reference = answer["content"]["application/json"]["schema"]["$ref"]
                assert reference.endswith("/ErrorAnswer"), status
