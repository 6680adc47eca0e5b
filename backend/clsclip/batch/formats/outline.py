"""The outline of an object as one polygon that fills to exactly its pixels again.

A polygon runs through the centres of the object's outermost pixels, which OpenCV's ``fillPoly``
counts as inside after it has cut off what follows the decimal point; Ultralytics fills polygons
so. Holes are joined to the outline by a path through the object, there and back: what lies between
is filled by the even-odd rule, and the path itself is the object's own. Ours.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.graph import MCP

from clsclip.batch.formats.objects import PlaneObject


def outline(piece: PlaneObject) -> NDArray[np.float64]:
    """Polygon around an object that is in one piece, corners included.

    The number of points is odd: Ultralytics puts points between these for its training, evenly,
    and then none of them lies on the corner of a pixel, where it could fall into a wrong one.

    Parameters
    ----------
    piece : PlaneObject

    Returns
    -------
    ndarray of float64, shape (n, 2), n at least 3
        x and y in pixels; the upper left corner of the image is (0, 0).
    """
    top, left, bottom, right = piece.box
    if bottom - top == 1 or right - left == 1:  # a bar within its pixels, so that it has an area
        x, y = (left + 0.25, right - 0.25), (top + 0.25, bottom - 0.25)
        corners = [(x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1]), (x[0], y[1])]
        return np.array(corners)
    mask = piece.crop().astype(np.uint8)
    found, tree = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    rings = [np.asarray(ring[:, 0], np.int32) for ring in found]
    is_hole = tree[0, :, 3] >= 0  # it has a parent
    outer = rings[int(np.argmin(is_hole))]
    holes = [ring for ring, hole in zip(rings, is_hole, strict=True) if hole]
    ring = _without_straight(_joined(mask, outer, holes) if holes else outer)
    if len(ring) % 2 == 0:
        ring = np.concatenate([ring, ring[-1:]])
    polygon: NDArray[np.float64] = ring + np.array([left + 0.5, top + 0.5])
    return polygon


def _joined(
    mask: NDArray[np.uint8], outer: NDArray[np.int32], holes: list[NDArray[np.int32]]
) -> NDArray[np.int32]:
    """One ring of x and y: the outer one with detours to the holes, from hole to hole.

    A way leads along the shortest one to the outer ring, but no further than to what is joined
    already, so that the ring grows no longer than the object has pixels.
    """
    width = mask.shape[1]
    ways = MCP(np.where(mask > 0, 1.0, -1.0), fully_connected=True)  # none leads outside
    costs, steps = ways.find_costs(outer[:, ::-1].tolist())
    costs, steps = costs.ravel(), steps.ravel()
    back = [int(down) * width + int(right) for down, right in ways.offsets]
    joined = np.zeros(mask.size, dtype=np.bool_)
    ring = _places(outer, width)
    joined[ring] = True
    places = [_places(hole, width) for hole in holes]
    nearest = [int(np.argmin(costs[hole])) for hole in places]
    detours: dict[int, list[list[int]]] = {}
    for n in np.argsort([costs[hole[k]] for hole, k in zip(places, nearest, strict=True)]):
        hole = np.roll(places[n], -nearest[n])
        way = [int(hole[0])]
        while not joined[way[-1]]:
            way.append(way[-1] - back[steps[way[-1]]])
        detours.setdefault(way[-1], []).append([*way[-2::-1], *hole[1:].tolist(), *way])
        joined[hole] = joined[way] = True
    walked = np.array(_walk(ring.tolist(), detours), np.int32)
    return np.stack([walked % width, walked // width], axis=1)


def _places(ring: NDArray[np.int32], width: int) -> NDArray[np.intp]:
    return ring[:, 1].astype(np.intp) * width + ring[:, 0]


def _walk(ring: list[int], detours: dict[int, list[list[int]]]) -> list[int]:
    """The places of a ring, each detour after the first time that its place is passed."""
    walked = []
    open_ways = [iter(ring)]
    while open_ways:
        for place in open_ways[-1]:
            walked.append(place)
            if place in detours:
                open_ways += map(iter, detours.pop(place))
                break
        else:
            open_ways.pop()
    return walked


def _without_straight(ring: NDArray[np.int32]) -> NDArray[np.int32]:
    """A closed ring without points in the middle of upright and level lines.

    Those of slanting lines stay: a point that is put between others could leave the object.
    """
    after = np.roll(ring, -1, axis=0) - ring
    before = np.roll(after, 1, axis=0)
    straight = (after == before).all(axis=1) & (after == 0).any(axis=1)
    kept: NDArray[np.int32] = ring[~straight]
    return kept
