"""What a batch would do: how many files, how large, and how long it takes about."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fastapi import Request
from numpy.typing import NDArray
from starlette.concurrency import run_in_threadpool

from clsclip.batch.inputs import InputImage
from clsclip.batch.reviews import Reviews
from clsclip.config import LargeImageSettings, RegionSettings, SegmentSettings
from clsclip.errors import ClsClipError, InvalidRequestError
from clsclip.instances import InstanceOptions, segmented_instances
from clsclip.service.batch_request import check_copies, check_output, checked
from clsclip.service.jobs import Job, JobQueue, Segmenter, segment_for
from clsclip.service.waiting import wait_for
from clsclip.wire import SegmentRequest
from clsclip.wire_batch import BatchPreview, BatchRequest

SAMPLE: Final = 200
"""Files of which the headers are read, if there are more."""

SHOWN: Final = 5
"""Paths that a preview tells."""

TRY_SECONDS: Final = 20.0
"""How long one file may take, with the loading of the model, before it is given up."""

LARGE_FROM: Final[int] = LargeImageSettings().large_from

_QUICK: Final = 1.0
"""A first segmentation that takes less is repeated: the first one warms up."""


@dataclass(frozen=True)
class _Header:
    """Size of an image: pixels of a plane, and planes."""

    image: InputImage
    plane: int
    planes: int

    @property
    def pixels(self) -> int:
        return self.plane * self.planes


@dataclass(frozen=True)
class _Survey:
    """What the files themselves tell."""

    request: BatchRequest
    preview: BatchPreview
    middle: _Header | None


async def preview_batch(asked: BatchRequest, jobs: JobQueue, request: Request) -> BatchPreview:
    """What a batch would do.

    Parameters
    ----------
    asked : BatchRequest
    jobs : JobQueue
        One of the files is segmented through it.
    request : Request
        If its client goes away, that ends.

    Raises
    ------
    InvalidRequestError, InvalidWordError, UnknownModelError
        If it could not be started.
    """
    survey = await run_in_threadpool(_survey, asked)
    told = survey.preview
    if survey.middle is None:
        return told
    try:
        per_pixel = await _seconds_per_pixel(survey.request, survey.middle, jobs, request)
    except TimeoutError:
        note = (
            f"'{survey.middle.image.file}' was given up after {TRY_SECONDS:g} s: it takes longer, "
            "or the device is busy. So it is not known how long all of them take."
        )
    except ClsClipError as error:
        note = f"'{survey.middle.image.file}' was tried, and failed: {error.message}"
    else:
        return told.model_copy(update={"seconds": round(per_pixel * told.pixels, 1)})
    return told.model_copy(update={"notes": (*told.notes, note)})


def _survey(asked: BatchRequest) -> _Survey:
    request, images = checked(asked)
    notes = []
    copied = {copy.file for copy in request.copies if copy.copied_to}
    unread = {copy.file for copy in request.copies if not copy.copied_to and not copy.error}
    try:
        check_output(request, images)
    except InvalidRequestError as error:
        notes.append(error.message)
    try:
        check_copies(request, whole=True)
    except InvalidRequestError as error:
        notes.append(error.message)
        unread |= copied
    read_by_napari = copied | unread
    groups = [
        [image for image in images if (str(image.file) in read_by_napari) == by_napari]
        for by_napari in (False, True)
    ]
    looks = [
        _look([each for each in group if str(each.file) not in unread], request.channel_numbers)
        for group in groups
    ]
    headers = [header for look in looks for header in look.headers]
    unreadable = [fault for look in looks for fault in look.faults]
    looked = len(headers) + len(unreadable)
    if unreadable:
        rest = f", and {len(unreadable) - 1} more" if len(unreadable) > 1 else ""
        of = f" of the {looked} files that were looked at" if looked < len(images) else ""
        notes.append(f"{unreadable[0]}{rest}{of}. Such files fail; the others are labelled.")
    large = sum(header.plane > LARGE_FROM for header in headers)
    if large:
        notes.append(
            f"{large} of {len(headers)} images have more than {LARGE_FROM:,} pixels; these become "
            "zarr folders, block by block."
        )
    accepted = Reviews(Path(request.output)).accepted()
    middle = sorted(headers, key=lambda header: header.plane)[len(headers) // 2 :][:1]
    if middle and middle[0].plane > LARGE_FROM:
        middle = []
        notes.append("They are so large that it is not known how long they take.")
    preview = BatchPreview(
        files=len(images),
        accepted=sum(image.key in accepted for image in images),
        bytes=sum(_bytes(image.file) for image in images),
        pixels=_pixels(groups, looks),
        first=tuple(str(image.file) for image in images[:SHOWN]),
        seconds=None,
        notes=tuple(notes),
    )
    return _Survey(request, preview, middle[0] if middle else None)


@dataclass(frozen=True)
class _Look:
    """Sizes of some images, and why others have none."""

    headers: list[_Header]
    faults: list[str]

    @property
    def count(self) -> int:
        return len(self.headers) + len(self.faults)


def _look(images: Sequence[InputImage], channels: tuple[int, ...]) -> _Look:
    """Read the headers of all images or, of many, of every n-th."""
    headers, faults = [], []
    for image in images[:: max(1, -(-len(images) // SAMPLE))]:
        try:
            with image.open(channels=channels) as source:
                headers.append(_Header(image, source.pixels, source.planes))
        except ClsClipError as error:
            faults.append(error.message.rstrip("."))
    return _Look(headers, faults)


def _pixels(groups: Sequence[Sequence[InputImage]], looks: Sequence[_Look]) -> int:
    """Pixels of all images: those that were not looked at are like the others of their group."""
    per_image = [
        sum(header.pixels for header in look.headers) / look.count if look.count else None
        for look in looks
    ]
    known = next((each for each in per_image if each is not None), 0.0)
    sizes = zip(groups, per_image, strict=True)
    return round(sum(len(group) * (known if size is None else size) for group, size in sizes))


def _bytes(file: Path) -> int:
    try:
        if file.is_dir():
            return sum(each.stat().st_size for each in file.rglob("*"))
        return file.stat().st_size
    except OSError:
        return 0


async def _seconds_per_pixel(
    asked: BatchRequest, middle: _Header, jobs: JobQueue, request: Request
) -> float:
    how = asked.model_dump(include={*SegmentSettings.model_fields, *RegionSettings.model_fields})
    segment = SegmentRequest(words=asked.words, **how)

    def read() -> NDArray[Any]:
        with middle.image.open(channels=asked.channel_numbers) as source:
            return source.read(plane=0)

    def work(image: NDArray[Any], predictor: Segmenter, job: Job) -> float:
        def once() -> float:
            begun = time.perf_counter()
            found = segment_for(predictor, job, image, segment)
            if asked.instances:
                segmented_instances(found, asked.threshold, InstanceOptions.of(asked))
            return time.perf_counter() - begun

        first = once()
        return min(first, once()) if first < _QUICK else first

    job = jobs.reserve(uuid.uuid4().hex)
    try:
        async with asyncio.timeout(TRY_SECONDS):
            image = await run_in_threadpool(read)
            jobs.submit_work(job, asked.model, lambda predictor, job: work(image, predictor, job))
            seconds: float = await wait_for(request, job)
    finally:
        jobs.release(job)
    return seconds / middle.plane
