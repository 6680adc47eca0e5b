"""The routes of wire_models; a local server stands in for the hub (see tests/stub_hub.py)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import enumerate as enumerate_threads
from typing import Any

import pytest

from clsclip.model.hub_models import cached_folder
from clsclip.service.downloads import Downloads
from clsclip.wire import ErrorAnswer, ModelList
from clsclip.wire_models import ModelDownload
from stub_hub import MODEL, WEIGHTS, HubStub, hub_in_this_process
from waiting import eventually

PATH = "/v1/models/clipseg/download"


@pytest.fixture
def stub() -> Iterator[HubStub]:
    server = HubStub()
    yield server
    server.stop()


@pytest.fixture
def cache(stub: HubStub, tmp_path: Path) -> Iterator[Path]:
    """The cache of huggingface_hub in this process, which asks the stub; it is empty."""
    with hub_in_this_process(stub, tmp_path / "hub") as cache:
        yield cache


def ask(service: Any, method: str, status: int = 200) -> ModelDownload:
    answer = service.http.request(method, PATH)
    assert answer.status_code == status
    return ModelDownload.model_validate_json(answer.content)


def offered(service: Any) -> bool:
    models = ModelList.model_validate_json(service.http.get("/v1/models").content).models
    (found,) = (model for model in models if model.name == "clipseg")
    return found.available


def test_from_absent_to_done(serve: Any, gated: Any, stub: HubStub, cache: Path) -> None:
    service = serve(gated)
    absent = ask(service, "GET")
    assert absent == ModelDownload(
        name="clipseg", state="absent", done=0, total=MODEL.size, licence="Apache-2.0",
        source="CIDAS/clipseg-rd64-refined",
    )  # fmt: skip
    assert ask(service, "DELETE") == absent
    assert not offered(service)

    stub.gate.clear()
    assert ask(service, "POST", 202).state == "running"
    assert stub.at_gate.wait(20)
    total = sum(len(stub.files[name]) for name in MODEL.files)
    eventually(lambda: ask(service, "GET").done > total // 4)
    assert ask(service, "GET").total == total
    gated.gate.set()
    assert service.post("meanwhile").status_code == 200  # segmentations go on
    before = len(stub.seen)
    assert ask(service, "POST", 202).state == "running"
    assert len(stub.seen) == before  # it was not begun once more

    cancelled = ask(service, "DELETE")
    assert cancelled.state == "cancelled"
    assert total // 4 < cancelled.done < total
    stub.gate.set()
    assert ask(service, "POST", 202).state == "running"
    eventually(lambda: ask(service, "GET").state != "running")
    done = ask(service, "GET")
    assert (done.state, done.done, done.total) == ("done", total, total)
    assert any(part for _, path, part in stub.seen if path == f"/content/{WEIGHTS}")
    assert offered(service)
    assert cached_folder("clipseg") is not None
    assert ask(service, "POST", 202) == ask(service, "DELETE") == done

    # No version: nothing goes on from it, and it does not become active.
    versions = service.http.get("/v1/versions").json()["versions"]
    assert "clipseg" not in [version["name"] for version in versions]
    answer = service.http.put("/v1/versions/active", json={"name": "clipseg"})
    assert answer.status_code == 404


def test_a_failure_and_another_try(serve: Any, gated: Any, stub: HubStub, cache: Path) -> None:
    service = serve(gated)
    stub.status = 500
    ask(service, "POST", 202)
    eventually(lambda: ask(service, "GET").state == "failed")
    failed = ask(service, "GET")
    assert failed.reason.startswith("The model 'clipseg' cannot be fetched. ")
    assert "HF_ENDPOINT" in failed.reason
    stub.status = 0
    assert ask(service, "POST", 202).reason == ""
    eventually(lambda: ask(service, "GET").state == "done")


def test_a_model_that_is_not_of_the_hub(serve: Any, gated: Any, cache: Path) -> None:
    service = serve(gated)
    for method in ("GET", "POST", "DELETE"):
        answer = service.http.request(method, "/v1/models/mini/download")
        assert answer.status_code == 404
        error = ErrorAnswer.model_validate_json(answer.content).error
        assert error.code == "unknown_model"
        assert "'mini' is no model that is fetched" in error.message


def test_an_ending_backend_ends_downloads(stub: HubStub, cache: Path) -> None:
    stub.gate.clear()
    downloads = Downloads()
    downloads.start("clipseg")
    assert stub.at_gate.wait(20)
    downloads.close()
    stub.gate.set()
    assert downloads.get("clipseg").state == "cancelled"
    eventually(lambda: not any(thread.name == "download-clipseg" for thread in enumerate_threads()))
    assert cached_folder("clipseg") is None
