"""A detector looks closer where the objects of a large image are small to it (ours).

A detector sees every image at one size, and an object of few pixels there is overlooked. Where what
it finds in the whole image is small, or is nothing, it looks again, window by window.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clsclip.predict.regions import Box
from clsclip.predict.tiling import OVERLAP, plan_windows, window_boxes
from clsclip.regions.region import Checkpoint, Region, go_on
from clsclip.regions.suppression import DEFAULT_IOU, MOST_REGIONS, suppress

SMALL: Final = 24.0
"""Median side of the objects, in network pixels, below which a closer look is taken."""

WANTED: Final = 32.0
"""The side that they should have then, unless the image has no more pixels to show."""

BLIND: Final = 0.5
"""Network pixels per image pixel below which an image in which nothing is found is looked at
closer."""

MOST_WINDOWS: Final = 64
"""Of one image; a larger one is not looked at as closely as its objects need."""

COARSER: Final = 0.9
"""Factor by which a look that takes too many windows is made less close."""

EDGE: Final = 1.5
"""Network pixels from the edge of a window within which a box is taken for one cut off by it."""


def propose_closer(
    rgb: NDArray[np.float32],
    propose: Callable[[NDArray[np.float32]], list[Region]],
    size: int,
    *,
    iou: float = DEFAULT_IOU,
    limit: int = MOST_REGIONS,
    checkpoint: Checkpoint = go_on,
) -> list[Region]:
    """Regions of a whole image, and of its parts where its objects are small.

    Parameters
    ----------
    rgb : ndarray of float32, shape (H, W, 3)
        RGB in [0, 1].
    propose : callable
        Gives the regions of an image, whose longer side it brings to ``size``.
    size : int
        Side of the detector's input in network pixels.
    iou, limit
        As :func:`clsclip.regions.suppression.suppress` takes them.
    checkpoint : callable
        Called before every look at a part.

    Returns
    -------
    list of Region
        Highest score first. Of the whole image, those remain that are too large to be whole in a
        window.
    """
    found = propose(rgb)
    shape = (rgb.shape[0], rgb.shape[1])
    scale = size / max(shape)
    closer = _closer(found, scale)
    windows = plan_windows(shape, closer, size, 1)
    while len(windows.corners) > MOST_WINDOWS:
        closer *= COARSER
        windows = plan_windows(shape, closer, size, 1)
    if closer <= scale:
        return found
    # neighbours share the overlap, and of that a little counts as cut off
    whole = size * OVERLAP - 4 * EDGE
    large = [region for region in found if _side(region.box) * closer > whole]
    near: list[Region] = []
    for window in window_boxes(shape, windows):
        checkpoint()
        top, left, bottom, right = (round(edge) for edge in window)
        near += [
            Region(region.word, region.score, _moved(region.box, top, left), region.origin)
            for region in propose(rgb[top:bottom, left:right])
            if not _cut_off(region.box, (top, left, bottom, right), shape, EDGE / closer)
        ]
    return suppress([*large, *near], iou, limit)


def _closer(found: list[Region], scale: float) -> float:
    """Network pixels per image pixel to look at next; at most ``scale``: no further look."""
    if not found:
        return 1.0 if scale < BLIND else scale
    side = float(np.median([_side(region.box) for region in found]))
    return min(1.0, WANTED / side) if side * scale < SMALL else scale


def _side(box: Box) -> float:
    """The longer one."""
    return max(box[2] - box[0], box[3] - box[1])


def _moved(box: Box, down: float, across: float) -> Box:
    return (box[0] + down, box[1] + across, box[2] + down, box[3] + across)


def _cut_off(
    box: Box, window: tuple[int, int, int, int], shape: tuple[int, int], edge: float
) -> bool:
    """Whether a box in a window reaches an edge of it beyond which the image goes on."""
    top, left, bottom, right = window
    return (
        (top > 0 and box[0] < edge) or (left > 0 and box[1] < edge)
        or (bottom < shape[0] and box[2] > bottom - top - edge)
        or (right < shape[1] and box[3] > right - left - edge)
    )  # fmt: skip
