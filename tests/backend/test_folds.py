"""PASCAL-5^i and COCO-20^i: the folds' classes, images and figures, on small trees of files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle
from scipy.io import savemat

from clsclip.cli.train import main
from clsclip.errors import FileError, InvalidConfigError
from clsclip.training.folds import COCO_CLASSES, VOC_CLASSES, fold_source, fold_words

PASCAL_UNSEEN = (
    ("airplane", "bicycle", "bird", "boat", "bottle"),
    ("bus", "car", "cat", "chair", "cow"),
    ("dining table", "dog", "horse", "motorcycle", "person"),
    ("potted plant", "sheep", "couch", "train", "tv"),
)
COCO_UNSEEN = (
    ("person", "airplane", "boat", "parking meter", "dog", "elephant", "backpack", "suitcase",
     "sports ball", "skateboard", "wine glass", "spoon", "sandwich", "hot dog", "chair",
     "dining table", "mouse", "microwave", "refrigerator", "scissors"),
    ("bicycle", "bus", "traffic light", "bench", "horse", "bear", "umbrella", "frisbee", "kite",
     "surfboard", "cup", "bowl", "orange", "pizza", "couch", "toilet", "remote", "oven", "book",
     "teddy bear"),
    ("car", "train", "fire hydrant", "bird", "sheep", "zebra", "handbag", "skis", "baseball bat",
     "tennis racket", "fork", "banana", "broccoli", "donut", "potted plant", "tv", "keyboard",
     "toaster", "clock", "hair drier"),
    ("motorcycle", "truck", "stop sign", "cat", "cow", "giraffe", "tie", "snowboard",
     "baseball glove", "bottle", "knife", "apple", "carrot", "cake", "bed", "laptop", "cell phone",
     "sink", "vase", "toothbrush"),
)  # fmt: skip

SHAPE = (24, 32)


def label_image(*values: int) -> np.ndarray:
    """A stripe of 6 columns per value, parted by columns of 255 as VOC parts outlines."""
    labels = np.zeros(SHAPE, np.uint8)
    for place, value in enumerate(values):
        labels[4:20, 10 * place : 10 * place + 6] = value
        labels[4:20, 10 * place + 6] = 255
    return labels


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """VOCdevkit with an image of every two neighbouring classes, and SBD beside it."""
    home = tmp_path / "VOCdevkit" / "VOC2012"
    sbd = tmp_path / "sbd"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (home / folder).mkdir(parents=True)
    for folder in ("img", "cls"):
        (sbd / folder).mkdir(parents=True)
    for part in ("train", "val"):
        names = []
        for value in range(1, 21):
            name = f"{part}_{value}"
            names.append(name)
            picture(home / "JPEGImages" / f"{name}.jpg", value)
            labels = Image.fromarray(label_image(value, value % 20 + 1))
            labels.putpalette([k for value in range(256) for k in (value, 0, 255 - value)])
            labels.save(home / "SegmentationClass" / f"{name}.png")
        (home / "ImageSets/Segmentation" / f"{part}.txt").write_text("\n".join(names) + "\n")
    for name, value in (("sbd_3", 3), ("val_3", 3)):  # the second one is tested with
        picture(sbd / "img" / f"{name}.jpg", value)
        content = np.zeros((1, 1), dtype=[("Segmentation", object)])
        content[0, 0]["Segmentation"] = label_image(value)
        savemat(sbd / "cls" / f"{name}.mat", {"GTcls": content})
    (sbd / "train.txt").write_text("sbd_3\n")
    (sbd / "val.txt").write_text("val_3\n")
    return tmp_path


def picture(file: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 255, (*SHAPE, 3), dtype=np.uint8)).save(file)


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """COCO 2017 with an image of every two neighbouring classes, and one of a crowd."""
    (tmp_path / "annotations").mkdir()
    # ids with gaps, and out of order, as COCO has them
    ids = [3 * place + 1 for place in range(len(COCO_CLASSES))]
    categories = [
        {"id": number, "name": name} for number, name in zip(ids, COCO_CLASSES, strict=True)
    ]
    for part in ("train", "val"):
        (tmp_path / f"{part}2017").mkdir()
        images, annotations = [], []
        for place in range(81):
            images.append(
                {"id": place, "file_name": f"{place}.jpg", "height": SHAPE[0], "width": SHAPE[1]}
            )
            picture(tmp_path / f"{part}2017" / f"{place}.jpg", place)
            crowd = place == 80
            shown = (0, 1) if crowd else (place, (place + 1) % 80)
            for at, category in enumerate(shown):
                mask = np.zeros(SHAPE, np.uint8, order="F")
                mask[4:20, 10 * at : 10 * at + 6] = 1
                packed = rle.encode(mask)
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": place, "category_id": ids[category],
                     "iscrowd": int(crowd and at == 1), "bbox": [10 * at, 4, 6, 16], "area": 96,
                     "segmentation": {"size": list(SHAPE), "counts": packed["counts"].decode()}}
                )  # fmt: skip
        content = {
            "images": images, "annotations": annotations, "categories": categories[::-1]
        }  # fmt: skip
        (tmp_path / "annotations" / f"instances_{part}2017.json").write_text(json.dumps(content))
    return tmp_path


def shown(masks: Mapping[str, np.ndarray]) -> set[str]:
    return {word for word, mask in masks.items() if mask.any()}


@pytest.mark.parametrize("fold", range(4))
@pytest.mark.parametrize(
    ("dataset", "classes", "unseen"),
    [("pascal-5i", VOC_CLASSES, PASCAL_UNSEEN), ("coco-20i", COCO_CLASSES, COCO_UNSEEN)],
)
def test_classes_of_a_fold(
    dataset: str, classes: tuple[str, ...], unseen: tuple[tuple[str, ...], ...], fold: int
) -> None:
    seen, tested = fold_words(dataset, fold)
    assert tested == unseen[fold]
    assert set(seen) == {word for other in unseen for word in other} - set(tested)
    assert len(seen) + len(tested) == len(classes)


@pytest.mark.parametrize("fold", range(4))
@pytest.mark.parametrize("dataset", ["pascal-5i", "coco-20i"])
def test_nothing_of_an_unseen_class_reaches_training(
    dataset: str, fold: int, request: pytest.FixtureRequest
) -> None:
    data = str(request.getfixturevalue("voc" if dataset == "pascal-5i" else "coco"))
    seen, unseen = fold_words(dataset, fold)
    source = fold_source(dataset, fold, data, "train")
    assert set(source.words) == set(seen)
    met = set()
    for index in range(len(source)):
        example = source[index]
        met |= shown(example.masks)
        assert not {*example.masks, *example.present, *example.boxes} & set(unseen)
    assert met == set(seen)
    tested = fold_source(dataset, fold, data, "val")
    assert set(tested.words) == set(unseen)
    answers = [tested[index].masks for index in range(len(tested))]
    assert set().union(*(shown(masks) for masks in answers)) == set(unseen)


def test_outlines_and_crowds_are_ignored(voc: Path, coco: Path) -> None:
    source = fold_source("pascal-5i", 0, str(voc), "val")
    example = next(
        source[k] for k in range(len(source)) if set(source[k].masks) == {"bird", "boat"}
    )
    labels = label_image(3, 4)
    np.testing.assert_array_equal(example.masks["bird"], labels == 3)
    np.testing.assert_array_equal(example.ignore, labels == 255)
    crowd = fold_source("coco-20i", 1, str(coco), "val")
    last = crowd[len(crowd) - 1]
    assert last.ignore is not None
    assert last.ignore[4:20, 10:16].all()
    assert last.ignore.sum() == 16 * 6
    assert not last.masks  # the bicycles are a crowd, the person is of another fold


def test_further_images_of_sbd_are_trained_on_but_not_those_to_test_with(voc: Path) -> None:
    without = len(fold_source("pascal-5i", 3, str(voc), "train"))
    (voc / "sbd" / "cls").rename(voc / "sbd" / "elsewhere")
    assert len(fold_source("pascal-5i", 3, str(voc), "train")) == without - 1
    augmented = voc / "VOCdevkit" / "VOC2012" / "SegmentationClassAug"
    augmented.mkdir()
    for name in ("val_1", "train_1", "more"):
        Image.fromarray(label_image(3)).save(augmented / f"{name}.png")
    # VOC's own labels stand where there are two
    assert len(fold_source("pascal-5i", 3, str(voc), "train")) == without


def test_missing_files_are_explained(tmp_path: Path, voc: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(FileError, match=r"VOCdevkit/VOC2012.*--download fetches both"):
        fold_source("pascal-5i", 0, str(empty), "val")
    with pytest.raises(FileError, match=r"annotations/instances_train2017.json"):
        fold_source("coco-20i", 0, str(empty), "train")
    with pytest.raises(InvalidConfigError, match="fold 4"):
        fold_words("coco-20i", 4)
    (voc / "VOCdevkit/VOC2012/SegmentationClass/val_2.png").write_bytes(b"no picture")
    with pytest.raises(FileError, match=r"val_2\.png"):
        fold_source("pascal-5i", 0, str(voc), "val")


def test_a_head_is_trained_and_measured_on_a_fold(
    voc: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = tmp_path / "head"
    fold = ["--dataset", "pascal-5i", "--fold", "3", "--data", str(voc)]
    assert main([
        "fit", "--clip", str(tiny_model / "clip"), *fold, "--steps", "2", "--image-size", "32",
        "--batch-size", "2", "--accumulate", "1", "--device", "cpu", "--output", str(head),
    ]) == 0  # fmt: skip
    assert main(["evaluate", "--model", str(head), *fold, "--device", "cpu"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out.partition("{")[1] + said.out.partition("{")[2])
    assert set(found["per_class"]) == {"potted plant", "sheep", "couch", "train", "tv"}
    assert found["images"] == 6  # two neighbours each, one of them of fold 2 or 0
    own = f"| ClsCLIP ({head}) | {100 * found['miou']:.1f} |"
    assert own in said.err
    assert "| ClsCLIP+ | 71.1 | 71.5 | 80.6 | paper, Table 4b |" in said.err
    assert main(["evaluate", "--model", str(head), "--dataset", "coco-20i"]) == 2
    assert "--data" in capsys.readouterr().err
