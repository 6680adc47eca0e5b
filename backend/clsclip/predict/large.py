"""Segment an image that is too large to hold: one zoom per word, then block after block.

Each word is seen at one zoom in the whole image and every block with the same contrast, so that
no block differs from its neighbour but by what it shows. Ours; the paper leaves large images open.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from clsclip.blocks import Block, Blocks, Region, blocks
from clsclip.config import DEFAULT_THRESHOLD
from clsclip.errors import InvalidImageError
from clsclip.image_sources import ImageSource
from clsclip.predict.predictor import Predictor
from clsclip.predict.strips import Strip
from clsclip.predict.transforms import to_rgb
from clsclip.predict.zoom import COMPANION, LEAST_STEP, TARGET_DIAMETER, object_diameter
from clsclip.segmentation import Segmentation, lowest_foreground

OVERVIEW_SIDE: Final = 512
"""Longest side of the overview."""

SAMPLES: Final = 4
"""Full-resolution samples that are looked at to choose the zoom."""

SAMPLE_SIDE: Final = 512
"""Rows and columns of a sample."""

STRIP_VALUES: Final = 32 * 2**20
"""Probabilities of all words that a pass may hold."""

WIDEST_STRIP: Final = 8192
"""Model pixels across that a pass covers, at most."""


@dataclass(frozen=True)
class Looks:
    """How an image is looked at, decided once for all its blocks.

    Attributes
    ----------
    contrast_limits : tuple of float
        Values that are black and white.
    passes : tuple of tuple of float, length K
        For each word, model pixels per image pixel of every look at the image, whose mean counts;
        the first one is the word's zoom, the others see it with patches that lie otherwise.
    """

    contrast_limits: tuple[float, float]
    passes: tuple[tuple[float, ...], ...]

    @property
    def zooms(self) -> tuple[float, ...]:
        """The zoom of each word."""
        return tuple(zooms[0] for zooms in self.passes)


def choose_looks(
    predictor: Predictor,
    source: ImageSource,
    words: Sequence[str],
    *,
    zoom: float | None = None,
    templates: bool = True,
) -> Looks:
    """The contrast and each word's zoom, from an overview and some full-resolution samples.

    The rule of :mod:`clsclip.predict.zoom` is asked about the overview. A word whose objects are
    too small there, or are not found, gets the median of what the rule says about full-resolution
    samples where the overview shows most structure; those that show the word count, if any does.

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
    step = -(-max(source.shape) // OVERVIEW_SIDE)
    whole = predictor.segment(overview, words, contrast_limits=limits, templates=templates)
    seen = [_seen_well(whole, k) for k in range(len(words))]
    zooms = [zoom / step for zoom in whole.zooms]
    if not all(seen):
        near = [
            predictor.segment(source.read(part), words, contrast_limits=limits, templates=templates)
            for part in _samples(to_rgb(overview, limits).mean(axis=2), source.shape)
        ]
        for k in range(len(words)):
            if not seen[k]:
                zooms[k] = _zoom_of_samples(near, k)
    return Looks(limits, tuple((chosen, chosen * COMPANION) for chosen in zooms))


class LargeSegmenter:
    """Foreground probabilities of an image, block by block.

    Use it in a ``with`` statement: it keeps a thread that reads ahead.

    Parameters
    ----------
    predictor : Predictor
    source : ImageSource
    words : sequence of str, length K
    looks : Looks
    chunk : int
        Rows of a block; its columns are as many chunks as memory allows.
    templates : bool
        As :meth:`clsclip.predict.predictor.Predictor.segment` takes it.

    Attributes
    ----------
    blocks : Blocks
        In the order of :meth:`in_order` each window is looked at once per column of blocks, and
        once more where a block is asked for after one that is not above it.
    """

    def __init__(
        self,
        predictor: Predictor,
        source: ImageSource,
        words: Sequence[str],
        looks: Looks,
        *,
        chunk: int,
        templates: bool = True,
    ) -> None:
        self._source, self._looks, self._chunk = source, looks, chunk
        self._zooms = sorted({zoom for passes in looks.passes for zoom in passes})
        self._chosen = [
            [k for k, passes in enumerate(looks.passes) if wanted in passes]
            for wanted in self._zooms
        ]
        self._networks = [
            predictor.window_network([words[k] for k in chosen], templates=templates)
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
                    Strip(network, self._source, columns, zoom, limits, self._reader)
                    for network, zoom in zip(self._networks, self._zooms, strict=True)
                ],
            )
        return self._strips[1]


def _contrast_limits(overview: NDArray[np.generic]) -> tuple[float, float]:
    """What :func:`clsclip.predict.transforms.to_rgb` would take for the overview."""
    to_rgb(overview)  # says what is wrong with the image, if anything is
    if overview.dtype == np.uint8:
        return 0.0, 255.0
    if overview.dtype.kind == "b":
        return 0.0, 1.0
    colour = overview[..., :3] if overview.ndim == 3 else overview
    return float(colour.min()), float(colour.max())


def _samples(grey: NDArray[np.float32], shape: tuple[int, int]) -> list[Region]:
    """Full-resolution parts of an image, where its overview varies most, no two overlapping."""
    cut = blocks(shape, SAMPLE_SIDE)
    step = -(-max(shape) // OVERVIEW_SIDE)
    down, across = (np.arange(length) * step // SAMPLE_SIDE for length in grey.shape)
    labels = down[:, None] * cut.grid[1] + across
    numbers = np.unique(labels)
    spread = ndimage.standard_deviation(grey, labels, numbers)
    best = numbers[np.argsort(-np.asarray(spread), kind="stable")]
    # whole samples first: those at the right and lower edge may be thin
    full = [n for n in best if min(cut[int(n)].shape) == SAMPLE_SIDE] or list(best)
    # the best ones often lie side by side: of more, take those that are spread down the image
    candidates = np.sort(full[: 4 * SAMPLES])
    chosen = np.linspace(0, len(candidates) - 1, min(SAMPLES, len(candidates))).round()
    return [cut[int(candidates[int(place)])].core for place in chosen]


def _seen_well(overview: Segmentation, k: int) -> bool:
    """Whether an overview shows the objects of a word as large as the network likes them."""
    width = object_diameter(_foreground(overview, k))
    return width is not None and width * overview.zooms[k] * LEAST_STEP >= TARGET_DIAMETER


def _zoom_of_samples(samples: Sequence[Segmentation], k: int) -> float:
    """The median zoom of a word, of the samples that show it if any does."""
    showing = [sample for sample in samples if _foreground(sample, k).any()]
    zooms = sorted(sample.zooms[k] for sample in showing or samples)
    return zooms[len(zooms) // 2]


def _foreground(result: Segmentation, k: int) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = result.probabilities[k] >= lowest_foreground(DEFAULT_THRESHOLD)
    return found
