"""YOLO segmentation text, read back and filled by Ultralytics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray
from PIL import Image
from ultralytics.cfg import get_cfg
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset, img2label_paths, polygon2mask
from ultralytics.utils import YAML
from ultralytics.utils.ops import resample_segments

from clsclip.batch.exports import Labelled, exporter, plane_key
from clsclip.batch.formats.objects import plane_objects
from clsclip.batch.formats.outline import outline
from labelled_images import WORDS, hard_cases, hard_labels, labelled

CASES = hard_cases()


def filled(polygon: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The mask of a polygon of parts of the image, as Ultralytics makes it for training."""
    height, width = shape
    points = (polygon * np.array([width, height], np.float32)).reshape(-1)
    return polygon2mask((height, width), [points]) > 0


def read_rows(file: Path) -> list[tuple[int, NDArray[np.float32]]]:
    rows = [line.split() for line in file.read_text().splitlines()]
    assert all(len(row) >= 7 for row in rows)  # fewer are taken for boxes
    return [(int(row[0]), np.array(row[1:], np.float32).reshape(-1, 2)) for row in rows]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_rows_are_the_objects(tmp_path: Path, case: Labelled) -> None:
    export = exporter("yolo", tmp_path, WORDS)
    export.write(case)
    for plane, file in enumerate(export.files(case.key, len(case.stack))):
        classes = np.zeros(case.labels.shape[-2:], np.int64)
        numbers = [n for one in plane_objects(case, plane) for n in [one.number] * pieces(one)]
        rows = read_rows(file)
        assert len(rows) == len(numbers)
        drawn = np.zeros_like(classes)
        for number, (class_index, polygon) in zip(numbers, rows, strict=True):
            mask = filled(polygon, classes.shape)
            assert not drawn[mask].any()
            drawn[mask], classes[mask] = number, class_index + 1
        np.testing.assert_array_equal(classes, case.class_plane(plane))
        if case.classes is not None:
            np.testing.assert_array_equal(drawn, case.stack[plane])


def pieces(one: Any) -> int:
    return len(list(one.pieces()))


def polygons(ids: NDArray[Any]) -> list[tuple[int, NDArray[np.float32]]]:
    size = np.array(ids.shape[::-1], np.float64)
    return [
        (piece.class_id, (outline(piece) / size).astype(np.float32))
        for one in plane_objects(labelled(ids), 0)
        for piece in one.pieces()
    ]


def draw(found: Sequence[tuple[int, NDArray[np.float32]]], ids: NDArray[Any]) -> NDArray[Any]:
    drawn = np.zeros_like(ids)
    for class_id, polygon in found:
        mask = filled(polygon, ids.shape)
        assert not drawn[mask].any()
        drawn[mask] = class_id
    return drawn


@settings(deadline=None, max_examples=150)
@given(
    npst.arrays(
        np.uint16, npst.array_shapes(min_dims=2, max_dims=2, max_side=14),
        elements=st.integers(0, 3), fill=st.integers(0, 2),
    ),
    st.integers(1, 3),
    st.integers(1, 3),
)  # fmt: skip
def test_any_labels_come_back(ids: NDArray[np.uint16], down: int, across: int) -> None:
    ids = np.kron(ids, np.ones((down, across), np.uint16))
    found = polygons(ids)
    np.testing.assert_array_equal(draw(found, ids), ids)
    if found:  # with the points that Ultralytics puts between, see YOLODataset.update_labels_info
        classes, outlines = zip(*found, strict=True)
        longest = max(map(len, outlines))
        for count in (max(1000, longest + 1), longest + 1):
            points = resample_segments([one.copy() for one in outlines], n=count)
            np.testing.assert_array_equal(draw(list(zip(classes, points, strict=True)), ids), ids)


def test_noise_of_holes_comes_back(rng: np.random.Generator) -> None:
    for part in (0.3, 0.6, 0.8, 0.95):
        ids = (rng.random((120, 90)) < part).astype(np.uint16)
        np.testing.assert_array_equal(draw(polygons(ids), ids), ids)


def test_boxes_of_thin_objects_have_an_area() -> None:
    ids = np.zeros((9, 9), np.uint16)
    ids[1, 1:7] = ids[3:8, 3] = ids[8, 8] = 1
    for _, polygon in polygons(ids):
        assert np.ptp(polygon, axis=0).min() > 0


def test_dataset_of_ultralytics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ultralytics.data.utils.check_font", lambda font: None)  # it downloads
    square = np.zeros((64, 64), np.uint16)
    square[:48] = hard_labels()
    cases = [labelled(square, key="a b/ä"), labelled(square[::-1].copy(), key="c"),
             labelled(np.zeros_like(square), key="empty")]  # fmt: skip
    words = ("nucleus", "large cell", "third: 'one'")
    export = exporter("yolo", tmp_path, words)
    for one in cases:
        export.write(one)
        file = tmp_path / "yolo" / "images" / one.file_name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64)).save(file)
    export.finish(cases)
    data = check_det_dataset(str(tmp_path / "yolo" / "data.yaml"), autodownload=False)
    assert data["names"] == dict(enumerate(words))
    dataset = YOLODataset(
        img_path=data["train"], data=data, task="segment", imgsz=64, augment=False,
        hyp=get_cfg(overrides={"mask_ratio": 1, "overlap_mask": False}),
    )  # fmt: skip
    assert len(dataset) == 3
    for sample in dataset:
        one = next(one for one in cases if sample["im_file"].endswith(one.file_name))
        masks = np.asarray(sample["masks"]).astype(bool)
        drawn = np.zeros_like(square)
        for class_index, mask in zip(np.asarray(sample["cls"]).ravel(), masks, strict=False):
            assert not drawn[mask].any()
            drawn[mask] = int(class_index) + 1
        np.testing.assert_array_equal(drawn, one.labels)


def test_names_of_classes(tmp_path: Path) -> None:
    exporter("yolo", tmp_path, WORDS).finish([])
    assert YAML.load(tmp_path / "yolo" / "data.yaml")["names"] == dict(enumerate(WORDS))


@pytest.mark.parametrize("key", ["a", "images/a", "x/images/y/a", "images/images/a", "images"])
def test_labels_lie_where_ultralytics_looks(tmp_path: Path, key: str) -> None:
    image = tmp_path / "yolo" / "images" / f"{key}.png"
    expected = img2label_paths([str(image)])
    files = exporter("yolo", tmp_path, WORDS).files(plane_key(key, 0, 1), 1)
    assert list(map(str, files)) == expected
