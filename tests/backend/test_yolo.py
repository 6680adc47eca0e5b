"""Detector directories, and the small detector that has learned where one disk is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from clsclip import Predictor
from clsclip.cli.train import main
from clsclip.errors import CheckpointError
from clsclip.regions.detector_config import DETECTOR_FILE, DetectorConfig, small_architecture
from clsclip.regions.yolo import (
    DETECTOR_WEIGHTS,
    YoloDetector,
    save_detector,
)
from clsclip.regions.yolo_network import new_network

ARCHITECTURE = small_architecture(0.25)
SIZE = 96


def save(network: nn.Module, folder: Path, words: tuple[str, ...] = ("cat", "dog")) -> Path:
    save_detector(
        network, folder, words=words, image_size=SIZE, architecture=ARCHITECTURE,
        training={"steps": 0},
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector directory with random weights."""
    torch.manual_seed(0)
    return save(new_network(ARCHITECTURE, 2), tmp_path_factory.mktemp("detectors") / "untrained")


@pytest.fixture(scope="module")
def trained(disk_detector: Path) -> YoloDetector:
    return YoloDetector(disk_detector, device="cpu")


@pytest.mark.parametrize(
    ("shape", "centre", "radius", "word"),
    [((60, 120), (30, 84), 26, "dog"), ((160, 80), (112, 40), 36, "dog"),
     ((192, 100), (50, 60), 20, "cat"), ((40, 48), (24, 18), 5, "cat")],
)  # fmt: skip
def test_boxes_are_in_the_pixels_of_the_image(
    trained: YoloDetector,
    shape: tuple[int, int],
    centre: tuple[int, int],
    radius: int,
    word: str,
    disk: Callable[..., np.ndarray],
) -> None:
    regions = trained.detect(disk(*shape, *centre, radius))
    scores = [region.score for region in regions]
    assert scores == sorted(scores, reverse=True)
    best = regions[0]
    assert best.word == word
    expected = (
        centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius,
    )  # fmt: skip
    assert best.box == pytest.approx(expected, abs=0.35 * radius)
    for region in regions:
        top, left, bottom, right = region.box
        assert 0 <= top < bottom <= shape[0]
        assert 0 <= left < right <= shape[1]


def test_confidence_limit_and_overlap_thin_out_the_boxes(
    trained: YoloDetector, disk: Callable[..., np.ndarray]
) -> None:
    picture = disk(96, 96, 40, 50, 22)
    every = trained.detect(picture, confidence=0.001, iou=1.0)
    assert len(trained.detect(picture, confidence=0.001, iou=1.0, limit=3)) == 3
    assert 0 < len(trained.detect(picture, confidence=0.001, iou=0.5)) < len(every)
    assert all(r.score >= 0.2 for r in trained.detect(picture, confidence=0.2, iou=1.0))
    assert trained.detect(picture, confidence=1.0) == []


def test_any_image_shape_and_size_works(untrained: Path) -> None:
    detector = YoloDetector(untrained, device="cpu")
    for shape in ((1, 300), (7, 5), (97, 33)):
        assert isinstance(detector.detect(np.zeros((*shape, 3), np.float32), 0.0), list)
    assert detector.detect(np.zeros((64, 64, 3), np.float32), 0.0, limit=5, size=160)


