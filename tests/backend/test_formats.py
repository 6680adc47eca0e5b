"""Label files and their exports, read back by the libraries that are to read them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray
from PIL import Image
from pycocotools.coco import COCO
from skimage.measure import label
from tifffile import TiffFile, imread, imwrite

from clsclip.batch.exports import (
    Labelled,
    exporter,
    plane_key,
    read_labelled_output,
    refuse_large,
)
from clsclip.batch.files import features_file, label_file, read_labels, write_features, write_labels
from clsclip.batch.formats.objects import plane_objects
from clsclip.batch.formats.palette import voc_palette
from clsclip.errors import FileError, InvalidConfigError, InvalidImageError
from clsclip.training.formats import read_labels as read_training_labels
from labelled_images import WORDS, hard_cases, hard_labels, hard_objects, labelled

CASES = hard_cases()


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Labelled:
    return CASES[request.param]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


# the label file


@pytest.mark.parametrize("size", [None, (0.325, 0.65)])
def test_label_files_are_ome_tiff(
    tmp_path: Path, case: Labelled, size: tuple[float, float] | None
) -> None:
    target = label_file(tmp_path, case.key)
    write_labels(target, case.labels, size)
    labels, read_size = read_labels(target)
    np.testing.assert_array_equal(labels, case.labels)
    assert (labels.dtype, read_size) == (case.labels.dtype, size)
    with TiffFile(target) as file:
        assert file.is_ome
        assert file.series[0].axes == "ZYX"[-case.labels.ndim :]
        assert ("PhysicalSizeX" in (file.ome_metadata or "")) == (size is not None)
    np.testing.assert_array_equal(imread(target), case.labels)
    if case.labels.ndim == 2:
        np.testing.assert_array_equal(read_training_labels(target), case.labels)


def test_the_same_labels_are_the_same_bytes(tmp_path: Path) -> None:
    labels = hard_labels()
    files = [tmp_path / name for name in ("a.tif", "b.tif", "other labels.tif", "size.tif")]
    write_labels(files[0], labels, (0.5, 0.5))
    write_labels(files[1], labels.copy(), (0.5, 0.5))
    write_labels(files[2], labels[::-1], (0.5, 0.5))
    write_labels(files[3], labels, (0.5, 0.25))
    assert files[0].read_bytes() == files[1].read_bytes()
    identifiers = []
    for file in files[1:]:
        with TiffFile(file) as tiff:
            identifiers.append((tiff.ome_metadata or "").partition("urn:uuid:")[2][:36])
    assert len(set(identifiers)) == 3


def test_labels_of_many_objects_and_of_a_stack_of_one_plane(tmp_path: Path) -> None:
    many = np.arange(70_000, dtype=np.int32).reshape(1, 200, 350)
    write_labels(tmp_path / "a.tif", many)
    labels, _ = read_labels(tmp_path / "a.tif")
    assert labels.dtype == np.uint32
    np.testing.assert_array_equal(labels, many[0])


def test_what_is_no_label_image(tmp_path: Path) -> None:
    imwrite(tmp_path / "float.tif", np.zeros((4, 5), np.float32))
    imwrite(tmp_path / "colour.tif", np.zeros((4, 5, 3), np.uint8), photometric="rgb")
    imwrite(tmp_path / "negative.tif", np.full((4, 5), -1, np.int16))
    for name, message in (("float", "is no label"), ("colour", "3 chan"), ("negative", "from -1")):
        with pytest.raises(InvalidImageError, match=message):
            read_labels(tmp_path / f"{name}.tif")


# labels of an output folder


def write_table(target: Path, rows: str) -> None:
    features_file(target).write_text(f"label,class,area\n{rows}", encoding="utf-8")


def test_output_is_read_with_its_objects(tmp_path: Path) -> None:
    ids, classes = hard_objects()
    target = label_file(tmp_path, "a b/ü")
    write_labels(target, ids, (0.5, 0.25))
    image = Path("ü.png")
    with pytest.raises(InvalidImageError, match=r"the id 5, which is no class; the highest is 3"):
        read_labelled_output(tmp_path, image, "a b/ü", WORDS)
    numbers = np.flatnonzero(classes) + 1
    words = np.array(WORDS)[classes[numbers - 1] - 1]
    write_features(features_file(target), {"label": numbers, "class": words, "area": numbers / 3})
    read = read_labelled_output(tmp_path, image, "a b/ü", WORDS)
    np.testing.assert_array_equal(read.labels, ids)
    np.testing.assert_array_equal(read.classes, classes)
    assert (read.words, read.pixel_size, read.file_name) == (WORDS, (0.5, 0.25), "a b/ü.png")
    assert set(np.unique(read.class_plane(0))) == {0, 1, 2, 3}
    write_table(target, "1,nucleus,3\n")
    with pytest.raises(InvalidImageError, match=r"which is no object in the table"):
        read_labelled_output(tmp_path, image, "a b/ü", WORDS)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("1,mitochondrion,3\n", "cannot be read as a table"),
        ("one,nucleus,3\n", "cannot be read as a table"),
        ("0,nucleus,3\n", "objects from 0"),
        (f"{2**24 + 1},nucleus,3\n", "ids go from 1"),
    ],
)
def test_damaged_tables(tmp_path: Path, rows: str, message: str) -> None:
    write_labels(tmp_path / "a.tif", np.zeros((4, 4), np.uint16))
    write_table(tmp_path / "a.tif", rows)
    with pytest.raises(FileError, match=message):
        read_labelled_output(tmp_path, Path("a.png"), "a", WORDS)


def test_very_large_and_missing_labels(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be read"):
        read_labelled_output(tmp_path, Path("a.png"), "a", WORDS)
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(FileError, match="very large; no other format"):
        read_labelled_output(tmp_path, Path("a.png"), "a", WORDS)
    refuse_large(Path("a.png"), ["tiff"])
    with pytest.raises(InvalidConfigError, match="not written as png, coco"):
        refuse_large(Path("a.png"), ["tiff", "png", "coco"])


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        (np.zeros((3, 3), np.int64), None, "expected uint16"),
        (np.zeros((2, 2, 3, 3), np.uint16), None, "expected uint16"),
        (np.zeros((0, 3), np.uint16), None, "expected uint16"),
        (np.ones((3, 3), np.uint16), np.array([4]), "from 4 to 4; they lie"),
        (np.ones((3, 3), np.uint16), np.array([0, 1]), "the id 1, which is no object"),
    ],
)
def test_labels_that_are_none(
    labels: NDArray[Any], classes: NDArray[Any] | None, message: str
) -> None:
    with pytest.raises(InvalidImageError, match=message):
        labelled(labels, classes)


# all formats


@pytest.mark.parametrize("name", ["png", "coco", "yolo", "voc"])
def test_the_same_bytes_in_any_order(tmp_path: Path, name: Any) -> None:
    every = list(CASES.values())
    for folder, order in (("one", every), ("other", every[::-1])):
        output = tmp_path / folder
        output.mkdir()
        export = exporter(name, output, WORDS)
        for one in order:
            export.write(one)
        before = contents(output)
        files = [file for one in order for file in export.files(one.key, len(one.stack))]
        assert sorted(before) == sorted(file.relative_to(output).as_posix() for file in files)
        export.write(order[0])
        export.finish(iter(order))
        export.finish(iter(order))
        assert before.items() <= contents(output).items()
    assert contents(tmp_path / "one") == contents(tmp_path / "other")


def test_formats_that_there_are_not(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match="no exporter of the format 'tiff'; there are png"):
        exporter("tiff", tmp_path, WORDS)
    with pytest.raises(InvalidConfigError, match="255 words; Pascal VOC holds 254"):
        exporter("voc", tmp_path, [str(n) for n in range(255)])


# PNG


def test_png(tmp_path: Path, case: Labelled) -> None:
    export = exporter("png", tmp_path, WORDS)
    export.write(case)
    files = export.files(case.key, len(case.stack))
    for file, plane in zip(files, case.stack, strict=True):
        with Image.open(file) as image:
            assert image.mode == "P"
            np.testing.assert_array_equal(np.asarray(image), plane)
            expected = voc_palette()[plane]
            np.testing.assert_array_equal(np.asarray(image.convert("RGB")), expected)


def test_palette_of_pascal_voc() -> None:
    # background, aeroplane, bicycle, boat, person and void, as the benchmark's documents list them
    colours = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (0, 0, 128), (192, 128, 128), (224, 224, 192)]
    np.testing.assert_array_equal(voc_palette()[[0, 1, 2, 4, 15, 255]], colours)


def test_png_of_many_objects(tmp_path: Path) -> None:
    export = exporter("png", tmp_path, ("cell",))
    for count, mode in ((256, "P"), (272, "I;16"), (65_536, "I;16")):
        ids = np.arange(count, dtype=np.uint32).reshape(-1, 16)
        export.write(labelled(ids, np.ones(count, np.uint16), "many", ("cell",)))
        with Image.open(tmp_path / "png" / "many.png") as image:
            assert image.mode == mode
            np.testing.assert_array_equal(np.asarray(image), ids)
    before = contents(tmp_path)
    with pytest.raises(InvalidImageError, match="ids up to 65536; PNG holds"):
        export.write(labelled(ids + 1, np.ones(count, np.uint16), "many", ("cell",)))
    assert contents(tmp_path) == before


# COCO


def coco_of(output: Path, cases: list[Labelled]) -> COCO:
    output.mkdir(exist_ok=True)
    export = exporter("coco", output, WORDS)
    export.finish(cases)
    return COCO(str(output / "coco.json"))


def images_of(coco: COCO, one: Labelled) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    for entry in coco.loadImgs(sorted(coco.getImgIds())):
        if entry["file_name"] == one.file_name:
            assert (entry["height"], entry["width"]) == one.labels.shape[-2:]
            plane = entry.get("plane", 0)
            yield plane, coco.loadAnns(coco.getAnnIds(imgIds=entry["id"]))


def test_coco(tmp_path: Path) -> None:
    cases = list(CASES.values())
    coco = coco_of(tmp_path, cases)
    assert [(c["id"], c["name"]) for c in coco.loadCats(coco.getCatIds())] == [*enumerate(WORDS, 1)]
    names = [entry["file_name"] for entry in coco.loadImgs(coco.getImgIds())]
    assert names == sorted(names)
    for one in cases:
        planes = 0
        for plane, listed in images_of(coco, one):
            planes += 1
            drawn, classes = np.zeros((2, *one.labels.shape[-2:]), np.uint32)
            found = plane_objects(one, plane)
            for annotation, expected in zip(listed, found, strict=True):
                mask = coco.annToMask(annotation) > 0
                assert not drawn[mask].any()
                drawn[mask], classes[mask] = expected.number, annotation["category_id"]
                assert annotation["area"] == mask.sum()
                assert annotation["iscrowd"] == 0
                rows, columns = np.nonzero(mask)
                left, top, width, height = annotation["bbox"]
                assert (left, top) == (columns.min(), rows.min())
                assert (left + width, top + height) == (columns.max() + 1, rows.max() + 1)
            np.testing.assert_array_equal(classes, one.class_plane(plane))
            if one.classes is None:
                pieces = label(one.stack[plane], connectivity=2, background=0)
                np.testing.assert_array_equal(drawn, pieces)
            else:
                np.testing.assert_array_equal(drawn, one.stack[plane])
        assert planes == len(one.stack)


@settings(deadline=None, max_examples=60)
@given(npst.arrays(np.uint16, npst.array_shapes(min_dims=2, max_dims=2, max_side=9),
                   elements=st.integers(0, 3)))  # fmt: skip
def test_coco_of_any_labels(tmp_path_factory: pytest.TempPathFactory, ids: NDArray[Any]) -> None:
    one = labelled(ids)
    coco = coco_of(tmp_path_factory.getbasetemp() / "any", [one])
    drawn = np.zeros_like(ids)
    for _, listed in images_of(coco, one):
        for annotation in listed:
            drawn[coco.annToMask(annotation) > 0] += annotation["category_id"]
    np.testing.assert_array_equal(drawn, ids)


# Pascal VOC


def open_voc(output: Path, cases: list[Labelled]) -> Path:
    """Write them, and put the images where VOC has them; the folder for torchvision."""
    export = exporter("voc", output, WORDS)
    for one in cases:
        export.write(one)
    export.finish(cases)
    for one in cases:
        for plane in range(len(one.stack)):
            name = plane_key(one.key, plane, len(one.stack))
            file = output / "voc/VOCdevkit/VOC2012/JPEGImages" / f"{name}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", one.labels.shape[:-3:-1]).save(file)
    return output / "voc"


def test_voc(tmp_path: Path) -> None:
    from torchvision.datasets import VOCDetection, VOCSegmentation

    cases = list(CASES.values())
    root = open_voc(tmp_path, cases)
    masks = VOCSegmentation(root, image_set="trainval")
    boxes = VOCDetection(root, image_set="trainval")
    planes = sorted(
        (plane_key(one.key, plane, len(one.stack)), one, plane)
        for one in cases
        for plane in range(len(one.stack))
    )
    assert len(masks) == len(boxes) == len(planes) == 10
    for number, (name, one, plane) in enumerate(planes):
        image, mask = masks[number]
        assert image.size == mask.size
        assert mask.mode == "P"
        np.testing.assert_array_equal(np.asarray(mask), one.class_plane(plane))
        with Image.open(masks.masks[number].replace("Class", "Object")) as file:
            objects = np.asarray(file)
        annotation = boxes[number][1]["annotation"]
        assert annotation["filename"] == one.file_name
        size = {key: int(value) for key, value in annotation["size"].items()}
        assert (size["height"], size["width"], size["depth"]) == (*one.labels.shape[-2:], 3)
        listed = annotation["object"]
        assert len(listed) == objects.max()
        for value, entry in enumerate(listed, start=1):
            rows, columns = np.nonzero(objects == value)
            assert entry["name"] == WORDS[one.class_plane(plane)[rows[0], columns[0]] - 1]
            box = {side: int(place) for side, place in entry["bndbox"].items()}
            assert (box["xmin"], box["xmax"]) == (columns.min() + 1, columns.max() + 1)
            assert (box["ymin"], box["ymax"]) == (rows.min() + 1, rows.max() + 1)
            edge = {*rows} & {0, size["height"] - 1} or {*columns} & {0, size["width"] - 1}
            assert entry["truncated"] == str(int(bool(edge)))
        if one.classes is not None:  # numbered without gaps
            np.testing.assert_array_equal(
                objects, np.searchsorted(np.unique(one.stack[plane]), one.stack[plane])
            )
        assert name in masks.images[number]


def test_voc_of_many_objects(tmp_path: Path) -> None:
    export = exporter("voc", tmp_path, ("cell",))
    ids = np.arange(255, dtype=np.uint16).reshape(15, 17)
    export.write(labelled(ids, np.ones(254, np.uint16), "many", ("cell",)))
    _, classes, objects = export.files("many", 1)
    with Image.open(objects) as image:
        assert image.mode == "P"
    export.write(labelled(ids + 1, np.ones(255, np.uint16), "many", ("cell",)))
    with Image.open(objects) as image, Image.open(classes) as other:
        assert (image.mode, other.mode) == ("I;16", "P")
        np.testing.assert_array_equal(np.asarray(image), ids + 1)
        assert (np.asarray(other) == 1).all()


def test_voc_of_a_name_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(InvalidImageError, match=r"'gr\\udcfcn.png' holds bytes that are no text"):
        exporter("voc", tmp_path, WORDS).write(labelled(hard_labels(), key="gr\udcfcn"))
