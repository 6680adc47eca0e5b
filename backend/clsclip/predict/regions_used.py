"""What a segmentation tells of its regions where no detector proposed them."""

from __future__ import annotations

from collections.abc import Sequence

from clsclip.predict.regions import Box
from clsclip.predict.tiling import Windows, window_boxes
from clsclip.regions.suppression import MOST_REGIONS
from clsclip.segmentation import RegionUsed


def regions_given(boxes: Sequence[Box]) -> tuple[RegionUsed, ...]:
    """Regions that the caller names."""
    return tuple(
        RegionUsed((float(top), float(left), float(bottom), float(right)), None, "given")
        for top, left, bottom, right in boxes
    )


def windows_used(shape: tuple[int, int], windows: Windows) -> tuple[RegionUsed, ...]:
    """Windows over an image of some rows and columns; none if they are too many to be shown."""
    boxes = window_boxes(shape, windows)
    if len(boxes) > MOST_REGIONS:
        return ()
    return tuple(RegionUsed(box, None, "tile") for box in boxes)
