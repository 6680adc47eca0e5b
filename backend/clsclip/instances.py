"""Single objects from foreground probabilities: touching ones apart, and a table of them.

Objects are parted by a watershed on ``log(depth) + weight * log(probability)``, where the depth is
the smoothed distance to the background. On a logarithm, a neck counts by its width in proportion
to the objects beside it, so that one set of constants serves objects of any size. Where a word was
looked for in regions of single objects, what two regions show is never one object, and the
watershed parts what one region holds. Ours; the paper ends at class masks. Nothing here imports
torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, spatial
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import watershed

from clsclip.config import (
    DEFAULT_MIN_AREA,
    DEFAULT_MIN_CERTAINTY,
    DEFAULT_THRESHOLD,
    InstanceSettings,
)
from clsclip.errors import InvalidConfigError
from clsclip.instance_features import checked_probability, instance_features
from clsclip.segmentation import Segmentation, lowest_foreground

Labels = NDArray[np.uint16] | NDArray[np.int32]

SMOOTHING: Final = 1.0
"""Standard deviation in pixels by which depth and probability are smoothed."""

FLOOR: Final = 1.0
"""Pixels added to the depth, so that the staircase of a thin outline is no neck."""

HOLE_PART: Final = 0.03
"""Part of the largest disc in its piece that a hole may take to be filled before the parting.

