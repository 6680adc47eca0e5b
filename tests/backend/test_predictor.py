"""The predictor's mechanics, with small random weights: tiles, zoom, cancel, bad input."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from clsclip import Predictor
from clsclip.errors import (
    CancelledError,
    CheckpointError,
    DeviceError,
    InvalidConfigError,
    InvalidImageError,
    InvalidWordError,
    UnknownModelError,
)
from clsclip.model.checkpoint import load_model, save_model
from clsclip.model.device import (
    choose_device,
    describe_device,
    device_faults,
    fast_dtype,
    worker_device,
)
from clsclip.predict.tiling import window_starts, window_weight
from clsclip.zoom import object_diameter, refined_zoom, whole_image_zoom


@pytest.fixture(scope="module")
def predictor(tiny_model: Path) -> Predictor:
    return Predictor(str(tiny_model), device="cpu")


@pytest.mark.parametrize("shape", [(1, 1), (5, 200), (64, 64), (100, 70), (130, 130, 3)])
def test_result_has_the_size_of_the_image(
    predictor: Predictor, rng: np.random.Generator, shape: tuple[int, ...]
) -> None:
    image = rng.integers(0, 255, shape, dtype=np.uint8)
    result = predictor.segment(image, ["nucleus", "cell"])
    assert result.probabilities.shape == (2, *shape[:2])
    assert result.probabilities.dtype == np.uint8
    assert result.words == ("nucleus", "cell")
    assert result.model_version == predictor.version
    assert result.seconds > 0


def test_result_does_not_depend_on_the_other_words(
    predictor: Predictor, rng: np.random.Generator
) -> None:
    image = rng.integers(0, 255, (90, 120), dtype=np.uint8)
    together = predictor.segment(image, ["nucleus", "airplane"], zoom=1.0)
    alone = predictor.segment(image, ["airplane"], zoom=1.0)
    np.testing.assert_array_equal(together.probabilities[1], alone.probabilities[0])
    assert not np.array_equal(together.probabilities[0], together.probabilities[1])


@pytest.mark.parametrize(
    "typed", ["a nucleus", "The Nucleus", " some nucleus ", "all the nucleus."]
)
def test_articles_mean_nothing(predictor: Predictor, rng: np.random.Generator, typed: str) -> None:
    image = rng.integers(0, 255, (60, 70), dtype=np.uint8)
    plain, other = (predictor.segment(image, [word], zoom=1.0) for word in ("nucleus", typed))
    np.testing.assert_array_equal(plain.probabilities, other.probabilities)


def test_spellings_of_words_that_the_model_has_read_mean_nothing(
    tiny_model: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    model, folder = load_model(tiny_model), tmp_path / "model"
    save_model(model, folder, source="", bundle=torch.float32, words=("cell", "red blood cell"))
    predictor = Predictor(str(folder), device="cpu")
    image = rng.integers(0, 255, (70, 80), dtype=np.uint8)

    def seen(word: str) -> list[int]:
        return predictor.segment(image, [word], zoom=1.0).probabilities[0].ravel().tolist()

    assert seen("cell") == seen("Cells") == seen("the  cells.")
    assert seen("red blood cell") == seen("erythrocytes") != seen("cell")
    assert seen("star") != seen("stars")  # for all that is known, something else
    predictor.teach(["star"], model.head_state(), "taught")
    assert seen("star") == seen("Stars")


def test_one_window_equals_the_network(predictor: Predictor, rng: np.random.Generator) -> None:
    image = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    result = predictor.segment(image, ["nucleus"], zoom=1.0)
    model = predictor._model
    with torch.inference_mode():
        pixels = torch.from_numpy(image / 255).permute(2, 0, 1)[None].to(predictor.dtype)
        logits = model(pixels, model.text_cls(["nucleus"]))
    expected = logits.float().sigmoid()[0].numpy() * 255
    assert np.abs(result.probabilities[0] - expected).max() <= 1.5


def test_progress_counts_up_to_its_total(predictor: Predictor) -> None:
    steps: list[tuple[int, int]] = []
    predictor.segment(
        np.zeros((300, 300), np.uint8), ["cell"], zoom=1.0,
        progress=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    assert steps[0][0] == 0
    assert steps[-1][0] == steps[-1][1] > 1
    assert [done for done, _ in steps] == list(range(len(steps)))


def test_cancel_ends_the_work_between_steps(predictor: Predictor) -> None:
    steps: list[int] = []
    with pytest.raises(CancelledError):
        predictor.segment(
            np.zeros((600, 600), np.uint8), ["cell"], zoom=1.0,
            progress=lambda done, _: steps.append(done), cancelled=lambda: len(steps) > 3,
        )  # fmt: skip
    assert max(steps) == 3


def test_bad_requests(predictor: Predictor) -> None:
    image = np.zeros((8, 8))
    with pytest.raises(InvalidWordError, match="class word"):
        predictor.segment(image, [])
    with pytest.raises(InvalidWordError, match="empty"):
        predictor.segment(image, ["  "])
    with pytest.raises(InvalidImageError, match="NaN"):
        predictor.segment(np.full((8, 8), np.nan), ["cell"])
    for zoom in (0.0, -1.0, 17.0, float("nan")):
        with pytest.raises(InvalidConfigError, match="zoom"):
            predictor.segment(image, ["cell"], zoom=zoom)


def test_bad_models_and_devices(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(UnknownModelError, match="no model 'minni'"):
        Predictor("minni")
    with pytest.raises(CheckpointError, match="not a model directory"):
        Predictor(str(tmp_path))
    with pytest.raises(DeviceError, match="'gpu' is not a device"):
        Predictor(str(tiny_model), device="gpu")
    with pytest.raises(DeviceError, match="not supported"):
        choose_device("meta")


def test_devices_are_described() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert fast_dtype(torch.device("cpu")) in (torch.float32, torch.bfloat16)
    assert describe_device("cpu").startswith("CPU (")


def test_processes_beside_each_other_take_the_gpus_in_turn() -> None:
    assert [worker_device("auto", worker, 3) for worker in range(5)] == [
        "cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:1",
    ]  # fmt: skip
    for gpus in (0, 1):  # CPU, MPS or the only GPU: for choose_device to say
        assert [worker_device("auto", worker, gpus) for worker in range(2)] == ["auto"] * 2
    for name in ("cpu", "cuda", "cuda:1", "mps"):
        assert {worker_device(name, worker, 4) for worker in range(4)} == {name}


def test_a_device_without_memory_is_named_with_the_way_out() -> None:
    with (
        pytest.raises(DeviceError, match=r"The device cuda:1 ran out of memory\. .*smaller zoom"),
        device_faults(torch.device("cuda", 1)),
    ):
        raise torch.OutOfMemoryError


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_absent_gpu_is_named() -> None:
    with pytest.raises(DeviceError, match="PyTorch sees 0 CUDA GPUs"):
        choose_device("cuda")


@pytest.mark.parametrize("length", [64, 65, 100, 127, 128, 1000])
def test_windows_cover_an_axis_with_overlap(length: int) -> None:
    starts = window_starts(length, 64, 16)
    assert starts[0] == 0
    assert starts[-1] == length - 64
    assert all(b - a <= 48 for a, b in itertools.pairwise(starts))
    assert len(starts) == len(set(starts))


def test_window_weight_is_positive_and_falls_to_the_edges() -> None:
    weight = window_weight(64, 32, 8)
    assert weight.shape == (64, 32)
    assert float(weight.min()) > 0
    assert float(weight[32, 16]) == 1.0
    assert float(weight[0, 16]) < float(weight[4, 16]) < 1.0


def test_object_diameter_is_the_width_of_most_foreground() -> None:
    mask = np.zeros((200, 200), dtype=bool)
    yy, xx = np.indices(mask.shape)
    for centre in (30, 80, 130):
        mask |= (yy - centre) ** 2 + (xx - 100) ** 2 <= 10**2
    mask[180:182, :5] = True  # a speck does not count
    diameter = object_diameter(mask)
    assert diameter is not None
    assert 19 <= diameter <= 23
    assert object_diameter(np.zeros((5, 5), dtype=bool)) is None
    assert object_diameter(np.ones((1, 1), dtype=bool)) == 2.0


def test_touching_objects_are_measured_one_by_one() -> None:
    yy, xx = np.indices((200, 200))
    lattice = np.hypot((yy % 20) - 10, (xx % 20) - 10) < 10.5  # disks that touch
    diameter = object_diameter(lattice)
    assert diameter is not None
    assert 18 <= diameter <= 24


def test_zoom_follows_the_object_size() -> None:
    assert whole_image_zoom((1024, 512), 256) == 0.25
    disk = np.hypot(*(np.indices((256, 256)) - 128))
    assert refined_zoom(disk < 60, 0.25) is None
    small = refined_zoom(disk < 5, 0.25)
    assert small is not None
    assert small > 0.8
    assert refined_zoom(disk < 0, 0.25) == 0.75
    assert refined_zoom(disk < 0, 2.0) is None
