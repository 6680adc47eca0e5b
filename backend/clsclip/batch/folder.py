"""Label the images of folders: the run, wherever the images are labelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clsclip.batch.exporting import add_formats, finish_exports
from clsclip.batch.inputs import InputImage
from clsclip.batch.manifest import Manifest, ManifestRow
from clsclip.batch.outputs import begin, finish, labelling
from clsclip.batch.task import LabelTask
from clsclip.batch.watch import Labeller, Watch
from clsclip.errors import FileError


@dataclass
class Summary:
    """What a run did.

    Attributes
    ----------
    images : int
    kept : int
        Of these, labelled before; accepted ones among them.
    accepted : int
    done, failed : int
        In this run.
    objects : int
        Where single objects are told apart; also in kept images.
    failure : str
        The image that could not be labelled, and why, where that ended the run.
    """

    images: int
    kept: int = 0
    accepted: int = 0
    done: int = 0
    failed: int = 0
    objects: int = 0
    failure: str = ""

    def count(self, row: ManifestRow) -> None:
        """Take an image into account that was labelled now."""
        self.done += row.status == "done"
        self.failed += row.status == "failed"
        self.objects += row.objects or 0


def label_folder(
    images: Sequence[InputImage],
    task: LabelTask,
    labeller: Labeller,
    watch: Watch,
    *,
    inputs: Sequence[Path],
    overwrite: bool = False,
    fail_fast: bool = False,
    job: Path | None = None,
) -> Summary:
    """Label images, write ``classes.csv`` and ``manifest.csv``, and go on after bad files.

    A run that was interrupted is gone on with, and so is one that has ended: images that are
    labelled are kept, failed ones tried again. Images of more than ``task.large.large_from``
    pixels are labelled block by block into ``KEY.zarr`` instead of ``KEY.tif``; see
    :func:`clsclip.batch.large.label_large`. Labels that a person has accepted are left alone.

    Parameters
    ----------
    images : sequence of InputImage
        See :func:`clsclip.batch.inputs.find_images`; :func:`clsclip.batch.outputs.check_outputs`
        says whether they may be labelled there.
    task : LabelTask
    labeller : Labeller
        :class:`clsclip.batch.serial.Here`, or a pool of :mod:`clsclip.batch.workers`.
    watch : Watch
    inputs : sequence of Path
        Where the images were found; an output folder belongs to these.
    overwrite : bool
        Begin anew.
    fail_fast : bool
        Stop at the first image that cannot be labelled; the same command goes on.
    job : Path, optional
        Folder of the job; see :mod:`clsclip.batch.job`.

    Returns
    -------
    Summary

    Raises
    ------
    FileError
        If ``output`` cannot be written, or holds labels of other settings.
    BusyError
        If another process labels into it.
    CancelledError
        If ``watch`` said so. What is done stays.
    """
    output, words = task.output, task.words
    settings = {**task.settings(), "inputs": [str(path) for path in inputs]}
    try:
        with labelling(output):
            begun = begin(
                images, output, words, settings, formats=task.formats, overwrite=overwrite,
                job="" if job is None else str(job),
            )  # fmt: skip
            task = replace(task, resumed=begun.resumed)
            changed = add_formats(images, begun, output, task.formats, words)
            refused = {key: row for key, row in changed.items() if row.status == "failed"}
            kept = [row for key, row in begun.kept.items() if key not in refused]
            summary = Summary(len(images), len(kept), len(begun.accepted - refused.keys()))
            summary.objects = sum(row.objects or 0 for row in kept)
            manifest = Manifest(output)
            for key in changed.keys() - refused.keys():
                manifest.append(changed[key])

            def record(row: ManifestRow) -> None:
                manifest.append(row)
                summary.count(row)
                if row.status == "failed" and fail_fast:
                    summary.failure = summary.failure or f"{row.file}: {row.error}"
                watch.finished(row)

            watch.begin(len(kept))
            for row in refused.values():
                record(row)
            if begun.todo and not summary.failure:
                labeller.label(begun.todo, task, record=record, watch=watch, fail_fast=fail_fast)
            if not summary.failure:
                finish_exports(images, output, task.formats, words)
                finish(images, output, task.formats)
            return summary
    except OSError as error:
        raise FileError(f"'{output}' cannot be written ({error}).") from error
