"""What a run over planes leaves out, goes on with and tells, with a server that a test directs."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image
from numpy.testing import assert_array_equal

from clsclip.segmentation import Segmentation
from clsclip.wire import SegmentRequest, error_json
from clsclip.wire_segmentation import encode_segmentation
from napari_clsclip._client import Client
from napari_clsclip._layers import displayed_plane
from napari_clsclip._plane_choice import EveryPlane
from napari_clsclip._planes_run import PlanesRun, duration
from napari_clsclip._results import ResultLayers
from napari_clsclip._supervisor import BackendState, BackendStatus
from stub_backend import JSON, OneClient, Stub
from waiting import eventually

SHAPE = (3, 4)
READY = BackendStatus(BackendState.READY, "Ready")

Run = Callable[..., PlanesRun]


class Backend:
    """Answers with probabilities that tell the requests apart, of weights with a version."""

    def __init__(self, stub: Stub) -> None:
        self.version = "v1"
        self.count = 0
        self.limit: int | None = None
        self.go_on = threading.Event()
        stub.replies["POST"] = self.reply

    def reply(self, path: str, body: bytes) -> tuple[int, str, bytes]:
        self.count += 1
        if self.count == self.limit:
            self.go_on.wait(20)
        values = np.full((1, *SHAPE), 255, np.uint8)
        values[0, 0, 0] = self.count
        answer = Segmentation(values, ("cell",), "mini", self.version, (1.0,), 0.1)
        return 200, "application/x-npz", encode_segmentation(answer)


@pytest.fixture
def backend(stub: Stub) -> Backend:
    return Backend(stub)


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


@pytest.fixture
def image(viewer: ViewerModel) -> Image:
    return viewer.add_image(np.zeros((2, 3, *SHAPE)), contrast_limits=(0, 1), name="movie")


@pytest.fixture
def begin(viewer: ViewerModel, image: Image, client: Client) -> Run:
    results = ResultLayers(viewer)

    def start(**settings: object) -> PlanesRun:
        request = SegmentRequest(words=("cell",), **settings)  # type: ignore[arg-type]
        planes = EveryPlane(displayed_plane(image, viewer.dims))
        supervisor = OneClient(client)
        run = PlanesRun(results, supervisor, image, planes, request, lambda: 0.5)
        if not run.nothing_to_do:
            run.start()
        return run

    return start


def finish(run: PlanesRun) -> str:
    def ended() -> bool:
        run.take()
        return run.done

    eventually(ended)
    run.take(all_of_them=True)
    return run.ending()


def test_all_planes_come_into_one_layer(viewer: ViewerModel, begin: Run, backend: Backend) -> None:
    text = finish(begin())
    assert text.startswith("6 of 6 planes segmented, in ")
    assert backend.count == 6
    layer = viewer.layers["cell"]
    assert all(plane.any() for plane in layer.data.reshape(6, *SHAPE))
    again = begin()
    assert again.nothing_to_do
    assert "All 6 planes have a result" in again.ending()


def test_other_settings_or_contrast_are_another_question(
    viewer: ViewerModel, image: Image, begin: Run, backend: Backend
) -> None:
    finish(begin())
    assert "6 of 6 planes segmented, in" in finish(begin(zoom=2.0))
    assert "6 of 6 planes segmented, in" in finish(begin(zoom=2.0, contrast_limits=(0, 2)))
    assert backend.count == 18
    assert len(viewer.layers) == 2


def test_changed_weights_begin_anew_in_a_layer_of_their_own(
    viewer: ViewerModel, image: Image, begin: Run, backend: Backend
) -> None:
    backend.limit = 3
    first = begin()
    eventually(lambda: (first.take(), first.ended == 2)[1])
    first.cancel()
    backend.limit = None
    backend.go_on.set()
    old = viewer.layers["cell"]
    kept = old.data.copy()
    backend.version = "v2"
    backend.count = 0
    text = finish(begin())
    assert text.startswith("6 of 6 planes segmented, in ")
    new = viewer.layers["cell [1]"]
    assert all(plane.any() for plane in new.data.reshape(6, *SHAPE))
    assert_array_equal(old.data, kept)


def test_failed_planes_are_named_the_first_ones_with_their_reason(
    viewer: ViewerModel, image: Image, begin: Run, backend: Backend
) -> None:
    image.data[:, 1:, 0, 0] = np.nan
    viewer.dims.set_current_step((0, 1), (0, 0))
    text = finish(begin())
    assert "2 of 6 planes segmented" in text
    assert "Plane (0, 1) left out: The image 'movie' has 1 NaN" in text
    assert text.endswith("Also left out: Plane (1, 2).")
    image.axis_labels = ("t", "z", "y", "x")
    text = finish(begin())  # tries those again, and only those
    assert "Plane t 1, z 1 left out" in text
    assert backend.count == 2


def test_an_error_of_the_backend_ends_the_run_and_is_kept(
    viewer: ViewerModel, begin: Run, backend: Backend, stub: Stub
) -> None:
    def reply(path: str, body: bytes) -> tuple[int, str, bytes]:
        if backend.count == 2:
            return 500, JSON, error_json("device", "The GPU ran out of memory.").encode()
        return backend.reply(path, body)

    stub.replies["POST"] = reply
    run = begin()
    assert finish(run) == "2 of 6 planes are done and kept."
    assert str(run.error) == "The GPU ran out of memory."
    stub.replies["POST"] = backend.reply
    assert "6 of 6 planes segmented (2 of them before)" in finish(begin())


def test_message_says_where_it_is(image: Image, begin: Run, backend: Backend, stub: Stub) -> None:
    run = begin()
    starting = BackendStatus(BackendState.STARTING, "Starting")
    assert run.message(starting) == "Waiting for the backend to start, then plane 1 of 6 (2 x 3) …"
    assert run.message(READY).startswith("Segmenting plane 1 of 6 (2 x 3)")
    finish(run)
    assert run.progress.done == run.progress.total == 6


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (89.4, "89 s"), (95, "2 min"), (3600, "60 min"), (7200, "2.0 h")],
)
def test_duration_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words
