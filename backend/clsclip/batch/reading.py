"""Images of a batch, read plane by plane in the order in which they are labelled."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from numpy.typing import NDArray

from clsclip.batch.inputs import InputImage
from clsclip.batch.task import LabelTask
from clsclip.errors import ClsClipError, InvalidConfigError, InvalidImageError
from clsclip.image_sources import ImageSource

MOST_STACK_PIXELS: Final = 2**31
"""Labels of a stack are held until all of its planes are labelled, 2 or 4 bytes per pixel."""


@dataclass(frozen=True)
class Piece:
    """A plane of an image; or an image that is read block by block later; or why there is none.

    Attributes
    ----------
    image : InputImage
    seconds : float
        Reading took so long.
    plane, planes : int
        Which of how many.
    pixels : ndarray, shape (H, W) or (H, W, C), or None
        None for a large image, and where there is an error.
    pixel_size : tuple of float or None
        Of rows and columns in micrometres.
    error : str
        Why the image cannot be labelled.
    """

    image: InputImage
    seconds: float
    plane: int = 0
    planes: int = 1
    pixels: NDArray[Any] | None = None
    pixel_size: tuple[float, float] | None = None
    error: str = ""

    @property
    def bytes(self) -> int:
        """Memory of the pixels."""
        return 0 if self.pixels is None else self.pixels.nbytes


def read_pieces(images: Iterable[InputImage], task: LabelTask) -> Iterator[Piece]:
    """Read images one after the other.

    Yields
    ------
    Piece
        After one with an error, the next one is of the next image.
    """
    for image in images:
        yield from _pieces_of(image, task)


def _pieces_of(image: InputImage, task: LabelTask) -> Iterator[Piece]:
    started = time.perf_counter()
    plane = planes = 0
    try:
        with image.open(level=task.large.level, channels=task.channels) as source:
            planes = source.planes
            if source.pixels > task.large.large_from:
                _check_large(source, task)
                yield Piece(image, time.perf_counter() - started)
                return
            if source.pixels * planes > MOST_STACK_PIXELS:
                raise InvalidImageError(
                    f"'{image.file}' has {planes} planes of {source.pixels} pixels; stacks may "
                    f"have {MOST_STACK_PIXELS} pixels. Save parts of it as files of their own."
                )
            for plane in range(planes):
                pixels = source.read(plane=plane)
                seconds = time.perf_counter() - started
                yield Piece(image, seconds, plane, planes, pixels, source.pixel_size)
                started = time.perf_counter()
    except ClsClipError as error:
        yield Piece(image, time.perf_counter() - started, plane, planes, error=error.message)
    except MemoryError as error:
        reason = f"'{image.file}' does not fit into memory ({error})."
        yield Piece(image, time.perf_counter() - started, plane, planes, error=reason)


def _check_large(source: ImageSource, task: LabelTask) -> None:
    """Refuse what is not done block by block.

    Raises
    ------
    InvalidConfigError
    """
    formats = [name for name in task.formats if name != "tiff"]
    lacking, way = "", ""
    if task.regions != "none":
        lacking, way = f"without region proposals ('{task.regions}')", "Choose regions 'none'"
    elif formats:
        lacking, way = f"without exports to {', '.join(formats)}", "Choose no format but tiff"
    elif source.planes > 1:
        lacking, way = "one plane only", "Save its planes as files of their own"
    if lacking:
        raise InvalidConfigError(
            f"'{source.name}' has {source.pixels} pixels; with more than {task.large.large_from}, "
            f"images are labelled block by block, {lacking}. {way}, or label it on the command "
            "line with a larger --large-from if there is memory enough."
        )