def test_a_saved_network_gives_what_it_gave_in_memory(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = new_network(ARCHITECTURE, 2)
    pixels = torch.rand(2, 3, 64, 64)
    network(pixels)  # moves the statistics of batch normalisation
    for parameter in network.parameters():
        parameter.data = parameter.data.half().float()
    folder = save(network, tmp_path / "detector")
    detector = YoloDetector(folder, device="cpu")
    assert detector.words == ("cat", "dog")
    assert detector.config.training == {"steps": 0}
    with torch.no_grad():
        expected, found = network.eval()(pixels)[0], detector._network(pixels)[0]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    before = (folder / DETECTOR_WEIGHTS).read_bytes()
    save(network, folder)
    assert (folder / DETECTOR_WEIGHTS).read_bytes() == before
    assert sorted(file.name for file in folder.iterdir()) == [DETECTOR_FILE, DETECTOR_WEIGHTS]


def _edit(**changes: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        file = folder / DETECTOR_FILE
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return edit


def _truncate(folder: Path) -> None:
    file = folder / DETECTOR_WEIGHTS
    file.write_bytes(file.read_bytes()[:-100])


def _other_weights(folder: Path) -> None:
    file = folder / DETECTOR_WEIGHTS
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / DETECTOR_FILE).unlink(), "not a detector directory"),
        (lambda folder: (folder / DETECTOR_WEIGHTS).unlink(), "missing or truncated"),
        (lambda folder: (folder / DETECTOR_FILE).write_text("{"), "not the description"),
        (_truncate, "missing or truncated"),
        (_other_weights, "other SHA-256"),
        (_edit(kind="clsclip"), "kind"),
        (_edit(words=["cat"]), "does not fit"),
        (_edit(architecture=small_architecture(0.5).model_dump()), "does not fit"),
        (_edit(architecture={"layers": [{"source": -1, "module": "Conv", "arguments": [8]}] * 2}),
         "does not fit"),
        (_edit(architecture={"activation": "print('run')", "layers": []}), "activation"),
    ],
)  # fmt: skip
def test_damaged_and_foreign_directories_are_refused(
    untrained: Path, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    folder = tmp_path / "detector"
    folder.mkdir()
    for file in untrained.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        YoloDetector(folder, device="cpu")


def test_the_default_network_stays_small() -> None:
    network = new_network(small_architecture(), 84)
    assert sum(parameter.numel() for parameter in network.parameters()) <= 1_350_000


def test_a_description_survives_json() -> None:
    config = DetectorConfig(
        words=("cat",), image_size=320, architecture=ARCHITECTURE, weights_sha256="0"
    )
    assert DetectorConfig.model_validate_json(config.model_dump_json()) == config


def test_ultralytics_is_imported_late_and_leaves_nothing_behind(tmp_path: Path) -> None:
    code = """
import os, sys, socket
def refuse(*args, **kwargs):
    raise AssertionError("the network was asked")
socket.getaddrinfo = socket.socket.connect = refuse
import numpy as np
from clsclip.regions import automatic, yolo_network
from clsclip.regions.detector_config import small_architecture
import clsclip.training.detect
assert "ultralytics" not in sys.modules
before, printed = dict(os.environ), np.get_printoptions()
yolo_network.new_network(small_architecture(0.25), 1)
assert "ultralytics" in sys.modules
assert dict(os.environ) == before, set(os.environ.items()) ^ set(before.items())
assert np.get_printoptions() == printed
"""
    home = tmp_path / "home"
    home.mkdir()
    kept = {"PATH", "SYSTEMROOT", "LD_LIBRARY_PATH"}
    environment = {k: v for k, v in os.environ.items() if k in kept} | {"HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, env=environment, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""
    assert not [path for path in home.rglob("*") if "ltralytics" in path.name]


def test_a_bundle_takes_its_detector_along(
    untrained: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "bundle"
    arguments = ["bundle", "--model", str(tiny_model), "--output", str(output)]
    assert main([*arguments, "--detector", str(tmp_path)]) == 1
    assert "not a detector directory" in capsys.readouterr().err
    assert not output.exists()
    assert main([*arguments, "--detector", str(untrained)]) == 0
    assert main([*arguments, "--detector", str(untrained)]) == 0  # replaces the folder
    assert main([*arguments, "--detector", str(output)]) == 0  # from where it is put
    again = ["bundle", "--model", str(output), "--output", str(tmp_path / "again")]
    assert main(again) == 0  # what a model brings goes along
    assert YoloDetector(tmp_path / "again" / "detector", device="cpu").words == ("cat", "dog")
    broken = tmp_path / "broken"
    shutil.copytree(untrained, broken)
    (broken / DETECTOR_WEIGHTS).write_bytes(b"")
    assert main([*arguments, "--detector", str(broken)]) == 1
    capsys.readouterr()
    assert YoloDetector(output / "detector", device="cpu").words == ("cat", "dog")
    assert Predictor(str(output), device="cpu").name == str(output)
