from __future__ import annotations

import gc
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clsclip.errors import (
    BusyError,
    CancelledError,
    ClsClipError,
    InvalidImageError,
    InvalidRequestError,
    NotFoundError,
    UnknownModelError,
)
from clsclip.segmentation import Segmentation
from clsclip.service.jobs import MAX_LOADED_MODELS, Job, JobQueue, Segmenter
from clsclip.wire import SegmentRequest

PATIENCE = 10.0
REQUEST = SegmentRequest(words=("cell",))


@pytest.fixture
def make_queue() -> Iterator[Callable[..., JobQueue]]:
    queues: list[JobQueue] = []

    def make(load_predictor: Any, size: int = 3) -> JobQueue:
        queues.append(JobQueue(load_predictor, device="cpu", size=size))
        return queues[-1]

    yield make
    for queue in queues:
        queue.close()
        assert queue.join(PATIENCE)


def put(queue: JobQueue, request_id: str, side: int = 4, model: str = "gated") -> Job:
    job = queue.reserve(request_id)
    queue.submit(job, np.zeros((side, side)), REQUEST.model_copy(update={"model": model}))
    return job


def failure(future: Future[Segmentation]) -> BaseException | None:
    return future.exception(PATIENCE)


def test_jobs_run_one_after_the_other_in_order(make_queue: Any, gated: Any) -> None:
    queue = make_queue(gated)
    jobs = [put(queue, f"r{side}", side) for side in (5, 3, 4)]
    assert gated.entered.wait(PATIENCE)
    assert gated.images == [(5, 5)]
    assert queue.counts() == (2, 1)
    gated.gate.set()
    assert [job.result.result(PATIENCE).probabilities.shape[1] for job in jobs] == [5, 3, 4]
    assert gated.images == [(5, 5), (3, 3), (4, 4)]


def test_progress_of_waiting_running_and_ended(make_queue: Any, gated: Any) -> None:
    queue = make_queue(gated)
    first, _ = put(queue, "first"), put(queue, "second")
    assert gated.entered.wait(PATIENCE)
    running, waiting = queue.progress("first"), queue.progress("second")
    assert (running.state, running.done, running.total) == ("running", 1, 2)
    assert (waiting.state, waiting.done, waiting.total) == ("queued", 0, 0)
    gated.gate.set()
    first.result.result(PATIENCE)
    with pytest.raises(NotFoundError, match="'first'"):
        queue.progress("first")


def test_a_full_queue_is_busy(make_queue: Any, gated: Any) -> None:
    queue = make_queue(gated, size=2)
    put(queue, "running")
    assert gated.entered.wait(PATIENCE)
    put(queue, "waiting")
    reserved = queue.reserve("still being uploaded")
    with pytest.raises(BusyError, match="2 requests"):
        queue.reserve("one too many")
    queue.release(reserved)
    queue.reserve("fits again")


def test_an_unfinished_id_is_refused_and_a_finished_one_is_free(
    make_queue: Any, gated: Any
) -> None:
    queue = make_queue(gated)
    job = put(queue, "same")
    with pytest.raises(InvalidRequestError, match="'same'"):
        queue.reserve("same")
    gated.gate.set()
    job.result.result(PATIENCE)
    put(queue, "same").result.result(PATIENCE)


def test_a_waiting_job_vanishes_at_once_when_cancelled(make_queue: Any, gated: Any) -> None:
    queue = make_queue(gated)
    first, second, third = put(queue, "a", 5), put(queue, "b", 6), put(queue, "c", 7)
    assert gated.entered.wait(PATIENCE)
    queue.cancel("b")
    assert isinstance(failure(second.result), CancelledError)
    assert queue.counts() == (1, 1)
    with pytest.raises(NotFoundError):
        queue.cancel("b")
    gated.gate.set()
    first.result.result(PATIENCE)
    third.result.result(PATIENCE)
    assert gated.images == [(5, 5), (7, 7)]


def test_a_running_job_leaves_the_device_when_cancelled(make_queue: Any, gated: Any) -> None:
    queue = make_queue(gated)
    first, second = put(queue, "a", 5), put(queue, "b", 6)
    assert gated.entered.wait(PATIENCE)
    queue.cancel("a")
    assert first.ended()
    assert isinstance(failure(first.result), CancelledError)
    gated.entered.clear()
    assert gated.entered.wait(PATIENCE), "the second job never came to the device"
    gated.gate.set()
    assert second.result.result(PATIENCE).probabilities.shape == (1, 6, 6)


def test_a_job_cancelled_during_its_upload_never_runs(make_queue: Any, gated: Any) -> None:
    queue = make_queue(gated)
    job = queue.reserve("upload")
    queue.cancel("upload")
    queue.submit(job, np.zeros((9, 9)), REQUEST)
    assert isinstance(failure(job.result), CancelledError)
    gated.gate.set()
    put(queue, "next", 3).result.result(PATIENCE)
    assert gated.images == [(3, 3)]


