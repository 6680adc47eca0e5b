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
    """One ring of x and y: the outer one with a detour to each hole."""
    ways = MCP(np.where(mask > 0, 1.0, -1.0), fully_connected=True)  # none leads outside
    costs, _ = ways.find_costs(outer[:, ::-1].tolist())
    place = {tuple(point): n for n, point in reversed(list(enumerate(outer.tolist())))}
    detours: dict[int, list[NDArray[np.int32]]] = {}
    for hole in holes:
        nearest = int(np.argmin(costs[hole[:, 1], hole[:, 0]]))
        turned = np.roll(hole, -nearest, axis=0)
        way = np.array(ways.traceback(turned[0, ::-1]), np.int32)[:, ::-1]  # from the outer ring
        detours.setdefault(place[tuple(way[0].tolist())], []).append(
            np.concatenate([way, turned[1:], way[::-1]])
        )
    parts, start = [], 0
    for n in sorted(detours):
        parts += [outer[start : n + 1], *detours[n]]
        start = n + 1
    return np.concatenate([*parts, outer[start:]])


def _without_straight(ring: NDArray[np.int32]) -> NDArray[np.int32]:
    """A closed ring without points in the middle of upright and level lines.

    Those of slanting lines stay: a point that is put between others could leave the object.
    """
    after = np.roll(ring, -1, axis=0) - ring
    before = np.roll(after, 1, axis=0)
    straight = (after == before).all(axis=1) & (after == 0).any(axis=1)
    kept: NDArray[np.int32] = ring[~straight]
    return kept
