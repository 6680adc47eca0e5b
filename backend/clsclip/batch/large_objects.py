"""Single objects of an image that is too large to hold: each has one id, wherever blocks end.

Objects are told apart block by block, with a halo around each block. An object belongs to the
block that holds its centre, and that block draws all of it, also beyond its border. The halo grows
until it is twice as wide as the objects in the block, which are then seen with what touches them.
Ours.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from clsclip.batch.files import feature_rows
from clsclip.batch.unfinished import Journal
from clsclip.blocks import Block, blocks
from clsclip.errors import InvalidImageError
from clsclip.instance_features import instance_features
from clsclip.instances import InstanceOptions, segmented_instances
from clsclip.segmentation import Segmentation

FEATURES_FILE: Final = "features.csv"
OBJECTS_FILE: Final = "objects.jsonl"

CORE: Final = 1536
"""Rows and columns of a block."""

HALO: Final = 128
"""Pixels that are read around a block at first; twice as many as often as needed."""

WIDEST_HALO: Final = 512
"""Pixels that are read around a block at most."""

_OWN: Final = 0.5
"""Part of an object that must be free for it to be drawn: it is another one's otherwise."""


class ObjectNumbering:
    """Numbers the objects of an image, block after block, and writes their table.

    Parameters
    ----------
    probabilities : zarr array of uint8, shape (K, H, W)
        Foreground probabilities of the words.
    labels : zarr array of uint32, shape (H, W)
        Written: ids of objects from 1 on, 0 is background.
    words : tuple of str, length K
    threshold : float, in (0, 1]
    options : InstanceOptions
    folder : Path
        For the table and the journal. What an earlier run recorded there is gone on with.

    Attributes
    ----------
    done : int
        Blocks that are finished.
    objects : int
        Objects in them.
    """

    def __init__(
        self,
        probabilities: Any,
        labels: Any,
        words: tuple[str, ...],
        threshold: float,
        options: InstanceOptions,
        folder: Path,
    ) -> None:
        self._probabilities, self._labels = probabilities, labels
        self._words, self._threshold, self._options = words, threshold, options
        self._shape: tuple[int, int] = labels.shape
        self._table = folder / FEATURES_FILE
        self._journal = Journal(folder / OBJECTS_FILE)
        self._blocks = blocks(self._shape, CORE)
        last = self._journal.entries[-1] if self._journal.entries else None
        self.done = 0 if last is None else int(last["block"]) + 1
        self.objects = 0 if last is None else int(last["objects"])
        if last is None:
            self._start_table()
        else:
            os.truncate(self._table, last["bytes"])  # rows of a block that was not finished

    def __len__(self) -> int:
        return len(self._blocks)

    def run(self) -> Iterator[int]:
        """Number what is left.

        Yields
        ------
        int
            Number of blocks that are finished, after each.

        Raises
        ------
        InvalidImageError
            If an object is too large to be seen as a whole.
        OSError
            If the folder cannot be written.
        """
        if self.done < len(self):
            self._undo(self._blocks[self.done])
        for block in self._blocks[self.done :]:
            added = self._number(block)
            self.objects += added
            self.done = block.number + 1
            size = self._table.stat().st_size
            self._journal.add({"block": block.number, "objects": self.objects, "bytes": size})
            yield self.done

    def _start_table(self) -> None:
        """A table with its heads only."""
        nothing = instance_features(np.zeros((1, 1), np.int32), np.zeros((1, 1), np.float32))
        heads = list(nothing)
        heads.insert(1, "class")  # as in the table of segmented_instances
        with self._table.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerow(heads)

    def _undo(self, block: Block) -> None:
        """Remove what was drawn of a block that was not finished."""
        region = blocks(self._shape, CORE, WIDEST_HALO)[block.number].read
        drawn = self._labels[region]
        if (drawn > self.objects).any():
            drawn[drawn > self.objects] = 0
            self._labels[region] = drawn

    def _number(self, block: Block) -> int:
        """Draw the objects of a block, and add them to the table; their number."""
        halo = HALO
        while True:
            seen = blocks(self._shape, CORE, halo)[block.number]
            planes: NDArray[np.uint8] = self._probabilities[(slice(None), *seen.read)]
            result = Segmentation(planes, self._words, "", "", (1.0,) * len(self._words), 0.0)
            found, features = segmented_instances(result, self._threshold, self._options)
            drawn: NDArray[np.uint32] = self._labels[seen.read]
            if halo >= WIDEST_HALO or self._well_seen(seen, features, halo):
                break
            halo = min(2 * halo, WIDEST_HALO)
        own = self._own(seen, found, features, drawn)
        cut = own[self._reaches_edge(seen, features)[own]]
        if len(cut):
            place = [int(features[side][cut[0]]) for side in ("top", "left")]
            row, column = (
                part.start + offset for part, offset in zip(seen.read, place, strict=True)
            )
            raise InvalidImageError(
                f"An object of '{features['class'][cut[0]]}' at row {row}, column {column} "
                f"reaches more than {WIDEST_HALO} pixels beyond its block; objects of this "
                "size cannot be told apart in an image that is labelled block by block. Label it "
                "without 'Single objects', or on the command line at a coarser --level."
            )
        return self._draw(seen, found, features, own, drawn, planes)

    def _well_seen(self, seen: Block, features: dict[str, NDArray[Any]], halo: int) -> bool:
        """Whether all objects of the core are seen as a whole, and enough around them.

        What touches an object can decide where it ends, so the halo is twice its extent at least.
        """
        touches = self._touches_core(seen, features)
        if not touches.any():
            return True
        if self._reaches_edge(seen, features)[touches].any():
            return False
        down, across = (
            (features[last] - features[first])[touches].max()
            for first, last in (("top", "bottom"), ("left", "right"))
        )
        return bool(halo >= 2 * max(down, across))

    def _touches_core(self, seen: Block, features: dict[str, NDArray[Any]]) -> NDArray[np.bool_]:
        rows, columns = seen.inner
        touches: NDArray[np.bool_] = (
            (features["top"] < rows.stop)
            & (features["bottom"] > rows.start)
            & (features["left"] < columns.stop)
            & (features["right"] > columns.start)
        )
        return touches

    def _own(
        self, seen: Block, found: NDArray[Any], features: dict[str, NDArray[Any]],
        drawn: NDArray[np.uint32],
    ) -> NDArray[np.intp]:  # fmt: skip
        """Indices of the objects that this block draws.

        Those whose centre lies in the core. And those in which a block before, which saw other
        surroundings, put the centre into this one and so did not draw them, while this one puts it
        into the other: they are free, lie in both, and would be lost.
        """
        rows, columns = seen.inner
        centre_row = np.floor(features["centroid_row"] + 0.5).astype(int)
        centre_column = np.floor(features["centroid_column"] + 0.5).astype(int)
        inside = (
            (rows.start <= centre_row) & (centre_row < rows.stop)
            & (columns.start <= centre_column) & (centre_column < columns.stop)
        )  # fmt: skip
        before = (centre_row < rows.start) | (
            (centre_row < rows.stop) & (centre_column < columns.start)
        )
        lost = self._touches_core(seen, features) & before & ~self._reaches_edge(seen, features)
        ids = features["label"]
        if not len(ids):
            return np.zeros(0, np.intp)
        free = np.asarray(ndimage.mean(drawn == 0, found, ids))
        return np.flatnonzero((inside | lost) & (free >= _OWN))

    def _reaches_edge(self, seen: Block, features: dict[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Whether objects touch an edge of what was read that is none of the image."""
        (rows, columns), (height, width) = seen.read, self._shape
        reaches: NDArray[np.bool_] = (
            ((features["top"] == 0) & (rows.start > 0))
            | ((features["left"] == 0) & (columns.start > 0))
            | ((features["bottom"] == rows.stop - rows.start) & (rows.stop < height))
            | ((features["right"] == columns.stop - columns.start) & (columns.stop < width))
        )
        return reaches

    def _draw(
        self, seen: Block, found: NDArray[Any], features: dict[str, NDArray[Any]],
        own: NDArray[np.intp], drawn: NDArray[np.uint32], planes: NDArray[np.uint8],
    ) -> int:  # fmt: skip
        """Draw objects where nothing is drawn, and add them to the table; their number."""
        if not len(own):
            return 0
        number = np.zeros(int(found.max()) + 1, np.int32)
        number[features["label"][own]] = np.arange(1, len(own) + 1)
        fresh = number[found]
        fresh[drawn > 0] = 0
        drawn[fresh > 0] = fresh[fresh > 0].astype(np.uint32) + np.uint32(self.objects)
        self._labels[seen.read] = drawn
        word_of = np.zeros(len(own) + 1, np.intp)
        word_of[1:] = [self._words.index(word) for word in features["class"][own]]
        plane = np.take_along_axis(planes, word_of[fresh][None], axis=0)[0]
        table = instance_features(fresh, np.where(fresh > 0, plane, 0).astype(np.uint8))
        named: dict[str, NDArray[Any]] = {}
        for name, column in table.items():
            named[name] = column
            if name == "label":
                named[name] = column + self.objects
                named["class"] = features["class"][own]
        for offset, names in zip(
            (part.start for part in seen.read),
            (("centroid_row", "top", "bottom"), ("centroid_column", "left", "right")),
            strict=True,
        ):
            for name in names:
                named[name] = named[name] + offset
        with self._table.open("a", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows(feature_rows(named))
            stream.flush()
            os.fsync(stream.fileno())
        return len(own)