The gap between three discs that touch takes 0.05."""

_CROSS: Final = ndimage.generate_binary_structure(2, 1)


@dataclass(frozen=True)
class InstanceOptions:
    """How objects are told apart.

    Attributes
    ----------
    min_area : int, at least 1
        Pixels; smaller objects are dropped.
    min_certainty : float, in [0, 1)
        Objects whose mean probability lies less than this part of the way from the threshold to 1
        are dropped.
    fill_holes : bool
        Fill background that one object encloses.
    split : bool
        Part touching objects; otherwise every connected piece is one.
    neck : float, in (0, 1]
        Two parts are two objects if the neck between them is less than this part of the smaller
        one's width. Smaller values part less.
    seed_distance : float, at least 0
        Smallest distance of two objects' centres, as a multiple of the radius of the larger one.
    probability_weight : float, at least 0
        What a dip of the probability counts, beside a neck of the outline.

    Raises
    ------
    InvalidConfigError
        If a value is outside its range.
    """

    min_area: int = DEFAULT_MIN_AREA
    min_certainty: float = DEFAULT_MIN_CERTAINTY
    fill_holes: bool = True
    split: bool = True
    neck: float = 0.85
    seed_distance: float = 1.25
    probability_weight: float = 0.5

    @classmethod
    def of(cls, settings: InstanceSettings) -> InstanceOptions:
        """The options that a user has set."""
        return cls(min_area=settings.min_area, min_certainty=settings.min_certainty)

    def __post_init__(self) -> None:
        for name, fits, wanted in (
            ("min_area", self.min_area >= 1, "at least 1"),
            ("min_certainty", 0.0 <= self.min_certainty < 1.0, "from 0 to below 1"),
            ("neck", 0.0 < self.neck <= 1.0, "above 0 and at most 1"),
            ("seed_distance", 0.0 <= self.seed_distance < math.inf, "at least 0"),
            ("probability_weight", 0.0 <= self.probability_weight < math.inf, "at least 0"),
        ):
            if not fits:
                raise InvalidConfigError(f"'{name}' is {getattr(self, name)}; it must be {wanted}.")


DEFAULT_OPTIONS: Final = InstanceOptions()


def find_instances(
    probability: NDArray[Any],
    threshold: float = DEFAULT_THRESHOLD,
    options: InstanceOptions = DEFAULT_OPTIONS,
) -> Labels:
    """Objects of one plane of probabilities.

    Parameters
    ----------
    probability : ndarray of uint8 or float, shape (H, W)
        Foreground probability: 0 to 255 for uint8, where ``q`` stands for ``q / 255``, and 0 to 1
        for floats.
    threshold : float, in (0, 1]
        A pixel is foreground if its probability is at least this.
    options : InstanceOptions

    Returns
    -------
    ndarray of uint16, or int32 for more than 65535 objects, shape (H, W)
        0 is background; objects have the ids 1 to n, and each is connected through pixel sides.

    Raises
    ------
    InvalidImageError
        If the shape, dtype or values are others.
    InvalidConfigError
        If the threshold is out of range.
    """
    lowest = lowest_foreground(threshold)
    plane = checked_probability(probability)
    exact = probability.dtype == np.uint8
    foreground = probability >= (lowest if exact else threshold)
    return _instances(plane, foreground, threshold, options)


def segmented_instances(
    result: Segmentation,
    threshold: float = DEFAULT_THRESHOLD,
    options: InstanceOptions = DEFAULT_OPTIONS,
) -> tuple[Labels, dict[str, NDArray[Any]]]:
    """Objects of every word of a segmentation, and their table.

    Parameters
    ----------
    result : Segmentation
    threshold : float, in (0, 1]
        See :meth:`clsclip.segmentation.Segmentation.labels`: a pixel belongs to one word at most.
    options : InstanceOptions

    Returns
    -------
    labels : ndarray of uint16, or int32 for more than 65535 objects, shape (H, W)
        0 is background; ids are consecutive, those of the first word first.
    features : dict of str to ndarray, shape (n,)
        See :func:`clsclip.instance_features.instance_features`, with the word of each object as
        the column ``class``.

    Raises
    ------
    InvalidConfigError
        If the threshold is out of range.
    """
    classes = result.labels(threshold)
    labels = np.zeros(classes.shape, dtype=np.int32)
    own = np.zeros(classes.shape, dtype=np.float32)
    words: list[str] = []
    for class_id, (word, plane) in enumerate(
        zip(result.words, result.probabilities, strict=True), start=1
    ):
        values = checked_probability(plane)
        owners = None if result.owners is None else result.owners[class_id - 1]
        found = _instances(values, classes == class_id, threshold, options, owners)
        inside = found > 0
        labels[inside] = found[inside] + np.int32(len(words))
        own[inside] = values[inside]
        words.extend([word] * int(found.max(initial=0)))
    named: dict[str, NDArray[Any]] = {}
    for name, column in instance_features(labels, own).items():
        named[name] = column
        if name == "label":
            named["class"] = np.array(words, dtype=np.str_)
    return _compact(labels), named


def _instances(
    probability: NDArray[np.float32],
    foreground: NDArray[np.bool_],
    threshold: float,
    options: InstanceOptions,
    owners: NDArray[np.uint16] | None = None,
) -> Labels:
    """Objects of a mask whose pixels have probabilities, and regions that they belong to."""
    if not foreground.any():
        return np.zeros(foreground.shape, dtype=np.uint16)
    split = options.split
    mask = _without_small_holes(foreground) if split and options.fill_holes else foreground
    if owners is not None and owners.any():
        labels = _by_region(probability, mask, owners, options)
    else:
        labels = _parted(probability, mask, options) if split else _pieces(mask)
    if options.fill_holes:
        labels = _without_holes(labels)
    areas = np.bincount(labels.ravel())
    # without filled holes, which are doubtful by nature
    own = labels[foreground]
    sums = np.bincount(own, weights=probability[foreground], minlength=len(areas))
    pixels = np.bincount(own, minlength=len(areas))
    lowest = threshold + options.min_certainty * (1.0 - threshold)
    kept = (areas >= options.min_area) & (sums >= (lowest - 1e-6) * pixels)
    kept[0] = False
    return _compact((np.cumsum(kept) * kept)[labels])


def _by_region(
    probability: NDArray[np.float32],
    mask: NDArray[np.bool_],
    owners: NDArray[np.uint16],
    options: InstanceOptions,
) -> NDArray[np.int32]:
    """Objects of each region for itself, and of what lies outside of all regions."""
    labels = np.zeros(mask.shape, dtype=np.int32)
    groups = np.where(mask, owners.astype(np.int32) + 1, 0)  # 1: outside
    host = [0]  # group of each object
    for group, box in enumerate(ndimage.find_objects(groups), start=1):
        if box is None:
            continue
        around = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in box)
        own = groups[around] == group
        parted = _parted(probability[around], own, options) if options.split else _pieces(own)
        labels[around][own] = parted[own] + np.int32(len(host) - 1)
        host.extend([group] * int(parted.max()))
    return _rejoined(labels, np.array(host))


def _rejoined(labels: NDArray[np.int32], host: NDArray[np.int_]) -> NDArray[np.int32]:
    """Give scraps, which the edge of a region cut off, back to the object that they lie against.

    A scrap is not the largest object of its group, is less than half as large as the other one,
    and lies against it with more than a third of its edges; a cap of a disc has about 0.4.
    """
    areas = np.bincount(labels.ravel(), minlength=len(host))
    pairs = np.concatenate(
        [np.stack([labels[:-1].ravel(), labels[1:].ravel()]),
         np.stack([labels[:, :-1].ravel(), labels[:, 1:].ravel()])], axis=1,
    )  # fmt: skip
    pairs = pairs[:, pairs[0] != pairs[1]]
    pairs = np.concatenate([pairs, pairs[::-1]], axis=1)
    (scraps, others), contact = np.unique(pairs, axis=1, return_counts=True)
    edges = np.bincount(scraps, weights=contact, minlength=len(host))
    becomes = np.arange(len(host), dtype=np.int32)
    foreign = (scraps > 0) & (others > 0) & (host[scraps] != host[others])
    largest = np.zeros(len(host), dtype=bool)
    for_size = np.lexsort((areas[1:], host[1:])) + 1  # by group, the largest last
    largest[for_size[np.append(np.diff(host[for_size]) > 0, True)]] = True
    against = (3 * contact > edges[scraps]) & (2 * areas[scraps] < areas[others])
    cut = foreign & against & ~largest[scraps]
    for scrap, other in zip(scraps[cut], others[cut], strict=True):
        becomes[scrap] = other
    return becomes[becomes][labels]


def _parted(
    probability: NDArray[np.float32], mask: NDArray[np.bool_], options: InstanceOptions
) -> NDArray[np.int32]:
    """Watershed from the peaks of depth and probability."""
    # the image ends, the object may not; but a full image needs some background to be deep in
    edge = int(mask.all())
    depth = ndimage.distance_transform_edt(np.pad(mask, edge))
    depth = depth[edge : depth.shape[0] - edge, edge : depth.shape[1] - edge]
    smooth = ndimage.gaussian_filter(depth, SMOOTHING) + FLOOR
    sure = np.maximum(ndimage.gaussian_filter(probability, SMOOTHING), 1 / 255)
    height = np.log(smooth) + options.probability_weight * np.log(sure)
    height = np.where(mask, height, height.min() - 1.0)
    seeds = _seeds(height, depth, mask, options)
    labels: NDArray[np.int32] = watershed(-height, seeds, mask=mask)  # type: ignore[no-untyped-call]
    return labels


def _seeds(
    height: NDArray[np.float64],
    depth: NDArray[np.float64],
    mask: NDArray[np.bool_],
    options: InstanceOptions,
) -> NDArray[np.int32]:
    """Ids of the peaks that stand out of their surroundings, deepest peaks first."""
    lowered = reconstruction(height + np.log(options.neck), height, footprint=_CROSS)  # type: ignore[no-untyped-call]
    peaks = _pieces(local_maxima(lowered, connectivity=1) & mask)  # type: ignore[no-untyped-call]
    ids = np.arange(1, peaks.max() + 1)
    centres = np.array(ndimage.maximum_position(height, peaks, ids))
    radii = depth[tuple(centres.T)]
    pieces = _pieces(mask)[tuple(centres.T)]
    tree = spatial.KDTree(centres)
    seed = np.zeros(len(ids) + 1, dtype=np.int32)
    left = np.ones(len(ids), dtype=bool)
    for index in np.argsort(-radii, kind="stable"):
        if not left[index]:
            continue
        near = np.array(tree.query_ball_point(centres[index], options.seed_distance * radii[index]))
        left[near[pieces[near] == pieces[index]]] = False
        seed[index + 1] = seed.max() + 1
    seeds: NDArray[np.int32] = seed[peaks]
    return seeds


def _without_small_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill holes that are small beside the objects around them, but no gap between objects."""
    filled = ndimage.binary_fill_holes(mask)
    holes = _pieces(filled & ~mask)
    if not holes.any():
        return mask
    hosts = _pieces(filled)
    depth = ndimage.distance_transform_edt(mask)
    radii = np.asarray(ndimage.maximum(depth, hosts, np.arange(hosts.max() + 1)))
    _, first = np.unique(holes, return_index=True)
    discs = np.pi * radii[hosts.ravel()[first]] ** 2
    small = np.bincount(holes.ravel()) <= HOLE_PART * discs
    small[0] = False
    full: NDArray[np.bool_] = mask | small[holes]
    return full


def _without_holes(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Give background that a single object encloses to that object."""
    foreground = labels > 0
    holes = _pieces(ndimage.binary_fill_holes(foreground) & ~foreground)
    filled = labels.copy()
    for index, box in enumerate(ndimage.find_objects(holes), start=1):
        around = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in box)
        hole = holes[around] == index
        ring = ndimage.binary_dilation(hole, _CROSS) & ~hole
        owners = np.unique(labels[around][ring])
        if len(owners) == 1:
            filled[around][hole] = owners[0]
    return filled


def _pieces(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Ids of the pieces of a mask that are connected through pixel sides."""
    ids: NDArray[np.int32] = ndimage.label(mask, _CROSS)[0].astype(np.int32, copy=False)
    return ids


def _compact(labels: NDArray[Any]) -> Labels:
    """The smaller dtype that holds all ids."""
    if labels.max(initial=0) <= np.iinfo(np.uint16).max:
        return labels.astype(np.uint16)
    return labels.astype(np.int32)
