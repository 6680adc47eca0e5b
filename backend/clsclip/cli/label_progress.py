"""How a batch is told on the terminal, or in plain lines to whoever reads the standard output."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn

from tqdm import tqdm

if TYPE_CHECKING:
    from clsclip.batch.inputs import InputImage
    from clsclip.batch.job import Job
    from clsclip.batch.large import BlockProgress
    from clsclip.batch.manifest import ManifestRow


class LabelProgress:
    """Follows a batch: bars where standard output is a terminal, else a line per image or block.

    A :class:`clsclip.batch.watch.Watch`; use it in a ``with`` statement.

    Parameters
    ----------
    images : int
        How many there are.
    job : Job, optional
        Is asked whether to go on, and told that it does.
    """

    def __init__(self, images: int, job: Job | None) -> None:
        self._images, self._job = images, job
        self._told = 0
        self._bars = sys.stdout.isatty()
        self._bar: tqdm[NoReturn] | None = None  # it iterates over nothing
        self._blocks: tqdm[NoReturn] | None = None
        self._stage = ""
        self._lock = threading.Lock()

    def begin(self, kept: int) -> None:
        """Hear how many images are labelled already."""
        self._told = kept
        if kept:
            self.tell(f"{kept} of {self._images} images are labelled already")
        if self._bars:
            self._bar = tqdm(total=self._images, initial=kept, unit="image")

    def checkpoint(self) -> None:
        """Wait as long as the job is paused; raise CancelledError if it is to end."""
        if self._job is not None:
            self._job.checkpoint()
            self._job.tick()

    def finished(self, row: ManifestRow) -> None:
        """Tell of an image."""
        with self._lock:
            self._told += 1
            self._close_blocks()
            if row.status == "failed":
                tqdm.write(f"{row.file}: {row.error}", file=sys.stderr)
            objects = "" if row.objects is None else f", {row.objects} objects"
            became = "failed" if row.status == "failed" else f"labelled{objects}"
            self.tell(f"{self._told} of {self._images}: {row.file.name} {became}")
            if self._bar is not None:
                self._bar.update()
        if self._job is not None:
            self._job.tick()

    def blocks(self, image: InputImage, progress: BlockProgress) -> None:
        """Tell how far a large image is."""
        name = image.file.name
        with self._lock:
            new, self._stage = self._stage != f"{image.key} {progress.stage}", (
                f"{image.key} {progress.stage}"
            )  # fmt: skip
            if new and progress.skipped:
                tqdm.write(
                    f"{image.file}: {progress.skipped} of {progress.total} blocks are done already "
                    "and are skipped.",
                    file=sys.stderr,
                )
            title = name if progress.stage == "segment" else f"{name}: objects"
            self.tell(f"{title}: block {progress.done} of {progress.total}")
            if self._bars:
                if new:
                    self._close_blocks()
                if self._blocks is None:
                    self._blocks = tqdm(
                        desc=title, total=progress.total, initial=progress.skipped, unit="block",
                        leave=False,
                    )  # fmt: skip
                self._blocks.update(progress.done - self._blocks.n)

    def tell(self, line: str) -> None:
        """Say something to whoever reads the standard output."""
        if not self._bars:
            print(line, flush=True)  # noqa: T201

    def _close_blocks(self) -> None:
        if self._blocks is not None:
            self._blocks.close()
            self._blocks = None

    def __enter__(self) -> LabelProgress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close_blocks()
        if self._bar is not None:
            self._bar.close()
