"""Who labels the images of a batch, and who follows that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from clsclip.batch.inputs import InputImage
from clsclip.batch.large import BlockProgress
from clsclip.batch.manifest import ManifestRow
from clsclip.batch.task import LabelTask


class Watch(Protocol):
    """Follows a batch. Calls come from one thread at a time each, but from several threads."""

    def begin(self, kept: int) -> None:
        """Hear how many images are labelled already."""

    def checkpoint(self) -> None:
        """Come between two images, planes or blocks; may wait.

        Raises
        ------
        CancelledError
            To end the batch.
        """

    def blocks(self, image: InputImage, progress: BlockProgress) -> None:
        """Hear how far a large image is."""

    def finished(self, row: ManifestRow) -> None:
        """Hear of an image whose row is in the manifest."""


class Labeller(Protocol):
    """Labels images, in one process or in many."""

    def label(
        self, images: Sequence[InputImage], task: LabelTask, *,
        record: Callable[[ManifestRow], None], watch: Watch, fail_fast: bool,
    ) -> None:  # fmt: skip
        """Label images and write their outputs.

        Parameters
        ----------
        images : sequence of InputImage
        task : LabelTask
        record : callable
            Called with the row of each image when its outputs are written, by one thread.
        watch : Watch
        fail_fast : bool
            Stop at the first image that cannot be labelled.

        Raises
        ------
        CancelledError
            If ``watch`` said so. What was looked at before is written.
        ClsClipError
            If workers cannot be had, or lack the model.
        OSError
            If labels cannot be written.
        """
