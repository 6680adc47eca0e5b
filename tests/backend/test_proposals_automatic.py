"""What ``auto`` chooses, and what it tells the user."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch

from clsclip.errors import CheckpointError, DeviceError, InvalidWordError
from clsclip.regions.automatic import choose, open_detector
from clsclip.regions.detector_config import small_architecture
from clsclip.regions.drawn import boxes_around
from clsclip.regions.open_vocabulary import OpenVocabularyDetector
from clsclip.regions.region import Region, RegionGenerator
from clsclip.regions.tiles import Tiles
from clsclip.regions.yolo import YoloDetector, save_detector
from clsclip.regions.yolo_network import new_network

SHAPE = (40, 60)
SQUARE = np.array([(5, 5), (5, 20), (20, 20), (20, 5)], float)
GREY = np.full((*SHAPE, 3), 0.5, np.float32)


class Known(OpenVocabularyDetector):
    """An open-vocabulary detector whose weights are there; those of a real one are too large."""

    def __init__(self, fault: Exception | None = None) -> None:
        super().__init__("someone/owl")
        self.fault = fault

    def available(self) -> bool:
        return True

    def load(self) -> None:
        if self.fault is not None:
            raise self.fault

    def propose(self, rgb: np.ndarray, word: str, checkpoint: object = None) -> list[Region]:
        return []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector directory with random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("detectors") / "random"
    architecture = small_architecture(0.25)
    save_detector(
        new_network(architecture, 2), folder, words=("nucleus", "dog"), image_size=64,
        architecture=architecture, training={},
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def detector(folder: Path) -> YoloDetector:
    found = open_detector(folder, device="cpu")
    assert isinstance(found, YoloDetector)
    return found


def test_drawn_boxes_come_first(detector: YoloDetector) -> None:
    one = boxes_around([SQUARE], SHAPE)
    choice = choose("nucleus", drawn=one, detectors=[lambda: detector], open_vocabulary=Known())
    assert choice.generator is one
    assert choice.reason == "Region is the box that you drew."
    some = boxes_around([SQUARE, SQUARE + 1, SQUARE + 500], SHAPE)
    assert choose("nucleus", drawn=some).reason == (
        "Regions are the 2 boxes that you drew; left out: 1 outside the image."
    )


def test_drawn_boxes_that_show_nothing_are_told_of(detector: YoloDetector) -> None:
    drawn = boxes_around([SQUARE + 500], SHAPE)
    choice = choose("nucleus", drawn=drawn, detectors=[lambda: detector])
    assert choice.generator is detector
    assert choice.reason == (
        "Regions come from the detector, which knows 'nucleus'; of the drawn boxes none can be "
        "used (1 outside the image)."
    )
    assert choose("nucleus", drawn=boxes_around([], SHAPE), detectors=[lambda: detector]) == choose(
        "nucleus", detectors=[lambda: detector]
    )


def test_a_detector_that_knows_the_word_comes_before_open_vocabulary(
    detector: YoloDetector,
) -> None:
    choice = choose("Nucleus", detectors=[lambda: detector], open_vocabulary=Known())
    assert choice.generator is detector
    assert choice.reason == "Regions come from the detector, which knows 'Nucleus'."


def test_a_word_in_another_script_goes_on_to_open_vocabulary(detector: YoloDetector) -> None:
    known = Known()
    choice = choose("細胞核", detectors=[lambda: detector], open_vocabulary=known)
    assert choice.generator is known
    assert choice.reason == (
        "Regions come from the open-vocabulary detector 'someone/owl', because the detector does "
        "not know '細胞核'."
    )


def test_without_weights_tiles_are_left(
    detector: YoloDetector, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    choice = choose(
        "細胞核", detectors=[lambda: detector], open_vocabulary=OpenVocabularyDetector()
    )
    assert choice.reason == (
        "Regions are overlapping tiles and the whole image, because the detector does not know "
        "'細胞核' and the weights of the open-vocabulary detector "
        "'google/owlv2-base-patch16-ensemble' are not on this machine."
    )
    assert choice.generator.propose(GREY, "細胞核") == [
        Region("細胞核", 1.0, (0, 0, *SHAPE), "tile")
    ]
    tiles = Tiles(zoom=20)
    bare = choose("cat", tiles=tiles)
    assert bare.generator is tiles
    assert bare.reason == (
        "Regions are overlapping tiles and the whole image, because there is no detector and "
        "there is no open-vocabulary detector."
    )


def test_broken_detectors_are_passed_over_and_told_of(
    detector: YoloDetector, tmp_path: Path
) -> None:
    broken = functools.partial(open_detector, tmp_path / "broken", device="cpu")
    (tmp_path / "broken").mkdir()
    missing = functools.partial(open_detector, tmp_path / "missing.onnx", device="cpu")
    choice = choose("dog", detectors=[broken, missing, lambda: detector])
    assert choice.generator is detector
    assert choice.reason.startswith("Regions come from the detector, which knows 'dog'; a detector")
    for part in ("is not a detector directory", "missing.onnx"):
        assert part in choice.reason
    choice = choose("dog", detectors=[broken], open_vocabulary=Known(CheckpointError("Torn.")))
    assert isinstance(choice.generator, Tiles)
    assert choice.reason.startswith(
        "Regions are overlapping tiles and the whole image, because a detector cannot be used ('"
    )
    assert choice.reason.endswith(
        " and the open-vocabulary detector 'someone/owl' cannot be used (Torn)."
    )


def test_a_device_that_is_not_there_is_no_matter_of_choice() -> None:
    with pytest.raises(DeviceError):
        choose("dog", open_vocabulary=Known(DeviceError("There is no CUDA device.")))


def test_a_detector_that_finds_nothing_says_so_and_of_other_words_it_does_not(
    folder: Path,
) -> None:
    careful = YoloDetector(folder, device="cpu", confidence=1.0)
    assert careful.propose(GREY, "nucleus") == []
    with pytest.raises(InvalidWordError, match=r"does not know '細胞核', only: nucleus, dog"):
        careful.propose(GREY, "細胞核")
    bold = YoloDetector(folder, device="cpu", confidence=0.0)
    every = bold.detect(GREY, 0.0, limit=3000)
    assert every
    for typed, word in (("A nucleus", "nucleus"), ("Dogs", "dog")):
        assert bold.propose(GREY, typed) == [region for region in every if region.word == word]


def test_all_generators_keep_the_protocol(detector: YoloDetector) -> None:
    generators: list[RegionGenerator] = [
        detector, Known(), Tiles(), boxes_around([SQUARE], SHAPE),
    ]  # fmt: skip
    for generator in generators:
        assert generator.name
        assert generator.knows("nucleus")
        for region in generator.propose(GREY, "nucleus"):
            assert region.word == "nucleus"
            assert 0 <= region.box[0] < region.box[2] <= SHAPE[0]
            assert 0 <= region.box[1] < region.box[3] <= SHAPE[1]
