"""Single objects: touching ones apart, single ones whole, tables, errors, real nuclei."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from skimage.draw import disk, ellipse, line

from clsclip.errors import InvalidConfigError, InvalidImageError
from clsclip.instance_features import instance_features
from clsclip.instances import InstanceOptions, find_instances, segmented_instances
from clsclip.segmentation import Segmentation
from clsclip.training.formats import pair_files, read_labels
from clsclip.training.instance_metrics import SMALL_DIAMETER, ObjectScores

Plane = NDArray[np.float32]


def plane(*parts: tuple[NDArray[np.intp], NDArray[np.intp]], size: int = 120) -> Plane:
    """Probability 1 inside of some shapes."""
    values = np.zeros((size, size), np.float32)
    for part in parts:
        values[part] = 1
    return values


def discs(*centres: tuple[float, float], radius: float, size: int = 120) -> Plane:
    return plane(*(disk(c, radius, shape=(size, size)) for c in centres), size=size)


def segmentation(*planes: Plane) -> Segmentation:
    values = np.round(255 * np.stack(planes)).astype(np.uint8)
    words = ("nucleus", "cell")[: len(planes)]
    return Segmentation(values, words, "m", "0", (1.0,) * len(planes), 0.0)


@pytest.mark.parametrize("radius", [5, 8, 14, 27])
@pytest.mark.parametrize("angle", [0.0, 0.5, 0.8, 2.0])
def test_touching_discs_of_any_size_are_parted(radius: float, angle: float) -> None:
    step = 1.75 * radius * np.array([np.sin(angle), np.cos(angle)])
    centres = [tuple(60 - step / 2), tuple(60 + step / 2)]
    probability = discs(*centres, radius=radius)
    assert ndimage.label(probability)[1] == 1
    labels = find_instances(probability)
    assert labels.dtype == np.uint16
    assert labels.max() == 2
    np.testing.assert_array_equal(labels > 0, probability > 0)
    first, second = (labels[round(row), round(column)] for row, column in centres)
    assert {first, second} == {1, 2}
    areas = np.bincount(labels.ravel())[1:]
    assert areas.min() > 0.8 * areas.max()


def test_a_small_disc_beside_a_large_one_is_an_object() -> None:
    probability = plane(disk((60, 45), 24), disk((60, 76), 9))
    assert ndimage.label(probability)[1] == 1
    assert find_instances(probability).max() == 2


def test_a_cluster_is_parted_into_its_objects() -> None:
    rows = [(40 + 24 * i, 35 + 26 * j + 6 * (i % 2)) for i in range(3) for j in range(3)]
    probability = discs(*rows, radius=14, size=140)
    assert ndimage.label(probability)[1] == 1
    assert find_instances(probability).max() == 9
    assert find_instances(probability, options=InstanceOptions(split=False)).max() == 1


@pytest.mark.parametrize("axes", [(6, 18), (10, 45), (20, 30), (4, 50)])
@pytest.mark.parametrize("angle", [0.0, 0.4, 1.0, 2.6])
def test_an_elongated_object_stays_whole(axes: tuple[int, int], angle: float) -> None:
    probability = plane(ellipse(60, 60, *axes, rotation=angle, shape=(120, 120)))
    assert find_instances(probability).max() == 1


def test_a_rod_with_a_ragged_outline_stays_whole(rng: np.random.Generator) -> None:
    rod = np.zeros((120, 120), bool)
    rod[line(15, 20, 100, 95)] = True
    rod = ndimage.binary_dilation(rod, iterations=8)
    outline = rod ^ ndimage.binary_erosion(rod)
    ragged = rod & ~(outline & (rng.random(rod.shape) < 0.4))
    assert find_instances(ragged.astype(np.float32)).max() == 1


def test_a_dip_of_the_probability_parts_what_the_outline_does_not() -> None:
    probability = plane()
    probability[40:60, 20:90] = 1
    assert find_instances(probability).max() == 1
    probability[40:60, 53:57] = 0.55
    assert find_instances(probability).max() == 2
    assert find_instances(probability, options=InstanceOptions(probability_weight=0)).max() == 1


@pytest.mark.parametrize(("radius", "apart"), [(3.0, 8), (4.0, 10), (5.0, 12)])
def test_small_objects_near_each_other_are_counted(radius: float, apart: int) -> None:
    rows = [(10 + apart * i, 10 + apart * j) for i in range(8) for j in range(8)]
    labels = find_instances(discs(*rows, radius=radius))
    assert labels.max() == 64
    assert 2 * radius < SMALL_DIAMETER


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_nothing_and_everything(dtype: type) -> None:
    empty = np.zeros((30, 40), dtype)
    labels = find_instances(empty)
    assert labels.dtype == np.uint16
    assert labels.shape == (30, 40)
    assert not labels.any()
    features = instance_features(labels, empty)
    assert all(len(column) == 0 for column in features.values())
    assert "solidity" in features
    full = np.full((30, 40), 255 if dtype == np.uint8 else 1, dtype)
    np.testing.assert_array_equal(find_instances(full), np.ones((30, 40)))
    assert find_instances(np.zeros((0, 5), dtype)).shape == (0, 5)


def test_the_threshold_is_that_of_the_class_mask() -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint8), (20, 1))
    for threshold in (0.001, 0.3, 0.5, 200 / 255, 1.0):
        mask = Segmentation(ramp[None], ("cell",), "m", "0", (1.0,), 0.0).labels(threshold) > 0
        options = InstanceOptions(min_certainty=0)
        np.testing.assert_array_equal(find_instances(ramp, threshold, options) > 0, mask)
        np.testing.assert_array_equal(find_instances(ramp / 255, threshold, options) > 0, mask)


def test_specks_doubtful_pieces_and_holes() -> None:
    probability = plane(disk((60, 60), 30))
    probability[55:66, 55:66] = 0.1
    probability[2:5, 2:5] = 1
    probability[100:115, 100:115] = 0.55
    labels = find_instances(probability)
    assert labels.max() == 1
    assert labels[60, 60] == 1
    assert not labels[3, 3]
    assert not labels[107, 107]
    kept = InstanceOptions(min_area=1, min_certainty=0, fill_holes=False)
    labels = find_instances(probability, options=kept)
    assert not labels[60, 60]
    assert labels[3, 3]
    assert labels[107, 107]


def test_a_hole_between_objects_stays() -> None:
    angles = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    ring = [(60 + 36 * np.sin(angle), 60 + 36 * np.cos(angle)) for angle in angles]
    labels = find_instances(discs(*ring, radius=14.5))
    assert labels.max() == 8
    assert labels[60, 60] == 0


def test_more_objects_than_16_bits_hold() -> None:
    dots = np.zeros((520, 520), np.uint8)
    dots[::2, ::2] = 255
    options = InstanceOptions(min_area=1, split=False)
    labels = find_instances(dots, options=options)
    assert labels.dtype == np.int32
    assert labels.max() == 260 * 260


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((4, 4), bool), r"are bool; expected uint8 .*mask\.astype"),
        (np.zeros((4, 4), np.int16), "int16; expected uint8"),
        (np.zeros((2, 4, 4), np.uint8), r"shape \(2, 4, 4\); expected one plane"),
        (np.full((4, 4), np.nan), "without NaN"),
        (np.full((4, 4), 1.5), "go from 1.5 to 1.5"),
        (np.full((4, 4), -0.5, np.float32), "from -0.5"),
    ],
)
def test_planes_that_are_no_probabilities(values: NDArray[np.generic], message: str) -> None:
    with pytest.raises(InvalidImageError, match=message):
        find_instances(values)


def test_settings_out_of_range() -> None:
    for threshold in (0.0, 1.1, -1.0, float("nan")):
        with pytest.raises(InvalidConfigError, match="threshold"):
            find_instances(np.zeros((4, 4), np.uint8), threshold)
    for name, value in (
        ("min_area", 0), ("min_certainty", -0.1), ("min_certainty", 1.0), ("neck", 0.0),
        ("seed_distance", -1.0), ("probability_weight", float("nan")),
    ):  # fmt: skip
        with pytest.raises(InvalidConfigError, match=name):
            InstanceOptions(**{name: value})


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.uint64])
def test_features_are_those_of_the_shapes(dtype: type) -> None:
    labels = np.zeros((60, 80), dtype)
    labels[disk((20, 20), 10)] = 2
    labels[40:50, 30:70] = 5
    labels[5, 70] = 7
    probability = np.where(labels == 5, 0.8, 1.0)
    features = instance_features(labels, probability)
    assert features["label"].tolist() == [2, 5, 7]
    assert features["area"].tolist() == [(labels == 2).sum(), 400, 1]
    assert (features["centroid_row"][1], features["centroid_column"][1]) == (44.5, 49.5)
    box = [features[side][1] for side in ("top", "left", "bottom", "right")]
    assert box == [40, 30, 50, 70]
    np.testing.assert_allclose(features["mean_probability"], [1, 0.8, 1], rtol=1e-5)
    assert features["equivalent_diameter"][0] == pytest.approx(20, abs=0.5)
    assert features["eccentricity"][0] == pytest.approx(0, abs=0.1)
    assert features["eccentricity"][1] > 0.9
    assert features["solidity"][1] == 1
    with pytest.raises(InvalidImageError, match=r"expected integers of the shape \(5, 5\)"):
        instance_features(labels, np.zeros((5, 5)))


def test_words_share_one_row_of_ids() -> None:
    nuclei, cells = discs((20, 20), (20, 60), radius=8), discs((80, 80), (80, 108), radius=15)
    labels, features = segmented_instances(segmentation(nuclei, 0.9 * cells))
    assert features["label"].tolist() == [1, 2, 3, 4]
    assert features["class"].tolist() == ["nucleus", "nucleus", "cell", "cell"]
    assert list(features)[:2] == ["label", "class"]
    np.testing.assert_allclose(features["mean_probability"], [1, 1, 0.9, 0.9], atol=0.01)
    assert labels[20, 20] < labels[80, 80]
    labels, features = segmented_instances(segmentation(nuclei, 0.9 * nuclei))
    assert features["class"].tolist() == ["nucleus", "nucleus"]


def test_masks_of_real_nuclei_are_parted_again(shared_data: Path) -> None:
    folder = shared_data / "nuclei" / "val"
    parted, pieces = ObjectScores(), ObjectScores()
    for _, file in pair_files(folder / "images", folder / "labels"):
        truth = read_labels(file)
        parted.add(find_instances((truth > 0).astype(np.float32)), truth)
        pieces.add(ndimage.label(truth)[0], truth)
    assert parted.everything.f1 > 0.9
    assert parted.everything.f1 > pieces.everything.f1 + 0.03


# ---- regions of single objects ----


def owned(values: Plane, owners: NDArray[np.uint16]) -> Segmentation:
    plain = segmentation(values)
    return dataclasses.replace(plain, owners=owners[None])


def test_objects_of_two_regions_stay_two_where_no_watershed_would_part_them() -> None:
    bar = plane(line_of(30, 90))
    assert find_instances(bar).max() == 1
    owners = np.zeros(bar.shape, np.uint16)
    owners[50:71, 20:50], owners[50:71, 50:100] = 4, 2
    labels, features = segmented_instances(owned(bar, owners))
    assert labels.max() == 2
    np.testing.assert_array_equal(labels > 0, bar > 0)
    assert labels[60, 40] != labels[60, 60]
    assert sorted(features["area"].tolist()) == [20 * 11, 40 * 11]


def test_what_one_region_holds_and_what_lies_outside_is_parted_as_ever() -> None:
    pair = discs((60, 40), (60, 66), radius=15)
    alone = disk((20, 100), 9)
    pair[alone] = 1
    owners = np.zeros(pair.shape, np.uint16)
    owners[40:80, 20:90] = 1
    labels, _ = segmented_instances(owned(pair, owners))
    plain, _ = segmented_instances(segmentation(pair))
    assert labels.max() == plain.max() == 3
    for index in (1, 2, 3):  # the same objects, though in another order
        assert len(np.unique(plain[labels == index])) == 1
    np.testing.assert_array_equal(labels > 0, plain > 0)


def test_scraps_that_a_region_cuts_off_go_back_to_their_object() -> None:
    pair = discs((60, 40), (60, 75), radius=15, size=120)
    owners = np.zeros(pair.shape, np.uint16)
    owners[40:80, 20:64], owners[40:80, 64:100] = 1, 2  # the first box reaches into the second
    labels, _ = segmented_instances(owned(pair, owners))
    assert labels.max() == 2
    assert (labels[60, 61:88] == labels[60, 75]).all()
    assert labels[60, 40] != labels[60, 75]


def line_of(first: int, last: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pixels of a bar, eleven rows high."""
    rows, columns = np.mgrid[55:66, first:last]
    return rows, columns
