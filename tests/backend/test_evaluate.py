"""Evaluation: seen and unseen words, boxes, shuffled words, changed images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clsclip.cli.train import main
from clsclip.errors import CheckpointError, InvalidConfigError
from clsclip.model import registry
from clsclip.training.disturb import CHANGES, SCALES, disturb, disturb_mask
from clsclip.training.evaluate import Evaluation, evaluate
from clsclip.training.evaluate_settings import EvaluateSettings
from clsclip.training.looks import look
from clsclip.training.methods import method_name
from clsclip.training.paper_figures import REPORTED


@pytest.fixture
def coco(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A COCO folder whose validation part is one image with two cars (triangles) and a cup."""
    root = tmp_path / "coco"
    (root / "val2017").mkdir(parents=True)
    (root / "annotations").mkdir()
    picture = rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(picture).save(root / "val2017" / "1.png")
    shapes = ((3, (10, 10)), (3, (45, 30)), (7, (10, 35)))
    annotations = [
        {"id": n, "image_id": 1, "category_id": category, "iscrowd": 0, "area": 200,
         "segmentation": [[x, y, x + 20, y, x, y + 20]], "bbox": [x, y, 20, 20]}
        for n, (category, (x, y)) in enumerate(shapes)
    ]  # fmt: skip
    content = {
        "images": [{"id": 1, "file_name": "1.png", "width": 80, "height": 60}],
        "categories": [{"id": 3, "name": "car"}, {"id": 7, "name": "cup"}],
        "annotations": annotations,
    }
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    return root


def test_boxes_are_measured_beside_the_model(
    coco: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", "--data", str(coco), "--regions", "boxes", "--model", str(tiny_model),
                 "--unseen", "cup", "--json", str(tmp_path / "e.json")]  # fmt: skip
    assert main(arguments) == 0
    result = Evaluation.model_validate_json((tmp_path / "e.json").read_text())
    assert set(result.per_class) == {"car", "cup"}
    assert result.parts["boxes as masks"].miou == pytest.approx(0.5, abs=0.06)  # triangles
    assert {"seen", "unseen"} <= set(result.parts)
    assert result.parts["unseen"].classes == result.parts["seen"].classes == 1
    assert "boxes as masks" in capsys.readouterr().out


