"""Reading ahead, cancelling and failing of a job over planes, with a server that a test holds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import dask.array
import numpy as np
import pytest
from napari.components import ViewerModel

from clsclip.errors import BackendError, InvalidImageError, UnknownModelError
from clsclip.segmentation import Segmentation
from clsclip.wire import error_json
from napari_clsclip._client import Client
from napari_clsclip._layers import Plane, displayed_plane
from napari_clsclip._plane_choice import EveryPlane
from napari_clsclip._planes_job import PlaneOutcome, PlanesJob
from napari_clsclip._predicted_plane import PredictedPlane
from stub_backend import ANSWER, JSON, REQUEST, OneClient, Stub
from waiting import eventually

COUNT = 6
PLANES = np.arange(COUNT * 12, dtype=np.float32).reshape(COUNT, 3, 4)


class Held:
    """Answers to requests one at a time, each when the test says so."""

    def __init__(self, stub: Stub) -> None:
        self.arrived = 0
        self.answers = threading.Semaphore(0)

        def reply(path: str, body: bytes) -> tuple[int, str, bytes]:
            self.arrived += 1
            self.answers.acquire(timeout=20)
            return 200, "application/x-npz", ANSWER

        stub.replies["POST"] = reply


@pytest.fixture
def read() -> list[int]:
    """Planes that were computed so far."""
    return []


@pytest.fixture
def planes(read: list[int]) -> EveryPlane:
    def load(block_info: dict) -> np.ndarray:
        z = block_info[None]["chunk-location"][0]
        read.append(z)
        return PLANES[z : z + 1]

    stack = dask.array.map_blocks(
        load, chunks=((1,) * COUNT, (3,), (4,)), dtype=np.float32,
        meta=np.empty((0, 0, 0), np.float32),
    )  # fmt: skip
    viewer = ViewerModel()
    layer = viewer.add_image(stack, contrast_limits=(0, 80), cache=False)
    viewer.dims.set_current_step(0, 0)
    read.clear()
    return EveryPlane(displayed_plane(layer, viewer.dims))


def prepare(segmentation: Segmentation, objects: object = None) -> PredictedPlane:
    return PredictedPlane(segmentation, 0.5)


def job_of(
    planes: Any, client: Client, may_touch: Callable[[Plane], bool] = lambda _: True
) -> PlanesJob:
    return PlanesJob(OneClient(client), planes, REQUEST, may_touch, prepare)


def taken(job: PlanesJob, count: int) -> list[PlaneOutcome]:
    outcomes: list[PlaneOutcome] = []

    def take() -> bool:
        while (ended := job.take()) is not None:
            outcomes.append(ended)
        return len(outcomes) >= count

    eventually(take)
    return outcomes


def test_one_plane_is_read_ahead_and_no_more(
    planes: EveryPlane, read: list[int], client: Client, stub: Stub
) -> None:
    backend = Held(stub)
    job = job_of(planes, client)
    job.start()
    for number in range(1, COUNT + 1):
        eventually(lambda number=number: backend.arrived == number)
        ahead = list(range(min(number + 1, COUNT)))
        eventually(lambda ahead=ahead: read == ahead)
        time.sleep(0.05)
        assert read == ahead
        assert not job.done
        backend.answers.release()
    outcomes = taken(job, COUNT)
    assert [ended.plane.index.position for ended in outcomes] == [(z,) for z in range(COUNT)]
    assert all(isinstance(ended.outcome, PredictedPlane) for ended in outcomes)
    eventually(lambda: job.done)
    assert job.error is None


def test_nothing_is_read_or_asked_after_a_cancel(
    planes: EveryPlane, read: list[int], client: Client, stub: Stub
) -> None:
    backend = Held(stub)
    job = job_of(planes, client)
    job.start()
    backend.answers.release()
    eventually(lambda: backend.arrived == 2 and len(read) == 3)
    job.cancel()
    assert [ended.plane.index.position for ended in taken(job, 1)] == [(0,)]  # done, so kept
    assert job.done
    eventually(lambda: stub.count("DELETE"))  # the backend is told, too
    backend.answers.release()
    time.sleep(0.1)
    assert read == [0, 1, 2]
    assert backend.arrived == 2
    assert job.take() is None
    assert job.error is None


def test_planes_that_may_not_be_touched_are_not_read(
    planes: EveryPlane, read: list[int], client: Client, stub: Stub
) -> None:
    job = job_of(planes, client, lambda plane: plane.index.position[0] % 2 == 0)
    job.start()
    outcomes = taken(job, COUNT)
    assert [ended.outcome is None for ended in outcomes] == [False, True] * 3
    assert read == [0, 2, 4]


def test_what_cannot_be_segmented_does_not_end_the_job(client: Client, stub: Stub) -> None:
    bad = PLANES.copy()
    bad[1, 0, 0] = np.nan
    viewer = ViewerModel()
    layer = viewer.add_image(bad, contrast_limits=(0, 80))
    viewer.dims.set_current_step(0, 0)

    def refuse_one(path: str, body: bytes) -> tuple[int, str, bytes]:
        if stub.count("POST") == 2:
            return 422, JSON, error_json("invalid_image", "The backend dislikes it.").encode()
        return 200, "application/x-npz", ANSWER

    stub.replies["POST"] = refuse_one
    job = job_of(EveryPlane(displayed_plane(layer, viewer.dims)), client)
    job.start()
    outcomes = [ended.outcome for ended in taken(job, COUNT)]
    assert "1 NaN" in str(outcomes[1])
    assert str(outcomes[2]) == "The backend dislikes it."
    assert [isinstance(outcome, InvalidImageError) for outcome in outcomes] == [
        False, True, True, False, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("reply", "kind", "suspected"),
    [
        ((404, JSON, error_json("unknown_model", "No such model.").encode()), UnknownModelError, 0),
        ((500, "text/html", b"oops"), BackendError, 1),
    ],
)
def test_every_other_error_ends_the_job(
    planes: EveryPlane, read: list[int], client: Client, stub: Stub,
    reply: tuple[int, str, bytes], kind: type[Exception], suspected: int,
) -> None:  # fmt: skip
    stub.replies["POST"] = lambda path, body: reply
    supervisor = OneClient(client)
    job = PlanesJob(supervisor, planes, REQUEST, lambda _: True, prepare)
    job.start()
    eventually(lambda: job.done)
    assert isinstance(job.error, kind)
    assert supervisor.suspected == suspected
    assert job.take() is None
    time.sleep(0.1)
    assert len(read) <= 2


def test_cancel_before_anything_has_happened(planes: EveryPlane, client: Client) -> None:
    job = job_of(planes, client)
    job.cancel()
    job.start()
    assert job.done
    assert job.take() is None
