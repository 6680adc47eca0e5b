"""Crops with boxes, batches, short runs of real detector training, and its figures."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from clsclip.errors import FileError, InvalidConfigError
from clsclip.regions.region import Region
from clsclip.regions.yolo import DETECTOR_WEIGHTS, YoloDetector
from clsclip.training.detect import (
    DetectionSampler,
    DetectSettings,
    detection_words,
    train_detector,
)
from clsclip.training.detection_crops import (
    DIAMETERS,
    clip_boxes,
    exact_boxes,
    exact_words,
    has_boxes,
    random_boxed_crop,
)
from clsclip.training.detection_quality import (
    DetectionQuality,
    box_iou,
    evaluate_detector,
    matched,
)
from clsclip.training.examples import Example
from clsclip.training.formats import ClassFolders, LabelFolder
from clsclip.training.prefetch import prefetch

TINY = {"image_size": 64, "batch_size": 4, "width": 0.25, "device": "cpu"}


@pytest.fixture
def data(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Bright disks on dark noise, with a label image each; and words without boxes."""
    root = tmp_path / "data"
    for part in ("images", "labels"):
        (root / "nuclei" / part).mkdir(parents=True)
    for index in range(3):
        image = rng.integers(0, 40, (72, 90, 3), dtype=np.uint8)
        labels = np.zeros((72, 90), dtype=np.uint16)
        for label, (row, column) in enumerate(((20, 20), (45, 60), (55, 25)), start=1):
            spot = np.hypot(np.arange(72)[:, None] - row, np.arange(90) - column - index) < 9
            image[spot], labels[spot] = 220, label
        Image.fromarray(image).save(root / "nuclei" / "images" / f"{index}.png")
        Image.fromarray(labels).save(root / "nuclei" / "labels" / f"{index}.png")
    for word in ("cat", "dog"):
        (root / "pictures" / word).mkdir(parents=True)
        Image.fromarray(image).save(root / "pictures" / word / "0.png")
    return root


def nuclei(data: Path) -> LabelFolder:
    return LabelFolder(data / "nuclei" / "images", data / "nuclei" / "labels", "nucleus")


def _coloured(diameter: float | None) -> Example:
    """Four rectangles of different colours, each with its box; black elsewhere."""
    image = np.zeros((80, 120, 3), dtype=np.uint8)
    places = {"red": (5, 10, 25, 50), "green": (50, 8, 70, 30), "blue": (40, 70, 75, 110)}
    for channel, (top, left, bottom, right) in enumerate(places.values()):
        image[top:bottom, left:right, channel] = 255
    boxes = {word: np.array([box], dtype=np.float32) for word, box in places.items()}
    return Example(image, {}, frozenset(boxes), diameter=diameter, boxes=boxes)


@pytest.mark.parametrize("diameter", [None, 30.0])
def test_boxes_stay_on_their_objects(
    diameter: float | None, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "clsclip.training.detection_crops.relight", lambda image, microscopy, rng: image
    )
    seen = 0
    for _ in range(60):
        crop = random_boxed_crop(_coloured(diameter), 96, rng)
        assert crop.image.shape == (3, 96, 96)
        assert len(crop.words) == len(crop.boxes)
        for word, (top, left, bottom, right) in zip(crop.words, crop.boxes, strict=True):
            channel = ("red", "green", "blue").index(word)
            others = [other for other in range(3) if other != channel]
            own = (crop.image[channel] > 0.5) & (crop.image[others] < 0.25).all(0)
            rows, columns = np.flatnonzero(own.any(1)), np.flatnonzero(own.any(0))
            found = (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1)
            assert (top, left, bottom, right) == pytest.approx(found, abs=2.0)
            seen += 1
    assert seen > 60


def test_microscopy_is_zoomed_to_known_diameters(rng: np.random.Generator) -> None:
    box = np.array([[90, 90, 110, 110]], dtype=np.float32)
    image = np.zeros((200, 200, 3), dtype=np.uint8)
    example = Example(image, {}, frozenset({"nucleus"}), diameter=20.0, boxes={"nucleus": box})
    crops = [random_boxed_crop(example, 160, rng) for _ in range(600)]
    whole = [b for crop in crops for b in crop.boxes if b.min() > 0 and b.max() < 160]
    sides = np.array([b[2] - b[0] for b in whole])
    assert DIAMETERS[0] - 0.5 <= sides.min() < 16
    assert 60 < sides.max() <= DIAMETERS[1] + 2


def test_boxes_that_are_mostly_outside_are_left_out() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 20], [15, 15, 17, 17]], dtype=np.float32)
    start, window = np.array([8, 0]), np.array([20, 20])
    clipped, kept = clip_boxes(boxes, start, window, np.array([2.0, 2.0]))
    assert kept.tolist() == [False, False, True]
    assert clipped.tolist() == [[14, 30, 18, 34]]
    clipped, kept = clip_boxes(boxes, np.array([5, 5]), window, np.array([1.0, 1.0]))
    assert kept.tolist() == [False, True, True]
    assert clipped[0].tolist() == [0, 0, 5, 15]


