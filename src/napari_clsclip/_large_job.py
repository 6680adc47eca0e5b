"""A plane that is too large for one request on its way: read, asked about and written by blocks."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from clsclip.blocks import Block, Region, blocks, window_halo
from clsclip.errors import CancelledError, ConflictError, InvalidImageError
from clsclip.segmentation import Segmentation, lowest_foreground
from clsclip.wire import PlanePart, Progress, SegmentRequest
from napari_clsclip._large_labels import BlockPlan, LargeFile, LargeLabels
from napari_clsclip._large_reading import BlockReader, fingerprint, part_of, reduced, thinned
from napari_clsclip._layers import Plane
from napari_clsclip._patient_backend import PatientBackend
from napari_clsclip._segment_job import read_plane
from napari_clsclip._supervisor import BackendSupervisor

if TYPE_CHECKING:
    from clsclip.looks import Passes

FINE_ZOOM: Final = 1 / 8
"""Words with a zoom below this are looked for in one piece, in a reduced plane: around blocks,
windows would reach too far."""

LARGEST_REDUCED: Final = 2**25
"""Pixels of a reduced plane that is sent in one request."""

BLOCK_MODEL_SIDE: Final = 2048
"""Model pixels across that a block has if its zoom allows: much more than a window, so that few
windows are looked at for two blocks."""

SMALLEST_BLOCK: Final = 1024
LARGEST_BLOCK: Final = 4096
"""Rows and columns of a block, whatever the zoom."""

LEAST_BLOCK: Final = 16
"""The same where planes are called large that are not."""

READ_BYTES: Final = 256 * 2**20
"""Bytes of a block and its halo; if they are more, blocks are smaller."""

ANSWER_BYTES: Final = 64 * 2**20
"""Bytes of an answer; more words are asked for one after the other."""


@dataclass(frozen=True)
class LargeProgress:
    """How far a plane is.

    Attributes
    ----------
    stage : str
        "overview": it is looked over to choose the zoom, or for words of large objects; then
        "segment".
    done, total : int
        Tiles that are read, or blocks that are finished.
    """

    stage: Literal["overview", "segment"]
    done: int
    total: int


class LargeJob:
    """Segments a large plane in daemon threads; the Qt thread polls it and never waits.

    Blocks that an earlier job with the same settings has finished are left out. A backend that
    dies over a block is asked again when it is back.

    Parameters
    ----------
    supervisor : BackendSupervisor
    plane : Plane
    overview : Plane or None
        The same plane with far fewer pixels, if the image has levels.
    request : SegmentRequest
        With contrast limits, and without regions.
    threshold : float, in (0, 1]
    source : str
        The file of the image, if it is known; told apart from others.
    folder : Path
        Where the labels lie.
    large_from : int
        Pixels of a plane that is not large; a block has fewer.

    Attributes
    ----------
    labels : LargeLabels or None
        What is written, once it is there.
    path : Path or None
        The folder of the labels, once it is known.
    model_version : str
        Hash of the weights, once it is known.
    earlier : int
        Blocks that were finished before.
    progress : LargeProgress
    error : Exception or None
        What ended the job before all blocks were done.
    """

    def __init__(
        self,
        supervisor: BackendSupervisor,
        plane: Plane,
        overview: Plane | None,
        request: SegmentRequest,
        threshold: float,
        source: str,
        folder: Path,
        large_from: int,
    ) -> None:
        self.labels: LargeLabels | None = None
        self.path: Path | None = None
        self.model_version = ""
        self.earlier = 0
        self.progress = LargeProgress("overview", 0, 0)
        self.error: Exception | None = None
        self._backend = PatientBackend(supervisor, plane)
        self._plane = plane
        self._overview = overview
        self._request = request
        self._threshold = threshold
        self._source = source
        self._folder = folder
        self._large_from = large_from
        self._reader: BlockReader | None = None
        self._cancelled = self._backend.cancelled
        self._ended = threading.Event()

    def start(self) -> None:
        """Begin; returns at once."""
        threading.Thread(target=self._run, name="clsclip-large", daemon=True).start()

    def cancel(self) -> None:
        """End the job now. No further block is read; what is finished stays on disk."""
        self._backend.cancel()
        reader = self._reader
        if reader is not None:
            reader.stop()

    @property
    def done(self) -> bool:
        """Whether it has ended; at once after :meth:`cancel`."""
        return self._cancelled.is_set() or self._ended.is_set()

    @property
    def steps(self) -> Progress | None:
        """How far the backend is with what it works on."""
        return self._backend.steps

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:
            if not self._cancelled.is_set():
                self.error = error
        finally:
            self._ended.set()

    def _work(self) -> None:
        plane, request = self._plane, self._request
        settings = self._settings()
        name = f"{plane.image}-{'-'.join(request.words)}"
        height, width = plane.index.size
        with LargeFile(self._folder, name, settings, height * width) as file:
            self.path = file.path
            plan = file.plan()
            if plan is None:
                plan = self._choose_plan()
                self._check()
                file.begin(plan, plane.index, plane.placement)
            labels = file.labels(plan, plane.index)
            self.earlier = len(labels.done)
            self.labels = labels
            self._segment(labels)

    def _settings(self) -> dict[str, Any]:
        """All that the labels depend on. Finds out which weights the model has."""
        plane, request = self._plane, self._request
        corner = part_of(plane, _corner(plane.index.size))
        probe = request.model_copy(update={"zoom": 1.0})
        self.model_version = self._ask(probe, read_plane(corner)).model_version
        return {
            "words": request.words,
            "model": request.model,
            "model_version": self.model_version,
            "zoom": request.zoom,
            "threshold": self._threshold,
            "contrast_limits": request.contrast_limits,
            "image": plane.image,
            "source": self._source,
            "fingerprint": fingerprint(plane),
            "shape": plane.index.shape,
            "level": plane.level,
            "position": plane.index.position,
            "displayed": plane.index.displayed,
            "channels": _channels(plane),
        }

    def _choose_plan(self) -> BlockPlan:
        """Each word's zoom, and blocks of a size that suits them."""
        request = self._request
        if request.zoom is not None:
            passes: Passes = ((request.zoom,),) * len(request.words)
        else:
            passes = self._choose_passes()
        fine, halo = self._reach(passes)
        sample = read_plane(part_of(self._plane, _corner(self._plane.index.size)))
        pixel_bytes = sample.nbytes // (sample.shape[0] * sample.shape[1])
        side = BLOCK_MODEL_SIDE / max(fine) if fine else LARGEST_BLOCK
        core = 2 ** int(np.log2(min(max(side, SMALLEST_BLOCK), LARGEST_BLOCK)))
        while core > SMALLEST_BLOCK and (core + 2 * halo) ** 2 * pixel_bytes > READ_BYTES:
            core //= 2
        while core > LEAST_BLOCK and 4 * core**2 > self._large_from:
            core //= 2
        return BlockPlan(core, passes)

    def _choose_passes(self) -> Passes:
        """As the command line chooses, see :func:`clsclip.looks.choose_passes`."""
        from clsclip.looks import choose_passes, overview_step  # takes a moment to import

        plane, request = self._plane, self._request
        of = plane if self._overview is None else self._overview
        overview = thinned(of, overview_step(of.index.size), self._advance)
        step = max(plane.index.size) / max(overview.shape[:2])
        return choose_passes(
            overview,
            step,
            plane.index.size,
            len(request.words),
            request.contrast_limits or (0.0, 1.0),
            lambda image: self._ask(request, image),
            lambda region: read_plane(part_of(plane, region)),
        )

    def _segment(self, labels: LargeLabels) -> None:
        plan = labels.plan
        fine, halo = self._reach(plan.passes)
        cut = blocks(self._plane.index.size, plan.core, halo)
        missing = [block for block in cut if block.number not in labels.done]
        if not missing:
            self.progress = LargeProgress("segment", len(cut), len(cut))
            return
        coarse = self._look_at_reduced(plan)
        self.progress = LargeProgress("segment", len(cut) - len(missing), len(cut))
        if fine:
            self._reader = reader = BlockReader(self._plane, missing)
            pixels: Iterator[tuple[Block, NDArray[Any] | None]] = iter(reader)
        else:
            pixels = ((block, None) for block in missing)
        try:
            for block, image in pixels:
                self._check()
                labels.write(block, self._class_ids(block, image, plan, coarse))
                self.progress = LargeProgress("segment", len(labels.done), len(cut))
            self._check()
        finally:
            if self._reader is not None:
                self._reader.stop()

    def _class_ids(
        self,
        block: Block,
        image: NDArray[Any] | None,
        plan: BlockPlan,
        coarse: dict[int, tuple[int, NDArray[np.uint8]]],
    ) -> NDArray[np.uint8]:
        """As :meth:`clsclip.segmentation.Segmentation.labels`, with few words in memory."""
        lowest = lowest_foreground(self._threshold)
        best, ids = np.zeros(block.shape, np.uint8), np.zeros(block.shape, np.uint8)
        most = max(1, ANSWER_BYTES // (block.shape[0] * block.shape[1]))
        for fine, run in groupby(range(len(plan.passes)), lambda k: k not in coarse):
            words = list(run)
            for start in range(0, len(words), most):
                some = words[start : start + most]
                if fine and image is not None:
                    found: Sequence[NDArray[np.uint8]] = list(
                        self._ask_block(block, image, some, plan)
                    )
                else:
                    found = [_enlarged(*coarse[k], block) for k in some]
                for k, probability in zip(some, found, strict=True):
                    better = (probability > best) & (probability >= lowest)
                    ids[better] = k + 1
                    np.maximum(best, probability, out=best)
        return ids

    def _ask_block(
        self, block: Block, image: NDArray[Any], words: list[int], plan: BlockPlan
    ) -> NDArray[np.uint8]:
        rows, columns = block.core
        part = PlanePart(
            shape=self._plane.index.size,
            origin=(block.read[0].start, block.read[1].start),
            core=(rows.start, columns.start, rows.stop, columns.stop),
            passes=tuple(plan.passes[k] for k in words),
        )
        return self._ask(self._with_part(part, words), image).probabilities

    def _look_at_reduced(self, plan: BlockPlan) -> dict[int, tuple[int, NDArray[np.uint8]]]:
        """For each word with a very small zoom a factor, and probabilities so much reduced."""
        by_factor: dict[int, list[int]] = {}
        for k, zooms in enumerate(plan.passes):
            if not _is_fine(zooms):
                by_factor.setdefault(2 ** int(np.log2(1 / max(zooms))), []).append(k)
        found = {}
        for factor, words in by_factor.items():
            shape = tuple(-(-length // factor) for length in self._plane.index.size)
            if shape[0] * shape[1] > LARGEST_REDUCED:
                word = self._request.words[words[0]]
                raise InvalidImageError(
                    f"The objects of '{word}' are so large that the whole plane is looked at with "
                    f"a zoom of {max(plan.passes[words[0]]):.3f}, and even so it is too large for "
                    "one request. Set the zoom to 0.13 or more (under More), or open a lower "
                    "resolution of the image."
                )
            image = reduced(self._plane, factor, self._advance)
            for k in words:
                part = PlanePart(
                    shape=(shape[0], shape[1]),
                    origin=(0, 0),
                    core=(0, 0, shape[0], shape[1]),
                    passes=(tuple(zoom * factor for zoom in plan.passes[k]),),
                )
                answer = self._ask(self._with_part(part, [k]), image)
                found[k] = (factor, answer.probabilities[0])
        return found

    def _with_part(self, part: PlanePart, words: list[int]) -> SegmentRequest:
        request = self._request
        return SegmentRequest(
            model=request.model,
            templates=request.templates,
            words=tuple(request.words[k] for k in words),
            contrast_limits=request.contrast_limits,
            part=part,
        )

    def _reach(self, passes: Passes) -> tuple[list[float], int]:
        """Zooms of the words that are looked for block by block, and pixels around a block."""
        fine = [zoom for zooms in passes if _is_fine(zooms) for zoom in zooms]
        if not fine:
            return fine, 0
        return fine, window_halo(self._backend.window(self._request.model), min(fine))

    def _ask(self, request: SegmentRequest, image: NDArray[Any]) -> Segmentation:
        answer = self._backend.ask(request, image)
        if self.model_version and answer.model_version != self.model_version:
            raise ConflictError(
                f"The weights of the model '{request.model}' have changed. What is finished with "
                "the former ones is kept; press Segment to begin with the new ones."
            )
        return answer

    def _advance(self, done: int, total: int) -> None:
        self._check()
        self.progress = LargeProgress("overview", done, total)

    def _check(self) -> None:
        if self._cancelled.is_set():
            raise CancelledError("Cancelled.")


def _corner(size: tuple[int, int]) -> Region:
    """A small piece of a plane."""
    return slice(0, min(64, size[0])), slice(0, min(64, size[1]))


def _is_fine(zooms: tuple[float, ...]) -> bool:
    return max(zooms) >= FINE_ZOOM


def _enlarged(factor: int, probabilities: NDArray[np.uint8], block: Block) -> NDArray[np.uint8]:
    """The pixels of a block, of probabilities that were found in a reduced plane."""
    down, across = (np.arange(part.start, part.stop) // factor for part in block.core)
    return probabilities[np.ix_(down, across)]


def _channels(plane: Plane) -> Any:
    """Which channels are shown, without the identity of layers, which ends with the session."""
    if not isinstance(plane.channels, tuple):
        return None
    return [
        entry[1] if isinstance(entry, tuple) and isinstance(entry[-1], tuple) else entry
        for entry in plane.channels
    ]
