"""Segment an image that is too large to hold: one zoom per word, then block after block.

Each word is seen at one zoom in the whole image and every block with the same contrast, so that
no block differs from its neighbour but by what it shows. Ours; the paper leaves large images open.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clsclip.blocks import Block, Blocks, Region, blocks
from clsclip.errors import InvalidImageError
from clsclip.image_sources import ImageSource
from clsclip.looks import OVERVIEW_SIDE, Looks, choose_passes, overview_step
from clsclip.predict.predictor import Predictor
from clsclip.predict.steps import Steps
from clsclip.predict.strips import PlaneSource, Strip, WindowNetwork
from clsclip.predict.transforms import to_rgb
from clsclip.segmentation import Segmentation

STRIP_VALUES: Final = 32 * 2**20
"""Probabilities of all words that a pass may hold."""

WIDEST_STRIP: Final = 8192
"""Model pixels across that a pass covers, at most."""


def choose_looks(
    predictor: Predictor,
    source: ImageSource,
    words: Sequence[str],
    *,
    zoom: float | None = None,
    templates: bool = True,
) -> Looks:
    """The contrast and each word's zoom, from an overview and some full-resolution samples.

    See :func:`clsclip.looks.choose_passes`.

    Parameters
    ----------
    predictor : Predictor
    source : ImageSource
    words : sequence of str, length K
    zoom, templates
        As :meth:`clsclip.predict.predictor.Predictor.segment` takes them.

    Raises
    ------
    InvalidImageError, InvalidWordError, InvalidConfigError, FileError, DeviceError
    """
    if source.pixels == 0:
        raise InvalidImageError(f"The image has no pixels (shape {source.shape}).")
    if zoom is not None:
        fixed = source.dtype == np.uint8 or source.dtype.kind == "b"  # whatever the values are
        seen_part = source.read((slice(0, 1),) * 2) if fixed else source.overview(OVERVIEW_SIDE)
        return Looks(_contrast_limits(seen_part), ((zoom,),) * len(words))
    overview = source.overview(OVERVIEW_SIDE)
    limits = _contrast_limits(overview)

    def look(image: NDArray[Any]) -> Segmentation:
        return predictor.segment(image, words, contrast_limits=limits, templates=templates)

    step = overview_step(source.shape)
    return Looks(
        limits, choose_passes(overview, step, source.shape, len(words), limits, look, source.read)
    )


class LargeSegmenter:
    """Foreground probabilities of an image, block by block.

    Use it in a ``with`` statement: it keeps a thread that reads ahead.

    Parameters
    ----------
    predictor : Predictor
    source : PlaneSource
    words : sequence of str, length K
    looks : Looks
    chunk : int
        Rows of a block; its columns are as many chunks as memory allows.
    templates : bool
        As :meth:`clsclip.predict.predictor.Predictor.segment` takes it.
    rows : slice, optional
        Rows of the image that will be asked for; None: perhaps all.
    steps : Steps, optional
        Told of the windows, batch by batch, and ends the work when the caller wants.

    Attributes
    ----------
    blocks : Blocks
        In the order of :meth:`in_order` each window is looked at once per column of blocks, and
        once more where a block is asked for after one that is not above it.
    """

    def __init__(
        self,
        predictor: Predictor,
        source: PlaneSource,
        words: Sequence[str],
        looks: Looks,
        *,
        chunk: int,
        templates: bool = True,
        rows: slice | None = None,
        steps: Steps | None = None,
    ) -> None:
        self._source, self._looks, self._chunk = source, looks, chunk
        self._rows, self._steps = rows, steps
        self._zooms = sorted({zoom for passes in looks.passes for zoom in passes})
        self._chosen = [
            [k for k, passes in enumerate(looks.passes) if wanted in passes]
            for wanted in self._zooms
        ]
        self._networks = [
            _told(predictor.window_network([words[k] for k in chosen], templates=templates), steps)
            for chosen in self._chosen
        ]
        side = self._networks[0].image_size
        held = sum((chunk * zoom + side) * zoom for passes in looks.passes for zoom in passes)
        largest = self._zooms[-1]
        widest = min(max(STRIP_VALUES / held, 4 * side / largest), WIDEST_STRIP / largest)
        strips = -(-source.shape[1] // max(chunk, int(widest)))
        width = -(-source.shape[1] // (strips * chunk)) * chunk
        self.blocks: Blocks = blocks(source.shape, (chunk, width))
        self._reader = ThreadPoolExecutor(1)
        self._strips: tuple[int, list[Strip]] | None = None

    def in_order(self) -> list[Block]:
        """All blocks, down one column after the other."""
        return sorted(self.blocks, key=lambda block: (block.core[1].start, block.number))

    def segment(self, block: Block) -> Iterator[tuple[Region, NDArray[np.uint8]]]:
        """Probabilities of the chunks of a block.

        Parameters
        ----------
        block : Block
            One of :attr:`blocks`.

        Yields
        ------
        region : Region
            Rows and columns of a chunk in the image.
        probabilities : ndarray of uint8, shape (K, rows, columns)
            In steps of 1/255.

        Raises
        ------
        FileError, InvalidImageError, DeviceError
        """
        rows, columns = block.core
        strips = self._strips_of(columns)
        looks = np.array([len(p) for p in self._looks.passes], np.uint16)[:, None, None]
        for start in range(columns.start, columns.stop, self._chunk):
            part = slice(start, min(start + self._chunk, columns.stop))
            shape = (len(looks), rows.stop - rows.start, part.stop - part.start)
            total = np.zeros(shape, np.uint16)
            for strip, chosen in zip(strips, self._chosen, strict=True):
                total[chosen] += strip.probabilities(rows, part)
            yield (rows, part), ((total + looks // 2) // looks).astype(np.uint8)

    def __enter__(self) -> LargeSegmenter:
        return self

    def __exit__(self, *_: object) -> None:
        self._strips = None
        self._reader.shutdown(cancel_futures=True)

    def _strips_of(self, columns: slice) -> list[Strip]:
        if self._strips is None or self._strips[0] != columns.start:
            self._strips = None  # before the next ones take memory
            limits = self._looks.contrast_limits
            self._strips = (
                columns.start,
                [
                    Strip(network, self._source, columns, zoom, limits, self._reader, self._rows)
                    for network, zoom in zip(self._networks, self._zooms, strict=True)
                ],
            )
            if self._steps is not None:
                self._steps.expect(sum(strip.batches for strip in self._strips[1]))
        return self._strips[1]


def _told(network: WindowNetwork, steps: Steps | None) -> WindowNetwork:
    """A network whose batches are counted as steps."""
    if steps is None:
        return network

    def probabilities(crops: Tensor) -> Sequence[Tensor]:
        steps.check()
        looked = network.probabilities(crops)
        steps.done()
        return looked

    return replace(network, probabilities=probabilities)


def _contrast_limits(overview: NDArray[np.generic]) -> tuple[float, float]:
    """What :func:`clsclip.predict.transforms.to_rgb` would take for the overview."""
    to_rgb(overview)  # says what is wrong with the image, if anything is
    if overview.dtype == np.uint8:
        return 0.0, 255.0
    if overview.dtype.kind == "b":
        return 0.0, 1.0
    colour = overview[..., :3] if overview.ndim == 3 else overview
    return float(colour.min()), float(colour.max())