def test_objects_with_two_words_count_once() -> None:
    box = np.ones((2, 4), dtype=np.float32)
    assert exact_words(("red blood cell", "platelet", "cell")) == ("red blood cell", "platelet")
    assert exact_words(("cell",)) == ("cell",)
    words, boxes = exact_boxes({"red blood cell": box, "cell": box})
    assert words == ("red blood cell", "red blood cell")
    assert boxes.shape == (2, 4)
    assert exact_boxes({})[1].shape == (0, 4)


def test_batches_name_their_objects(data: Path) -> None:
    source = nuclei(data)
    assert has_boxes(source)
    assert not has_boxes(ClassFolders(data / "pictures"))
    words = detection_words([source])
    assert words == ("nucleus",)
    with pytest.raises(InvalidConfigError, match="--unseen"):
        detection_words([source], frozenset({"nucleus"}))
    sampler = DetectionSampler([source], [1], words, size=64, batch_size=6, seed=0)
    batches = iter(sampler)
    batch = next(batches)
    assert batch.images.shape == (6, 3, 64, 64)
    assert len(batch.image) == len(batch.word) == len(batch.boxes) > 0
    assert (batch.image.diff() >= 0).all()
    assert batch.boxes.min() >= 0
    assert batch.boxes.max() <= 1
    assert (batch.boxes[:, 2:] > batch.boxes[:, :2]).all()
    again = DetectionSampler([source], [1], words, size=64, batch_size=6, seed=0).batch()
    assert torch.equal(again.images, batch.images)
    other = DetectionSampler([source], [1], ("cat",), size=64, batch_size=6, seed=0).batch()
    assert other.boxes.shape == (0, 4)


def test_prefetch_keeps_the_order_and_passes_errors_on() -> None:
    numbers = iter(range(3))
    results = prefetch(lambda: next(numbers), 2)
    assert [next(results), next(results), next(results)] == [0, 1, 2]
    with pytest.raises(RuntimeError, match="StopIteration"):
        next(results)


def test_prefetch_stops_when_it_is_closed() -> None:
    made: list[int] = []
    results = prefetch(lambda: made.append(0), 1)
    next(results)
    results.close()
    count = len(made)
    time.sleep(0.05)
    assert len(made) == count


def test_a_run_trains_resumes_and_is_measured(data: Path, tmp_path: Path) -> None:
    settings = DetectSettings(data=str(data), steps=8, share=("nuclei=2",), **TINY)
    lines: list[str] = []
    folder = train_detector(settings, tmp_path / "run", tell=lines.append)
    first = YoloDetector(folder, device="cpu")
    assert first.words == ("nucleus",)
    assert first.config.image_size == 64
    assert first.config.training["steps"] == 8
    assert "box" in lines[-1]
    before = load_file(folder / DETECTOR_WEIGHTS)
    with pytest.raises(FileError, match="--resume"):
        train_detector(settings, tmp_path / "run")
    train_detector(settings, tmp_path / "run", resume=True)
    second = YoloDetector(folder, device="cpu")
    assert second.config.training["steps"] == 8  # it was over
    reports = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite([r["box"], r["cls"], r["dfl"]]).all() for r in reports)
    assert reports[-1]["step"] == 8
    after = load_file(folder / DETECTOR_WEIGHTS)
    assert all(torch.equal(after[name], weights) for name, weights in before.items())
    quality = evaluate_detector(second, nuclei(data), limit=2)
    assert quality["nucleus"].objects == 6


def test_data_without_boxes_is_refused(data: Path, tmp_path: Path) -> None:
    pictures = DetectSettings(data=str(data / "pictures"), **TINY)
    with pytest.raises(FileError, match="tells objects apart"):
        train_detector(pictures, tmp_path / "run")
    unused = DetectSettings(data=str(data), share=("nuclei=0",), **TINY)
    with pytest.raises(InvalidConfigError, match="share 0"):
        train_detector(unused, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_each_object_is_found_once_and_by_its_word() -> None:
    boxes = np.array([[0, 0, 10, 10], [20, 20, 40, 40]], dtype=np.float32)
    on, double, near = (0, 0, 10, 9), (0, 0, 9, 10), (20, 20, 40, 28)
    regions = [
        Region("cat", 0.9, on), Region("cat", 0.8, double), Region("dog", 0.7, near),
        Region("cat", 0.6, (21, 20, 40, 40)),
    ]  # fmt: skip
    assert matched(regions, ["cat", "dog"], boxes) == regions[:1]
    assert matched(regions, ["cat", "cat"], boxes) == [regions[0], regions[3]]
    assert matched(regions, [], np.zeros((0, 4), np.float32)) == []
    assert box_iou((0, 0, 10, 5), boxes).tolist() == pytest.approx([0.5, 0.0])
    quality = DetectionQuality(objects=4, reported=2, right=1)
    assert (quality.recall, quality.precision) == (0.25, 0.5)
