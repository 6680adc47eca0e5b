"""Prediction in proposed regions: every mode, with a real model and a detector of disks."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clsclip import Predictor
from clsclip.errors import (
    CancelledError,
    CheckpointError,
    InvalidConfigError,
    InvalidWordError,
    ModelUnavailableError,
)
from clsclip.predict.transforms import to_rgb
from clsclip.regions import closer
from clsclip.regions.drawn import boxes_within
from clsclip.regions.generators import SURE, Proposals
from clsclip.regions.region import Region
from clsclip.regions.tiles import Tiles
from clsclip.regions.yolo import YoloDetector
from clsclip.segmentation import RegionUsed

KNOWS_DOG = "Regions come from the detector, which knows 'dog'."
AROUND = " The whole image was looked at too."
SHAPE, CENTRE, RADIUS = (100, 160), (60, 100), 30

pytestmark = pytest.mark.usefixtures("no_hub")


@pytest.fixture(scope="module")
def plain(tiny_model: Path) -> Predictor:
    """Without a detector."""
    return Predictor(str(tiny_model), device="cpu")


@pytest.fixture(scope="module")
def plus(plus_model: Path) -> Predictor:
    """With a detector of disks: "dog" is a large one, "cat" a small one."""
    return Predictor(str(plus_model), device="cpu")


@pytest.fixture(scope="module")
def image(disk: Callable[..., np.ndarray]) -> np.ndarray:
    """A dog."""
    return (disk(*SHAPE, *CENTRE, RADIUS) * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def grey() -> np.ndarray:
    return np.full((*SHAPE, 3), 51, np.uint8)


def mask(result: Any) -> np.ndarray:
    return np.asarray(result.probabilities[0])


def test_whole_images_are_the_default(plus: Predictor, image: np.ndarray) -> None:
    default = plus.segment(image, ["dog"])
    assert default.region_reasons == default.proposals == ()
    np.testing.assert_array_equal(mask(default), mask(plus.segment(image, ["dog"], regions={})))
    assert (mask(default) > 0).all()  # random weights are never sure of 0


@pytest.mark.parametrize("mode", ["auto", "detector"])
def test_the_detector_that_the_model_brings_is_asked(
    plus: Predictor, image: np.ndarray, disk_detector: Path, mode: Any
) -> None:
    result = plus.segment(image, ["dog"], regions=mode)
    assert result.region_reasons == (KNOWS_DOG + (AROUND if mode == "auto" else ""),)
    regions = YoloDetector(disk_detector, device="cpu").propose(to_rgb(image), "dog")
    assert result.proposals == (
        tuple(RegionUsed(region.box, region.score, "detector") for region in regions),
    )
    assert regions
    expected = plus.segment(image, ["dog"], regions={"dog": [r.box for r in regions]})
    sure = [r.box for r in regions if mode == "detector" or r.score >= SURE]
    assert len(sure) > 0
    owners = plus.segment(image, ["dog"], regions={"dog": sure}).owners
    assert owners is not None
    assert owners.any()
    np.testing.assert_array_equal(result.owners, owners)
    middle = (slice(45, 75), slice(85, 115))  # of the disk
    assert (mask(result)[middle] > 0).all()
    far = mask(expected) == 0
    assert far.mean() > 0.3
    assert far[:8].all()
    assert far[:, :20].all()
    if mode == "detector":  # as in the paper
        np.testing.assert_array_equal(mask(result), mask(expected))
    else:  # what the detector overlooks is not lost
        plain = mask(plus.segment(image, ["dog"]))
        np.testing.assert_array_equal(mask(result)[far], plain[far])
        both = (plain[middle] / 2 + mask(expected)[middle] / 2).astype(float)
        np.testing.assert_allclose(mask(result)[middle], both, atol=1)


@pytest.mark.parametrize("mode", ["auto", "detector"])
def test_where_the_detector_finds_nothing_the_whole_image_is_looked_at(
    plus: Predictor, grey: np.ndarray, mode: Any
) -> None:
    result = plus.segment(grey, ["dog"], regions=mode)
    assert result.region_reasons == (f"{KNOWS_DOG} It found none: the whole image was looked at.",)
    assert result.proposals == ((),)
    np.testing.assert_array_equal(mask(result), mask(plus.segment(grey, ["dog"])))
    assert mask(result).any()


def test_boxes_that_a_detector_is_not_sure_of_part_nothing_where_a_watershed_can() -> None:
    regions = tuple(Region("dog", score, (0, 0, 9, 9)) for score in (0.9, SURE, 0.3))
    assert Proposals(regions, "").owning == 3
    assert Proposals(regions, "", around=True).owning == 2
    assert Proposals((), "").owning == 0


def test_words_take_different_ways_in_one_image(plus: Predictor, image: np.ndarray) -> None:
    both = plus.segment(image, ["nucleus", "dog"], regions="auto")
    assert both.region_reasons[0] == (
        "Regions are overlapping tiles and the whole image, because the detector does not know "
        "'nucleus' and the weights of the open-vocabulary detector "
        "'google/owlv2-base-patch16-ensemble' are not on this machine."
    )
    assert both.region_reasons[1] == KNOWS_DOG + AROUND
    assert [{region.origin for region in regions} for regions in both.proposals] == [
        {"tile"}, {"detector"}
    ]  # fmt: skip
    assert {region.score for region in both.proposals[0]} == {None}
    assert both.owners is not None
    assert not both.owners[0].any()
    assert both.owners[1].any()
    for k, word in enumerate(both.words):
        alone = plus.segment(image, [word], regions="auto")
        np.testing.assert_array_equal(both.probabilities[k], mask(alone))


def test_tiles_are_the_windows_of_the_look_at_the_whole_image(
    plus: Predictor, image: np.ndarray
) -> None:
    for zoom in (None, 1.0, 0.3):
        result = plus.segment(image, ["dog"], regions="tiles", zoom=zoom)
        assert result.region_reasons == ("Regions are overlapping tiles and the whole image.",)
        plain = plus.segment(image, ["dog"], zoom=zoom)
        np.testing.assert_array_equal(mask(result), mask(plain))
        assert result.zooms == plain.zooms
        regions = Tiles(result.zooms[0], image_size=64, patch_size=16).propose(to_rgb(image), "dog")
        assert result.proposals == (tuple(RegionUsed(r.box, None, "tile") for r in regions),)
        assert (len(regions) == 1) == (result.zooms[0] < 0.5)
        assert result.owners is None


def test_drawn_boxes_come_first_are_cut_off_and_vouched_for(
    plus: Predictor, image: np.ndarray
) -> None:
    drawn = [(-20.0, 120.0, 40.5, 400.0), (500.0, 0.0, 600.0, 50.0), (50.0, 0.0, 99.0, 30.0)]
    result = plus.segment(image, ["dog"], regions="auto", drawn=drawn)
    assert result.region_reasons == (
        "Regions are the 2 boxes that you drew; left out: 1 outside the image.",
    )
    inside = [(0.0, 120.0, 40.5, 160.0), (50.0, 0.0, 99.0, 30.0)]
    assert result.proposals == (tuple(RegionUsed(box, None, "drawn") for box in inside),)
    vouched = plus.segment(image, ["dog"], regions={"dog": inside}, vouched=True)
    np.testing.assert_array_equal(mask(result), mask(vouched))
    assert (mask(result) != mask(plus.segment(image, ["dog"], regions={"dog": inside}))).any()
    array = plus.segment(image, ["dog"], regions="auto", drawn=np.array(drawn))  # type: ignore[arg-type]
    np.testing.assert_array_equal(mask(array), mask(vouched))
    # a caller's own boxes, also of one word only
    given = plus.segment(image, ["cat", "dog"], regions={"dog": inside})
    assert given.proposals == ((), tuple(RegionUsed(box, None, "given") for box in inside))
    # of two words nobody said which box shows which
    two = plus.segment(image, ["dog", "cat"], regions="auto", drawn=drawn)
    unsaid = plus.segment(image, ["dog", "cat"], regions={"dog": inside, "cat": inside})
    np.testing.assert_array_equal(two.probabilities, unsaid.probabilities)


def test_boxes_that_miss_the_image_leave_the_choice_to_the_next(
    plus: Predictor, image: np.ndarray
) -> None:
    result = plus.segment(image, ["dog"], regions="auto", drawn=[(100.0, 0.0, 120.0, 9.0)])
    assert result.region_reasons == (
        "Regions come from the detector, which knows 'dog'; of the drawn boxes none can be used "
        "(1 outside the image)." + AROUND,
    )
    expected = plus.segment(image, ["dog"], regions="auto")
    np.testing.assert_array_equal(mask(result), mask(expected))


def test_drawn_boxes_are_cut_off_dropped_or_refused() -> None:
    drawn = boxes_within(
        [(0, 0, 10, 20), (-3, 5.5, 4, 99), (10, 0, 12, 5), (2, -9, 3, 0)], (10, 20)
    )
    assert drawn.boxes == ((0, 0, 10, 20), (0, 5.5, 4, 20))
    assert drawn.dropped_because == "2 outside the image"
    for box in ((1, 1, 1, 5), (5, 1, 1, 5), (0, float("nan"), 4, 4), (0, 0, float("inf"), 4)):
        with pytest.raises(InvalidConfigError, match=r"drawn box 1,.*has no area"):
            boxes_within([(0, 0, 5, 5), box], (10, 20))


def test_a_named_detector_comes_before_the_one_of_the_model(
    plain: Predictor, plus: Predictor, image: np.ndarray, disk_detector: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"  # as 'napari-clsclip-train detect' writes it
    shutil.copytree(disk_detector, run / "detector")
    expected = mask(plus.segment(image, ["dog"], regions="detector"))
    for path in (disk_detector, run):
        result = plain.segment(image, ["dog"], regions="detector", detector=str(path))
        np.testing.assert_array_equal(mask(result), expected)
        assert result.region_reasons == (KNOWS_DOG,)
    other = tmp_path / "other"
    shutil.copytree(disk_detector, other)
    description = (other / "detector.json").read_text()
    (other / "detector.json").write_text(description.replace('"dog"', '"nucleus"'))
    result = plus.segment(image, ["dog", "nucleus"], regions="auto", detector=str(other))
    assert result.region_reasons == (
        "Regions come from the detector, which knows 'dog'; the detector does not know 'dog'."
        + AROUND,
        f"Regions come from the detector, which knows 'nucleus'.{AROUND}",
    )
    assert {region.origin for region in result.proposals[1]} == {"detector"}


def test_auto_passes_over_a_broken_detector_of_the_model_but_not_a_named_one(
    plus_model: Path, tmp_path: Path, image: np.ndarray
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(plus_model, folder)
    (folder / "detector" / "detector.safetensors").write_bytes(b"torn")
    broken = Predictor(str(folder), device="cpu")
    result = broken.segment(image, ["dog"], regions="auto")
    assert result.region_reasons[0].startswith("Regions are overlapping tiles and the whole image")
    assert "a detector cannot be used (" in result.region_reasons[0]
    for mode, named in (("detector", ""), ("auto", str(folder))):
        with pytest.raises(CheckpointError, match=r"detector\.safetensors"):
            broken.segment(image, ["dog"], regions=mode, detector=named)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="There is no detector at"):
        broken.segment(image, ["dog"], regions="auto", detector=str(tmp_path / "no.onnx"))


def test_what_does_not_fit_together_is_refused(
    plain: Predictor, plus: Predictor, image: np.ndarray, disk_detector: Path
) -> None:
    box, named = [(0.0, 0.0, 9.0, 9.0)], str(disk_detector)
    for mode in ("none", "tiles", "detector", "open-vocabulary"):
        with pytest.raises(InvalidConfigError, match=f"regions '{mode}' does not use"):
            plus.segment(image, ["dog"], regions=mode, drawn=box)  # type: ignore[arg-type]
    for mode in ("none", "tiles"):
        with pytest.raises(InvalidConfigError, match=f"named, which regions '{mode}'"):
            plus.segment(image, ["dog"], regions=mode, detector=named)  # type: ignore[arg-type]
    with pytest.raises(InvalidConfigError, match="There is no detector: none is named"):
        plain.segment(image, ["dog"], regions="detector")
    with pytest.raises(InvalidWordError, match="does not know 'nucleus', only: cat, dog"):
        plus.segment(image, ["dog", "nucleus"], regions="detector")
    with pytest.raises(ModelUnavailableError, match="open-vocabulary detector"):
        plus.segment(image, ["dog"], regions="open-vocabulary")
    for faulty in ("detector", "open-vocabulary"):
        with pytest.raises((InvalidWordError, ModelUnavailableError)):
            plus.check_proposals(["nucleus"], faulty)  # type: ignore[arg-type]


def test_an_open_vocabulary_detector_is_asked_where_it_is_asked_for(
    plus: Predictor, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Owl:
        """Real ones with random weights are in test_proposals_open_vocabulary.py."""

        name = "owl"

        def load(self) -> None:
            asked.append("load")

        def propose(self, rgb: np.ndarray, word: str, checkpoint: object = None) -> list[Region]:
            asked.append(word)
            return [Region(word, 0.5, (10.0, 20.0, 30.0, 60.0), "open vocabulary")]

    monkeypatch.setattr(plus._generators, "_open_vocabulary", lambda source: Owl())
    result = plus.segment(image, ["nucleus"], regions="open-vocabulary", detector="someone/owl")
    assert result.region_reasons == ("Regions come from the owl.",)
    assert asked == ["load", "nucleus"]
    expected = plus.segment(image, ["nucleus"], regions={"nucleus": [(10.0, 20.0, 30.0, 60.0)]})
    np.testing.assert_array_equal(mask(result), mask(expected))


def test_proposing_is_a_step_per_word_that_can_be_cancelled(
    plus: Predictor, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    words = ["dog", "cat", "dogs"]
    plus.segment(image, words, regions="detector", progress=lambda *at: seen.append(at))
    assert seen[:4] == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert seen[-1][0] == seen[-1][1] > 3
    proposed: list[str] = []
    propose = plus._generators.propose

    def counted(rgb: Any, word: str, *rest: Any, **options: Any) -> Any:
        proposed.append(word)
        return propose(rgb, word, *rest, **options)

    monkeypatch.setattr(plus._generators, "propose", counted)
    with pytest.raises(CancelledError):
        plus.segment(image, words, regions="detector", cancelled=lambda: len(proposed) == 2)
    assert proposed == words[:2]
    proposed.clear()
    with pytest.raises(CancelledError):  # between the regions, too
        plus.segment(image, ["dog"], regions="tiles", cancelled=lambda: len(proposed) == 1)
    assert proposed == ["dog"]


def test_a_closer_look_of_a_detector_can_be_cancelled(
    plus: Predictor, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[tuple[int, ...]] = []
    monkeypatch.setattr(closer, "SMALL", 1000.0)  # whatever it finds, it looks closer
    monkeypatch.setattr(closer, "WANTED", 1000.0)
    look = YoloDetector._look

    def counted(self: YoloDetector, rgb: np.ndarray, *rest: Any) -> list[Region]:
        parts.append(rgb.shape)
        return look(self, rgb, *rest)

    monkeypatch.setattr(YoloDetector, "_look", counted)
    large = np.tile(image, (3, 3, 1))
    plus.propose(large, ["dog"], "detector")
    assert len(parts) > 4
    parts.clear()
    with pytest.raises(CancelledError):
        plus.segment(large, ["dog"], regions="detector", cancelled=lambda: len(parts) == 2)
    assert len(parts) == 2


def test_a_detector_is_opened_once(
    plus_model: Path, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []

    def counted(self: YoloDetector, folder: Path, **options: Any) -> None:
        opened.append(Path(folder))
        original(self, folder, **options)

    original = YoloDetector.__init__
    monkeypatch.setattr(YoloDetector, "__init__", counted)
    predictor = Predictor(str(plus_model), device="cpu")
    assert opened == []  # only when regions are asked for
    predictor.segment(image, ["dog"])
    predictor.segment(image, ["dog"], regions="tiles")
    assert opened == []
    predictor.segment(image, ["dog", "cat"], regions="auto")
    predictor.segment(image, ["dog"], regions="detector")
    assert opened == [plus_model / "detector"]