def test_a_limit_holds_for_folders_too(
    tiny_model: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    for part, values in (("images", 255), ("labels", 2)):
        (tmp_path / part).mkdir()
        for number in range(5):
            pixels = rng.integers(0, values, (32, 32), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / part / f"{number}.png")
    folders = {"images": str(tmp_path / "images"), "labels": str(tmp_path / "labels")}
    told: dict[int | None, list[str]] = {None: [], 3: []}
    for limit, lines in told.items():
        settings = EvaluateSettings(**folders, word="cell", model=str(tiny_model), limit=limit)
        evaluate(settings, lines.append)
    assert [len(lines) for lines in told.values()] == [5, 3]
    again: list[str] = []
    evaluate(settings, again.append)
    assert again == told[3]


def test_whole_image_is_one_look(coco: Path, tiny_model: Path) -> None:
    settings = EvaluateSettings(data=str(coco), model=str(tiny_model), whole=True, threshold=0.3)
    at_zoom = settings.model_copy(update={"whole": False, "zoom": 64 / 80})
    found, expected = evaluate(settings), evaluate(at_zoom)
    assert (found.foreground, found.per_class) == (expected.foreground, expected.per_class)
    both = settings.model_copy(update={"zoom": 0.8})
    with pytest.raises(InvalidConfigError, match="leave --zoom out"):
        evaluate(both)


def test_proposed_regions_are_measured_as_the_predictor_segments(
    coco: Path, plus_model: Path, tmp_path: Path, no_hub: None
) -> None:
    found: dict[str, float] = {}
    for mode in ("none", "auto", "tiles"):
        settings = {"data": str(coco), "regions": mode, "model": str(plus_model), "threshold": 0.5}
        result = evaluate(EvaluateSettings.model_validate(settings))
        assert result.parts == {}  # no boxes beside it
        found[mode] = result.foreground
    assert found["auto"] == found["tiles"] == found["none"]  # its detector knows neither word
    detector = tmp_path / "detector"
    shutil.copytree(plus_model / "detector", detector)
    description = (detector / "detector.json").read_text()
    renamed = description.replace('"cat"', '"cup"').replace('"dog"', '"car"')
    (detector / "detector.json").write_text(renamed)
    asked = EvaluateSettings(
        data=str(coco), regions="yolo", detector=str(detector), model=str(plus_model)
    )
    result = evaluate(asked)
    assert set(result.parts) == {"boxes as masks"}
    assert result.parts["boxes as masks"].images == 2 * result.images
    boxes = evaluate(asked.model_copy(update={"method": "boxes"}))
    assert boxes.method == "boxes"
    assert boxes.parts == {}
    assert boxes.miou == result.parts["boxes as masks"].miou
    assert boxes.fb_iou == result.parts["boxes as masks"].fb_iou
    missing = str(tmp_path / "no")
    with pytest.raises(CheckpointError, match="There is no detector at"):
        evaluate(EvaluateSettings(data=str(coco), regions="detector", detector=missing))


def test_annotated_boxes_are_measured_as_masks(
    coco: Path, tiny_model: Path, tmp_path: Path
) -> None:
    arguments = ["evaluate", "--data", str(coco), "--model", str(tiny_model), "--method", "boxes",
                 "--regions", "manual", "--json", str(tmp_path / "e.json")]  # fmt: skip
    assert main(arguments) == 0
    result = Evaluation.model_validate_json((tmp_path / "e.json").read_text())
    assert result.miou == pytest.approx(0.5, abs=0.06)  # triangles
    assert result.foreground == pytest.approx((800 + 400) / (2 * 60 * 80), abs=0.02)
    settings = EvaluateSettings(data=str(coco), model=str(tiny_model), method="boxes")
    for update, message in (
        ({}, "--regions none does not name"),
        ({"regions": "auto"}, "Use detector"),
        ({"regions": "boxes", "instances": True}, "--method boxes"),
        ({"regions": "yolo"}, "There is no detector"),
    ):
        with pytest.raises(InvalidConfigError, match=message):
            evaluate(settings.model_copy(update=update))


def test_clipseg_is_measured_like_a_model(
    coco: Path, tiny_model: Path, tiny_clipseg: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = EvaluateSettings(data=str(coco), regions="boxes", model=str(tiny_clipseg))
    found = evaluate(settings)
    assert found.method == "clipseg"
    assert found.parts["boxes as masks"].images == 2
    with pytest.raises(InvalidConfigError, match=r"--method clsclip .* which is a CLIPSeg"):
        evaluate(settings.model_copy(update={"method": "clsclip"}))
    with pytest.raises(InvalidConfigError, match=r"--method clipseg .* which is a ClsCLIP"):
        evaluate(EvaluateSettings(data=str(coco), model=str(tiny_model), method="clipseg"))
    monkeypatch.setattr(registry, "_named", lambda: {"clipseg": tiny_clipseg})
    by_name = evaluate(EvaluateSettings(data=str(coco), regions="boxes", method="clipseg"))
    assert by_name.model == "clipseg"
    assert by_name.per_class == found.per_class


def test_rows_of_the_paper_are_in_themselves_right() -> None:
    rows = [row for rows in REPORTED.values() for row in rows if row.folds]
    assert len(rows) == 20 + 17
    for row in rows:
        assert np.mean(row.folds) == pytest.approx(row.miou, abs=0.11), row


def test_methods_have_names_of_their_own() -> None:
    named = [
        method_name("clsclip", "mini", "none"), method_name("clsclip", "mini", "tiles"),
        method_name("clsclip", "mini", "detector"), method_name("clipseg", "clipseg", "detector"),
        method_name("boxes", "mini", "detector"),
    ]  # fmt: skip
    assert named == [
        "ClsCLIP (mini)", "ClsCLIP (mini, tiles)", "ClsCLIP+ (mini, detector)",
        "CLIPSeg (clipseg, detector)", "region proposals as masks (detector)",
    ]  # fmt: skip


def test_scenes_are_measured_with_own_and_with_other_words(tiny_model: Path) -> None:
    settings = EvaluateSettings(
        data="scenes", limit=4, pairs=2, unseen="star, nucleus, cell", model=str(tiny_model)
    )
    own = evaluate(settings)
    assert own.images == 4
    assert sum(part.images for name, part in own.parts.items() if name in {"seen", "unseen"}) == 8
    shuffled = evaluate(settings.model_copy(update={"shuffled": True}))
    assert shuffled.per_class.keys() == own.per_class.keys()


def test_a_wrong_word_is_asked_of_photographs(coco: Path, tiny_model: Path) -> None:
    settings = EvaluateSettings(data=str(coco), word="nucleus", model=str(tiny_model))
    result = evaluate(settings)
    assert set(result.image_mean) == {"nucleus"}
    assert 0.0 <= result.foreground <= 1.0
    assert evaluate(settings.model_copy(update={"word": "car"})).images == 1
    assert evaluate(settings.model_copy(update={"word": "car"})).foreground == 0.0


def test_settings_that_do_not_fit_together_are_refused(coco: Path) -> None:
    for settings, message in (
        (EvaluateSettings(), "--images, --labels and --word, or --data"),
        (EvaluateSettings(images="a", word="cup"), "--images, --labels and --word"),
        (EvaluateSettings(data=str(coco), labels="b"), "either --data, or --images"),
        (EvaluateSettings(data=str(coco), regions="boxes", change="third"), "change of size"),
    ):
        with pytest.raises(InvalidConfigError, match=message):
            evaluate(settings)


def test_objects_are_measured_beside_connected_components(
    data: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    val = data / "nuclei" / "val"
    labels = np.zeros((64, 80), np.uint16)
    labels[10:30, 10:30], labels[40:44, 40:44] = 3, 9
    for file in sorted((val / "labels").iterdir())[1:]:
        Image.fromarray(labels).save(file)
    arguments = ["evaluate", "--data", str(data / "nuclei"), "--instances", "--model",
                 str(tiny_model), "--json", str(tmp_path / "e.json")]  # fmt: skip
    assert main(arguments) == 0
    found = Evaluation.model_validate_json((tmp_path / "e.json").read_text())
    assert list(found.objects) == [
        "instances", "connected components", "whole image, instances",
        "whole image, connected components", "true mask parted",
    ]  # fmt: skip
    assert all(figures.everything.true == 5 for figures in found.objects.values())
    assert all(figures.small.true == 2 for figures in found.objects.values())
    perfect = found.objects["true mask parted"]
    assert perfect.everything.f1 == perfect.small.f1 == 1.0
    assert found.objects["instances"].everything.f1 < 1
    assert '"true mask parted"' in capsys.readouterr().out
    folder = EvaluateSettings(
        images=str(val / "images"), labels=str(val / "labels"), word="nucleus", instances=True,
        model=str(tiny_model), min_area=17,
    )  # fmt: skip
    assert evaluate(folder).objects["true mask parted"].everything.predicted == 3
    assert evaluate(folder.model_copy(update={"instances": False})).objects == {}


def test_objects_need_annotations_of_objects(data: Path, coco: Path, tiny_model: Path) -> None:
    masks = data / "nuclei" / "val" / "labels"
    two = np.zeros((64, 80), np.uint8)
    two[5:20, 5:20] = two[30:50, 30:50] = 255
    Image.fromarray(two).save(sorted(masks.iterdir())[-1])
    settings = EvaluateSettings(data=str(coco), instances=True, model=str(tiny_model))
    for update, message in (
        ({}, "masks of words, not of single objects"),
        ({"data": "scenes", "limit": 2}, "'scenes' has masks of words"),
        ({"data": str(data / "nuclei")}, "one value for all objects"),
        ({"data": str(data / "nuclei"), "change": "triple"}, "change of size"),
    ):
        with pytest.raises(InvalidConfigError, match=message):
            evaluate(settings.model_copy(update=update))


@pytest.mark.parametrize("change", CHANGES)
def test_changes_keep_image_and_mask_together(change: str, rng: np.random.Generator) -> None:
    mask = np.hypot(*(np.indices((60, 90)) - np.array([30, 50])[:, None, None])) < 15
    image = rng.integers(10, 40, (60, 90, 3), dtype=np.uint8)
    image[mask] += 150
    changed, truth = disturb(image, change), disturb_mask(mask, change)  # type: ignore[arg-type]
    assert changed.shape[:2] == truth.shape
    assert changed.dtype == (np.uint16 if change == "16-bit" else np.uint8)
    scale = SCALES.get(change, 1.0)  # type: ignore[call-overload]
    assert truth.mean() == pytest.approx(mask.mean(), rel=0.05)
    assert truth.shape == tuple(round(scale * length) for length in mask.shape)
    grey = changed.mean(-1)
    contrast = grey[truth].mean() - grey[~truth].mean()
    assert abs(contrast) > 25
    assert (contrast < 0) == (change in {"inverted", "stained"})
    assert np.array_equal(changed, image) == (change == "none")


def test_looks() -> None:
    dark = np.full((40, 40, 3), 10, np.uint8)
    bright = np.full((40, 40, 3), 220, np.uint8)
    pink = np.broadcast_to(np.array([230, 160, 200], np.uint8), (40, 40, 3))
    assert [look(image) for image in (dark, bright, pink)] == ["dark", "bright", "stained"]


@pytest.mark.slow
def test_the_bundled_model_finds_single_nuclei(shared_data: Path, tmp_path: Path) -> None:
    val = shared_data / "nuclei" / "val"
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
        for file in sorted((val / part).iterdir())[::6]:
            (tmp_path / part / file.name).symlink_to(file)
    found = evaluate(
        EvaluateSettings(
            images=str(tmp_path / "images"), labels=str(tmp_path / "labels"), word="nucleus",
            instances=True,
        )
    ).objects  # fmt: skip
    ours = found["instances"]
    assert ours.everything.f1 > 0.6
    for name in (
        "connected components", "whole image, instances", "whole image, connected components"
    ):  # fmt: skip
        assert ours.everything.f1 > found[name].everything.f1 + 0.05
        assert ours.small.f1 > found[name].small.f1 + 0.05
