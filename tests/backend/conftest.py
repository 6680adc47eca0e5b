"""A running service with a predictor that tests hold at a gate, and data folders to train on."""

from __future__ import annotations

import json
import shutil
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

from clsclip.batch.manifest import Manifest, ManifestRow
from clsclip.config import BackendSettings
from clsclip.errors import CancelledError
from clsclip.segmentation import Segmentation
from clsclip.service.app import create_app
from clsclip.service.batch_record import BATCHES_VARIABLE
from clsclip.service.jobs import JobQueue, LoadPredictor
from clsclip.wire import SegmentRequest, encode_segment_request
from waiting import eventually

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
        self.regions: list[tuple[str, str, tuple[tuple[float, ...], ...]]] = []

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
        self.regions.append((regions, detector, tuple(drawn)))
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

    def embedding(self, image: NDArray[Any], contrast_limits: object = None) -> NDArray[np.float32]:
        return np.eye(4, dtype=np.float32)[0]


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


@pytest.fixture
def gated() -> Iterator[GatedPredictor]:
    predictor = GatedPredictor()
    yield predictor
    predictor.gate.set()


@pytest.fixture
def serve() -> Iterator[Callable[..., Service]]:
    """Start a service: ``serve(load_predictor, **settings)``."""
    stops: list[Callable[[], None]] = []

    def start(
        load_predictor: LoadPredictor,
        train_command: Sequence[str] | None = None,
        label_command: Sequence[str] | None = None,
        **settings: Any,
    ) -> Service:
        backend = BackendSettings(device="cpu", **settings)
        app = create_app(backend, TOKEN, load_predictor, train_command, label_command)
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


@pytest.fixture(scope="session")
def disk() -> Callable[..., np.ndarray]:
    """``disk(rows, columns, row, column, radius)``: a bright disk on grey, float32 RGB."""

    def draw(rows: int, columns: int, row: float, column: float, radius: float) -> np.ndarray:
        distance = np.hypot(np.arange(rows)[:, None] - row, np.arange(columns) - column)
        plane = np.where(distance < radius, 0.9, 0.2).astype(np.float32)
        return np.repeat(plane[..., None], 3, axis=2)

    return draw


@pytest.fixture(scope="session")
def disk_detector(
    tmp_path_factory: pytest.TempPathFactory, disk: Callable[..., np.ndarray]
) -> Path:
    """Directory of a detector of disks: "dog" is a large one, "cat" a small one."""
    import torch
    from torch import nn

    from clsclip.regions.detector_config import small_architecture
    from clsclip.regions.yolo import save_detector
    from clsclip.regions.yolo_network import DetectionLoss, new_network

    size, steps, architecture = 96, 120, small_architecture(0.25)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    network = new_network(architecture, 2)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.2  # so few steps
    loss = DetectionLoss(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    falling = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    for _ in range(steps):
        images, words, boxes = [], [], []
        for _ in range(4):
            word = int(rng.integers(2))
            radius = rng.uniform(18, 26) if word else rng.uniform(8, 12)
            row, column = rng.uniform(radius, size - radius, 2)
            images.append(disk(size, size, row, column, radius))
            words.append(word)
            boxes.append((row - radius, column - radius, row + radius, column + radius))
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        targets = torch.tensor(np.array(boxes) / size, dtype=torch.float32)
        losses = loss(network(pixels), torch.arange(4), torch.tensor(words), targets)
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        falling.step()
    folder = tmp_path_factory.mktemp("detectors") / "disks"
    save_detector(
        network, folder, words=("cat", "dog"), image_size=size, architecture=architecture,
        training={"steps": steps},
    )  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def plus_model(
    tiny_model: Path, disk_detector: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tiny model, which brings the detector of disks."""
    folder = tmp_path_factory.mktemp("models") / "plus"
    shutil.copytree(tiny_model, folder)
    shutil.copytree(disk_detector, folder / "detector")
    return folder


@pytest.fixture(scope="session")
def tiny_clipseg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIPSeg with small random weights."""
    from make_tiny_clipseg import make_tiny_clipseg

    folder = tmp_path_factory.mktemp("models") / "clipseg"
    make_tiny_clipseg(folder)
    return folder


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No weights of the hub are on this machine."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


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


@pytest.fixture
def on_row(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Have something done when the first row is in a manifest, in the thread that wrote it."""
    append = Manifest.append

    def use(call: Callable[[], None]) -> None:
        calls = [call]

        def patched(self: Manifest, row: ManifestRow) -> None:
            append(self, row)
            while calls:
                calls.pop()()

        monkeypatch.setattr(Manifest, "append", patched)

    return use


@pytest.fixture
def batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the batches of a test are kept."""
    monkeypatch.setenv(BATCHES_VARIABLE, str(tmp_path / "batches"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path / "batches"


@pytest.fixture
def six_images(tmp_path: Path, batches: Path) -> Path:
    """Images to label, the brighter the later; one is bad, one is black."""
    root = tmp_path / "images"
    root.mkdir()
    for number, name in enumerate(("a", "b", "c bad", "d", "e", "f")):
        plane = np.zeros((20, 24), np.uint8)
        plane[4:12, 4 : 4 + 3 * number] = 200
        Image.fromarray(plane).save(root / f"{name}.png")
    return root
