"""A YOLO in ONNX as Ultralytics exports it, on the photographs that its package brings."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clsclip import Predictor
from clsclip.errors import CheckpointError, InvalidWordError, ModelUnavailableError
from clsclip.predict.regions import MARGIN
from clsclip.regions.yolo_file import YoloFile
from clsclip.regions.yolo_network import best_boxes

ONNX = Path(__file__).parents[3] / "shared" / "models" / "yolov8n_int8.onnx"
# ultralytics is not imported to find its folder: that would write settings and ask the network
SPEC = importlib.util.find_spec("ultralytics")

needs_model = pytest.mark.skipif(not ONNX.is_file(), reason=f"there is no YOLO at {ONNX}")
needs_runtime = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None,
    reason="onnxruntime is not installed: pip install onnxruntime",
)


def photograph(name: str) -> np.ndarray:
    assert SPEC is not None
    assert SPEC.origin is not None
    with Image.open(Path(SPEC.origin).parent / "assets" / name) as image:
        return np.asarray(image.convert("RGB"), np.float32) / 255


@pytest.fixture(scope="module")
def detector() -> YoloFile:
    return YoloFile(ONNX, device="cpu", confidence=0.25)


@needs_model
@needs_runtime
def test_it_finds_what_the_photographs_show(detector: YoloFile) -> None:
    bus, zidane = photograph("bus.jpg"), photograph("zidane.jpg")
    persons = detector.propose(bus, "Persons")
    assert len(persons) == 4
    assert {(region.word, region.origin) for region in persons} == {("person", "detector")}
    scores = [region.score for region in persons]
    assert scores == sorted(scores, reverse=True)
    (vehicle,) = detector.propose(bus, "bus")
    # by eye, in the 1080 x 810 pixels of the photograph
    assert vehicle.box == pytest.approx((230, 15, 760, 805), abs=30)
    assert len(detector.propose(zidane, "person")) == 2
    assert detector.propose(zidane, "bus") == []  # known, and not there
    assert sorted(round(r.box[1]) for r in persons)[0] == 0  # cut off by the left edge


@needs_model
@needs_runtime
def test_it_says_which_words_it_knows(detector: YoloFile) -> None:
    assert len(detector.words) == 80
    assert detector.name == "detector 'yolov8n_int8.onnx'"
    assert detector.knows("Traffic lights")
    assert not detector.knows("細胞核")
    with pytest.raises(InvalidWordError, match=r"does not know '細胞核', only: person, bicycle"):
        detector.propose(np.zeros((32, 32, 3), np.float32), "細胞核")


@needs_model
@needs_runtime
def test_any_image_shape_works(detector: YoloFile) -> None:
    for shape in ((1, 1), (1, 300), (1, 3000), (7, 5), (97, 33)):
        for region in detector.propose(np.ones((*shape, 3), np.float32), "person"):
            top, left, bottom, right = region.box
            assert 0 <= top < bottom <= shape[0]
            assert 0 <= left < right <= shape[1]


def test_pickles_and_hub_names_are_refused_with_the_way_out(tmp_path: Path) -> None:
    for name in ("yolo11n.pt", "yolo11n", str(tmp_path / "best.PTH"), "x.torchscript"):
        with pytest.raises(CheckpointError, match="yolo export model=") as caught:
            YoloFile(name, device="cpu")
        assert "format=onnx" in caught.value.message
        assert f"{Path(name).stem}.onnx" in caught.value.message


@needs_runtime
def test_what_is_no_exported_detector_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="There is no detector at"):
        YoloFile(tmp_path / "missing.onnx", device="cpu")
    pickled = tmp_path / "pickled.onnx"
    torch.save({"model": torch.zeros(3)}, pickled)
    for file in (pickled, tmp_path / "empty.onnx"):
        file.touch()
        with pytest.raises(CheckpointError, match="cannot be read as a YOLO"):
            YoloFile(file, device="cpu")
    for name in ("weights.engine", "model.h5", "sneaky.pt.zip", "x_model"):
        (tmp_path / name).touch()
        with pytest.raises(CheckpointError, match=r"in no format|is not read"):
            YoloFile(tmp_path / name, device="cpu")


@needs_model
@needs_runtime
def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "cut.onnx"
    file.write_bytes(ONNX.read_bytes()[:-5000])
    with pytest.raises(CheckpointError, match=r"cannot be read|no detector"):
        YoloFile(file, device="cpu")


@needs_model
def test_without_the_runtime_the_error_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelUnavailableError, match="pip install onnxruntime"):
        YoloFile(ONNX, device="cpu")


def test_networks_that_suppress_by_themselves_are_read_as_they_are() -> None:
    raw = torch.tensor([[[10, 20, 50, 40, 0.9, 1], [10, 20, 50, 40, 0.8, 1], [0, 0, 5, 5, 0.7, 0],
                         [0, 0, 5, 5, 0.01, 1]]])  # fmt: skip
    found = best_boxes(raw, 2, 0.1, 0.6, 300, only=1, final=True)
    expected = [[20, 10, 40, 50, 0.9, 1], [20, 10, 40, 50, 0.8, 1]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@needs_model
@needs_runtime
def test_it_asks_no_network_and_leaves_nothing_behind(tmp_path: Path) -> None:
    code = f"""
import os, sys, socket
def refuse(*args, **kwargs):
    raise AssertionError("the network was asked")
socket.getaddrinfo = socket.socket.connect = refuse
import numpy as np
from clsclip.regions.yolo_file import YoloFile
assert "ultralytics" not in sys.modules
before, printed = dict(os.environ), np.get_printoptions()
detector = YoloFile({str(ONNX)!r}, device="cpu")
assert detector.propose(np.zeros((90, 60, 3), np.float32), "person") == []
assert dict(os.environ) == before, set(os.environ.items()) ^ set(before.items())
assert np.get_printoptions() == printed
"""
    home = tmp_path / "home"
    home.mkdir()
    kept = {"PATH", "SYSTEMROOT", "LD_LIBRARY_PATH", "OMP_NUM_THREADS"}
    environment = {k: v for k, v in os.environ.items() if k in kept} | {"HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, env=environment, capture_output=True, text=True,
        timeout=120, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    assert not [path for path in home.rglob("*") if "ltralytics" in path.name]


@needs_model
@needs_runtime
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "found"), [("bus.jpg", {"person": 4, "bus": 1}), ("zidane.jpg", {"person": 2})]
)
def test_photographs_are_segmented_in_the_boxes_of_a_real_detector(
    name: str, found: dict[str, int]
) -> None:
    image = (photograph(name) * 255).astype(np.uint8)
    result = Predictor(device="cpu").segment(
        image, [*found, "zebra"], regions="detector", detector=str(ONNX)
    )
    assert result.owners is not None
    for k, (word, count) in enumerate(found.items()):
        sure = [region for region in result.proposals[k] if (region.score or 0) > 0.25]
        assert len(sure) == count
        assert result.region_reasons[k].startswith("Regions come from the detector 'yolov8n_int8")
        outside = np.ones(image.shape[:2], bool)
        for region in result.proposals[k]:
            top, left, bottom, right = region.box
            down, across = MARGIN * (bottom - top) + 1, MARGIN * (right - left) + 1
            rows = slice(max(0, int(top - down)), int(bottom + down) + 1)
            outside[rows, max(0, int(left - across)) : int(right + across) + 1] = False
        assert outside.mean() > 0.05, word
        assert not result.probabilities[k][outside].any()
    assert "It found none: the whole image was looked at." in result.region_reasons[-1]
    assert result.proposals[-1] == ()
