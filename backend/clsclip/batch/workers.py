"""Label images in several processes, of this machine or of a Dask cluster.

Every process loads the model once; those of this machine take its GPUs in turn, if there are
several. Images are sent one by one; the rows come back to the process that writes the manifest.
Files are read and written by the workers, so that all of them must see the same paths.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures import CancelledError as FutureCancelled
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, Final

import torch

from clsclip.batch.inputs import InputImage
from clsclip.batch.job import JobRequests
from clsclip.batch.labelling import ImageOutput, find
from clsclip.batch.large import BlockProgress
from clsclip.batch.manifest import ManifestRow
from clsclip.batch.reading import read_pieces
from clsclip.batch.task import LabelTask
from clsclip.batch.watch import Watch
from clsclip.errors import CancelledError, ClsClipError, InvalidConfigError, ModelUnavailableError
from clsclip.model.device import worker_device
from clsclip.predict.predictor import Predictor

_LOOK_SECONDS: Final = 0.5
"""How often a request to pause or to end is looked for while all workers are busy."""

_CLUSTER_SECONDS: Final = 10
"""How long to wait for a scheduler to answer."""


class Pool(ABC):
    """Processes that label.

    Parameters
    ----------
    job : Path, optional
        Folder of the job, in which they look for requests.
    """

    def __init__(self, job: Path | None) -> None:
        self.job = job

    @abstractmethod
    @contextmanager
    def executor(self) -> Iterator[Executor]:
        """What runs functions in them. At its end no work is left."""

    @abstractmethod
    def places(self, executor: Executor) -> int:
        """How many images can be labelled at once now."""

    def label(
        self, images: Sequence[InputImage], task: LabelTask, *,
        record: Callable[[ManifestRow], None], watch: Watch, fail_fast: bool,
    ) -> None:  # fmt: skip
        """See :class:`clsclip.batch.watch.Labeller`; the images are labelled in no order."""
        todo, alone = deque(images), deque[InputImage]()
        places = {image: place for place, image in enumerate(images)}
        while todo or alone:
            with self.executor() as executor:
                running: dict[Future[ManifestRow], InputImage] = {}
                try:
                    suspects = self._work(
                        executor, todo, alone, running, task, record, watch, fail_fast
                    )
                except CancelledError:
                    _record_what_ends(running, record)
                    raise
            if suspects is None:
                return
            if len(suspects) == 1:
                record(_died(suspects[0]))
                if fail_fast:
                    return
            else:
                alone.extend(sorted(suspects, key=places.__getitem__))

    def _work(
        self, executor: Executor, todo: deque[InputImage], alone: deque[InputImage],
        running: dict[Future[ManifestRow], InputImage], task: LabelTask,
        record: Callable[[ManifestRow], None], watch: Watch, fail_fast: bool,
    ) -> list[InputImage] | None:  # fmt: skip
        """Label until all is done or a process has died: then, what it may have been at.

        After a death, those images are labelled alone, so that it is known which one did it.
        None where a failure ends it.
        """
        while todo or alone or running:
            watch.checkpoint()
            source, most = (alone, 1) if alone else (todo, 2 * self.places(executor))
            while source and len(running) < most:
                image = source.popleft()
                try:
                    running[executor.submit(label_image, image, task, self.job)] = image
                except BrokenProcessPool:
                    return [image, *running.values()]
            done, _ = wait(running, _LOOK_SECONDS, FIRST_COMPLETED)
            for future in done:
                try:
                    row = future.result()
                except BrokenProcessPool:
                    return list(running.values())
                except ClsClipError:
                    raise
                except Exception as error:
                    row = self.lost(running[future], error)
                del running[future]
                record(row)
                if fail_fast and row.status == "failed":
                    return None
        return []

    def lost(self, image: InputImage, error: Exception) -> ManifestRow:
        """The row of an image whose worker was lost for good; others are raised again."""
        raise error


def _record_what_ends(
    running: dict[Future[ManifestRow], InputImage], record: Callable[[ManifestRow], None]
) -> None:
    """Wait for what has been begun, and begin nothing more."""
    for future in running:
        future.cancel()
    for future in running:
        if not future.cancelled():
            try:
                row = future.result()
            except (CancelledError, BrokenProcessPool):
                continue
            record(row)


def _died(image: InputImage) -> ManifestRow:
    return ManifestRow(
        image.file, "failed", 0.0,
        "The process that labelled this image died, perhaps because memory ran out. Try fewer "
        "--workers.",
    )  # fmt: skip


class Processes(Pool):
    """Processes of this machine, which share its cores.

    Parameters
    ----------
    workers : int
    job : Path, optional
        See :class:`Pool`.
    """

    def __init__(self, workers: int, job: Path | None = None) -> None:
        super().__init__(job)
        self._workers = workers

    @contextmanager
    def executor(self) -> Iterator[Executor]:
        """New processes, which end with this one, whatever ends it."""
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads hangs
        stop = context.Event()
        threads = max(1, torch.get_num_threads() // self._workers)
        begun = context.Value("i", 0)
        pool = ProcessPoolExecutor(
            self._workers, context, initializer=_begin_worker, initargs=(threads, stop, begun)
        )
        try:
            yield pool
        except BaseException:
            stop.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def places(self, executor: Executor) -> int:
        """As many as there are processes."""
        return self._workers


class Cluster(Pool):
    """Workers of a Dask cluster. What a lost one was at is done again by another.

    Parameters
    ----------
    address : str
        Of the scheduler.
    job : Path, optional
        See :class:`Pool`.

    Raises
    ------
    ModelUnavailableError
        If the package for it is not installed.
    """

    def __init__(self, address: str, job: Path | None = None) -> None:
        super().__init__(job)
        try:
            import distributed
        except ImportError as error:
            raise ModelUnavailableError(
                "--scheduler needs the package distributed. Install it here and on the workers: "
                'python -m pip install "napari-clsclip[cluster]"'
            ) from error
        self._distributed: Any = distributed
        self._address = address
        self._client: Any = None

    @contextmanager
    def executor(self) -> Iterator[Executor]:
        """A connection to the cluster."""
        try:
            client = self._distributed.Client(
                self._address, timeout=_CLUSTER_SECONDS, set_as_default=False
            )
        except (OSError, ValueError, TimeoutError) as error:
            raise InvalidConfigError(
                f"No Dask scheduler answers at '{self._address}' ({error}). Give the address that "
                "it prints when it starts, such as tcp://10.0.0.1:8786."
            ) from error
        with client:
            self._client = client
            executor = client.get_executor(pure=False)
            try:
                yield executor
            finally:
                executor.shutdown(wait=False)

    def label(
        self, images: Sequence[InputImage], task: LabelTask, *,
        record: Callable[[ManifestRow], None], watch: Watch, fail_fast: bool,
    ) -> None:  # fmt: skip
        """See :class:`clsclip.batch.watch.Labeller`; the images are labelled in no order."""
        try:
            super().label(images, task, record=record, watch=watch, fail_fast=fail_fast)
        except (FutureCancelled, self._distributed.comm.CommClosedError) as error:
            raise ModelUnavailableError(
                f"The Dask scheduler at '{self._address}' was lost ({error or 'no answer'}). What "
                "is done stays; give the same command again when it is back."
            ) from error

    def places(self, executor: Executor) -> int:
        """As many as the workers that are there now have threads."""
        threads: dict[str, int] = self._client.nthreads()
        return max(1, sum(threads.values()))

    def lost(self, image: InputImage, error: Exception) -> ManifestRow:
        """An image whose workers died again and again is given up."""
        if isinstance(error, self._distributed.KilledWorker):
            return _died(image)
        raise error


_predictors: dict[tuple[str, str, str], Predictor] = {}
_predicting = threading.Lock()
_stop: Event | None = None
_worker = 0
"""Number of this process among those of :class:`Processes`."""


def _begin_worker(threads: int, stop: Event, begun: Synchronized[int]) -> None:
    """Prepare a process of :class:`Processes`; ``begun`` counts them."""
    global _stop, _worker
    _stop, _worker = stop, next_number(begun)
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one ends it
    threading.Thread(target=_end_with_parent, daemon=True).start()


def next_number(begun: Synchronized[int]) -> int:
    """A number that no other process has that counts there, from 0."""
    with begun.get_lock():
        begun.value += 1
        return begun.value - 1


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def label_image(image: InputImage, task: LabelTask, job: Path | None = None) -> ManifestRow:
    """Label one image in this process, and write its outputs.

    Threads may call this at the same time: one uses the model, others read and write.

    Parameters
    ----------
    image : InputImage
    task : LabelTask
    job : Path, optional
        A folder in which requests to pause or to end are looked for between planes and blocks.

    Raises
    ------
    CancelledError
    CheckpointError, UnknownModelError, ModelUnavailableError, DeviceError
        If the model of the task cannot be had.
    OSError
        If labels cannot be written.
    """
    requests = None if job is None else JobRequests(job)

    def checkpoint() -> None:
        if _stop is not None and _stop.is_set():
            raise CancelledError("The batch was interrupted.")
        if requests is not None:
            requests.wait_or_raise()

    def progress(blocks: BlockProgress) -> None:
        checkpoint()

    output = ImageOutput(task)
    for piece in read_pieces([image], task):
        checkpoint()
        with _predicting:
            found = find(_predictor(task), piece, task, progress=progress)
        row = output.add(found)
        if row is not None:
            return row
    raise RuntimeError(f"The pieces of '{image.file}' have no end.")


def _predictor(task: LabelTask) -> Predictor:
    """The model of a task, loaded once."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    device = worker_device(task.device, _worker, gpus)
    key = (task.model, task.model_version, device)
    if key not in _predictors:
        _predictors.clear()
        _predictors[key] = replace(task, device=device).load_predictor()
    return _predictors[key]