def test_releasing_an_ended_job_keeps_its_result(make_queue: Any, gated: Any) -> None:
    queue = make_queue(gated)
    gated.gate.set()
    job = put(queue, "done")
    result = job.result.result(PATIENCE)
    queue.release(job)
    assert job.result.result(0) is result


def test_closing_ends_every_job(make_queue: Any, gated: Any) -> None:
    queue = make_queue(gated)
    jobs = [put(queue, "running"), put(queue, "waiting"), queue.reserve("upload")]
    assert gated.entered.wait(PATIENCE)
    queue.close()
    assert [type(failure(job.result)) for job in jobs] == [BusyError] * 3
    assert queue.join(PATIENCE)
    with pytest.raises(BusyError, match="shutting down"):
        queue.reserve("late")


class Failing:
    """Raises what it is told to."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __call__(self, model: str, *, device: str) -> Failing:
        return self

    def segment(self, *args: Any, **options: Any) -> Segmentation:
        raise self.error


def test_an_expected_error_reaches_the_waiter(make_queue: Any) -> None:
    error = InvalidImageError("no pixels")
    assert failure(put(make_queue(Failing(error)), "a").result) is error


def test_an_unexpected_error_is_named_and_logged_and_the_worker_lives(
    make_queue: Any, caplog: pytest.LogCaptureFixture
) -> None:
    queue = make_queue(Failing(ZeroDivisionError("by nought")))
    with caplog.at_level(logging.ERROR):
        error = failure(put(queue, "a").result)
    assert type(error) is ClsClipError
    assert "ZeroDivisionError: by nought" in str(error)
    assert "Traceback" in caplog.text
    assert failure(put(queue, "b").result) is not None


def test_a_model_that_cannot_be_loaded_is_tried_again(make_queue: Any, gated: Any) -> None:
    attempts = []

    def load(model: str, *, device: str) -> Segmenter:
        attempts.append(model)
        if len(attempts) == 1:
            raise UnknownModelError("not yet")
        loaded: Segmenter = gated
        return loaded

    queue = make_queue(load)
    gated.gate.set()
    assert isinstance(failure(put(queue, "a").result), UnknownModelError)
    assert queue.loaded_models() == ()
    put(queue, "b").result.result(PATIENCE)
    assert queue.loaded_models() == ("gated",)


def test_the_least_recently_used_model_makes_room(make_queue: Any, gated: Any) -> None:
    loads = []

    def load(model: str, *, device: str) -> Segmenter:
        # The one that makes room has gone before the new one needs its memory.
        assert len(queue.loaded_models()) < MAX_LOADED_MODELS
        loads.append(model)
        loaded: Segmenter = gated
        return loaded

    queue = make_queue(load)
    gated.gate.set()
    for number, model in enumerate("abacab"):
        put(queue, str(number), model=model).result.result(PATIENCE)
    assert loads == ["a", "b", "c", "b"]
    assert queue.loaded_models() == ("a", "b")


def test_an_image_is_not_kept_after_its_job(make_queue: Any, gated: Any) -> None:
    queue = make_queue(gated)
    gated.gate.set()
    image: NDArray[Any] = np.zeros((50, 50))
    kept = weakref.ref(image)
    job = queue.reserve("a")
    queue.submit(job, image, REQUEST)
    job.result.result(PATIENCE)
    del image
    deadline = time.monotonic() + PATIENCE
    while kept() is not None:  # the worker drops it just after it has delivered the result
        assert time.monotonic() < deadline
        gc.collect()
        time.sleep(0.01)


def test_many_threads(make_queue: Any, gated: Any) -> None:
    queue = make_queue(gated, size=64)
    gated.gate.set()
    ends: list[object] = []

    def work(name: str) -> None:
        for number in range(10):
            job = put(queue, f"{name}-{number}")
            if number % 3 == 0:
                queue.release(job)
            ends.append(job.result.exception(PATIENCE))

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(ends) == 40
    assert sum(end is None for end in ends) >= 24
    assert all(end is None or isinstance(end, CancelledError) for end in ends)
    assert queue.counts()[0] == 0


def test_model_is_loaded_ahead_and_a_missing_one_does_no_harm() -> None:
    loaded = threading.Event()

    def load(model: str, *, device: str) -> Segmenter:
        loaded.set()
        raise UnknownModelError(f"no {model} on {device}")

    queue = JobQueue(load, device="cpu", size=1, preload="mini")
    try:
        assert loaded.wait(5)
        job = queue.reserve("a")
        request = SegmentRequest(words=("nucleus",), model="mini")
        queue.submit(job, np.zeros((2, 2), np.uint8), request)
        with pytest.raises(UnknownModelError, match="no mini on cpu"):
            job.result.result(timeout=5)
    finally:
        queue.close()
        assert queue.join(5)
