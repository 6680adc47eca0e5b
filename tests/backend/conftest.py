"""A running service with a predictor that tests hold at a gate, and data folders to train on."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from numpy.typing import NDArray
from PIL import Image

from clsclip.config import BackendSettings
from clsclip.errors import CancelledError
from clsclip.service.app import create_app
from clsclip.service.jobs import JobQueue, LoadPredictor
from clsclip.wire import Segmentation, SegmentRequest, encode_segment_request

TOKEN = "a-token-for-tests"
PATIENCE = 10.0


class GatedPredictor:
    """Stands in for a model: segments nothing, and waits in the middle until it is let go.

    Queueing, cancelling and answering while the device is busy cannot be tested with a model
    whose speed depends on the machine.
    """

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.images: list[tuple[int, ...]] = []

    def __call__(self, model: str, *, device: str) -> GatedPredictor:
        assert device == "cpu"
        return self

    def segment(
        self,
        image: NDArray[Any],
        words: Sequence[str],
        *,
        contrast_limits: tuple[float, float] | None = None,
        zoom: float | None = None,
        templates: bool = True,
        regions: str = "none",
        detector: str = "",
        drawn: Sequence[tuple[float, float, float, float]] = (),
        progress: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Segmentation:
        assert progress is not None
        assert cancelled is not None
        self.images.append(image.shape)
        progress(1, 2)
        self.entered.set()
        deadline = time.monotonic() + PATIENCE
        while not self.gate.wait(0.01):
            if cancelled():
                raise CancelledError("left at a step")
            assert time.monotonic() < deadline, "the test never opened the gate"
        progress(2, 2)
        return Segmentation(
            probabilities=np.zeros((len(words), *image.shape[:2]), np.uint8),
            words=tuple(words),
            model="gated",
            model_version="0",
            zooms=(zoom or 1.0,) * len(words),
            seconds=0.0,
        )


@dataclass(frozen=True)
class Service:
    """A service that listens, and a client that holds its token."""

    http: httpx.Client
    jobs: JobQueue
    port: int

    def post(self, request_id: str, body: bytes | None = None) -> httpx.Response:
        """Send a segmentation and wait for its end."""
        return self.http.post(
            "/v1/segment", params={"request_id": request_id}, content=body or segment_body()
        )

    def post_in_thread(self, request_id: str) -> list[httpx.Response]:
        """Send a segmentation; the answer appears in the list."""
        answers: list[httpx.Response] = []
        threading.Thread(target=lambda: answers.append(self.post(request_id)), daemon=True).start()
        return answers


def segment_body(shape: tuple[int, ...] = (8, 9), **settings: Any) -> bytes:
    return encode_segment_request(
        np.zeros(shape, np.uint8), SegmentRequest(words=("cell",), **settings)
    )


def eventually(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not true within {seconds} s"
        time.sleep(0.01)


@pytest.fixture
def gated() -> Iterator[GatedPredictor]:
    predictor = GatedPredictor()
    yield predictor
    predictor.gate.set()


@pytest.fixture
def serve() -> Iterator[Callable[..., Service]]:
    """Start a service: ``serve(load_predictor, **settings)``."""
    stops: list[Callable[[], None]] = []

    def start(load_predictor: LoadPredictor, **settings: Any) -> Service:
        app = create_app(BackendSettings(device="cpu", **settings), TOKEN, load_predictor)
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        config = uvicorn.Config(
            app, http="h11", ws="none", log_config=None, timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        http = httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=PATIENCE,
            trust_env=False,
        )

        def stop() -> None:
            app.state.jobs.close()
            server.should_exit = True
            thread.join(PATIENCE)
            assert not thread.is_alive()
            assert app.state.jobs.join(PATIENCE)
            http.close()
            listener.close()

        stops.append(stop)
        eventually(lambda: server.started)
        return Service(http, app.state.jobs, port)

    yield start
    for stop in stops:
        stop()


@pytest.fixture
def data(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A label folder, COCO, Pascal VOC and class folders, made of disks and squares."""
    root = tmp_path / "data"
    disk = np.hypot(*(np.indices((64, 80)) - np.array([32, 40])[:, None, None])) < 12
    picture = rng.integers(0, 60, (64, 80, 3), dtype=np.uint8)
    picture[disk] += 180

    def save(array: np.ndarray, *parts: str) -> None:
        file = root.joinpath(*parts)
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(file)

    for part in ("train", "val"):
        for index in range(3):
            save(picture, "nuclei", part, "images", f"{index}.png")
            save(disk.astype(np.uint16), "nuclei", part, "labels", f"{index}.png")
    save(picture, "coco", "train2017", "1.png")
    square = [20, 10, 40, 10, 40, 30, 20, 30]
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 3, "segmentation": [square], "iscrowd": 0,
         "area": 400, "bbox": [20, 10, 20, 20]},
        {"id": 2, "image_id": 1, "category_id": 1, "iscrowd": 1, "area": 50,
         "segmentation": {"size": [64, 80], "counts": [0, 50, 5070]}, "bbox": [0, 0, 1, 50]},
    ]  # fmt: skip
    content = {
        "images": [{"id": 1, "file_name": "1.png", "width": 80, "height": 64}],
        "categories": [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}],
        "annotations": annotations,
    }
    (root / "coco" / "annotations").mkdir()
    (root / "coco" / "annotations" / "instances_train2017.json").write_text(json.dumps(content))
    save(picture, "blood", "JPEGImages", "b.jpg")
    box = "<bndbox><xmin>10</xmin><ymin>20</ymin><xmax>30</xmax><ymax>60</ymax></bndbox>"
    (root / "blood" / "Annotations").mkdir()
    (root / "blood" / "Annotations" / "b.xml").write_text(
        f"<annotation><object><name>RBC</name>{box}</object></annotation>"
    )
    for word in ("Car_side", "starfish"):
        save(picture, "objects", word, "1.jpg")
    return root
