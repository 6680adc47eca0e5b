"""``napari-clsclip-label``: label image files and folders from the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import clsclip
from clsclip.cli.arguments import add_settings, option_help, settings_from
from clsclip.cli.label_progress import LabelProgress
from clsclip.config import (
    ChannelSettings,
    DeviceSettings,
    FolderSettings,
    InstanceSettings,
    LabelFormat,
    LargeImageSettings,
    RegionSettings,
    RunSettings,
    SegmentSettings,
    ThresholdSettings,
)
from clsclip.errors import CancelledError, ClsClipError, InvalidConfigError
from clsclip.typed_words import parse_words

if TYPE_CHECKING:
    from clsclip.batch.folder import Summary
    from clsclip.batch.job import Job
    from clsclip.batch.watch import Labeller


class LabelSettings(
    SegmentSettings,
    RegionSettings,
    ThresholdSettings,
    InstanceSettings,
    ChannelSettings,
    LargeImageSettings,
    DeviceSettings,
):
    """Segmentation."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns
    -------
    int
        0: all files labelled; 1: some failed, see the manifest; 2: nothing was started, or the
        run could not go on; 130: interrupted or cancelled, the same command goes on.
    """
    args = _parser().parse_args(arguments)
    again = "Give the same command again to go on."
    try:
        return _run(args)
    except CancelledError as error:
        print(f"napari-clsclip-label: {error.message}", file=sys.stderr)  # noqa: T201
        return 130
    except ClsClipError as error:
        print(f"napari-clsclip-label: {error.message}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        print(f"napari-clsclip-label: interrupted. {again}", file=sys.stderr)  # noqa: T201
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="napari-clsclip-label",
        description="Label images with the objects that words name. Writes OUTPUT/<stem>.tif "
        "(uint16 class ids, 0 = background), OUTPUT/classes.csv and OUTPUT/manifest.csv. With "
        "--instances every object has an id of its own, and OUTPUT/<stem>.features.csv lists them. "
        "Very large images become OUTPUT/<stem>.zarr. After an interruption, the same command "
        "goes on, and tries again what failed.",
    )
    parser.add_argument("--version", action="version", version=clsclip.__version__)
    parser.add_argument(
        "inputs", nargs="+", type=Path, metavar="INPUT",
        help="Image files, zarr folders, or folders of these.",
    )  # fmt: skip
    parser.add_argument(
        "--words", required=True, help="What to segment: one word or several, with commas."
    )
    parser.add_argument("--output", required=True, type=Path, help="Folder for the labels.")
    parser.add_argument(
        "--format", dest="formats", type=_formats,
        default=argparse.SUPPRESS, metavar="FORMAT,...",
        help=option_help(FolderSettings, "formats"),
    )  # fmt: skip
    parser.add_argument(
        "--resume", dest="overwrite", action="store_const", const=False, default=argparse.SUPPRESS,
        help="Go on with what is in OUTPUT: labelled images are kept. This is the default.",
    )  # fmt: skip
    parser.add_argument(
        "--job", type=Path, metavar="FOLDER",
        help="Folder in which others follow this batch (docs/batch.md).",
    )  # fmt: skip
    add_settings(parser, FolderSettings, without=("formats",))
    add_settings(parser, RunSettings)
    add_settings(parser, LabelSettings)
    return parser


def _formats(text: str) -> tuple[str, ...]:
    """Read ``tiff,png``."""
    names = tuple(name for part in text.split(",") if (name := part.strip().lower()))
    known = get_args(LabelFormat)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise argparse.ArgumentTypeError(
            f"'{(unknown or [text])[0]}' is not a format; there are {', '.join(known)}"
        )
    return tuple(dict.fromkeys(names))


def _run(args: argparse.Namespace) -> int:
    if args.job is None:
        return _exit_code(_label(args, None))
    from clsclip.batch.job import Job

    job = Job(args.job)
    with job.working():
        summary = _label(args, job)
        job.done(summary.failure)
    return _exit_code(summary)


def _exit_code(summary: Summary) -> int:
    return 1 if summary.failed else 0


def _label(args: argparse.Namespace, job: Job | None) -> Summary:
    settings = settings_from(args, LabelSettings)
    which = settings_from(args, FolderSettings)
    run = settings_from(args, RunSettings)
    words = parse_words(args.words)
    from clsclip.batch.folder import label_folder
    from clsclip.batch.inputs import InputImage, find_images
    from clsclip.batch.outputs import check_outputs
    from clsclip.batch.task import LabelTask
    from clsclip.instances import InstanceOptions

    def find() -> list[InputImage]:
        found = find_images(
            args.inputs, pattern=which.pattern, recursive=which.recursive, output=args.output
        )
        check_outputs(
            found, args.output, overwrite=which.overwrite, formats=which.formats, words=words
        )
        return found

    images = find() if job is None else job.images(find)
    progress = LabelProgress(len(images), job)
    progress.tell(f"Loads the model '{settings.model}'")
    labeller, version = _labeller(settings, run, words, args.job)
    task = LabelTask(
        output=args.output, words=words, model=settings.model, model_version=version,
        device=settings.device, threshold=settings.threshold, zoom=settings.zoom,
        templates=settings.templates, regions=settings.regions, detector=settings.detector,
        instances=InstanceOptions.of(settings) if settings.instances else None,
        large=LargeImageSettings(
            large_from=settings.large_from, chunk=settings.chunk, level=settings.level
        ),
        channels=settings.channel_numbers, formats=which.formats,
    )  # fmt: skip
    with progress:
        summary = label_folder(
            images, task, labeller, progress, inputs=args.inputs, overwrite=which.overwrite,
            fail_fast=run.fail_fast, job=args.job,
        )  # fmt: skip
    done = summary.done + summary.kept
    accepted = f", {summary.accepted} accepted" if summary.accepted else ""
    before = f" ({summary.kept} of them before{accepted})" if summary.kept else ""
    found = f", {summary.objects} objects" if settings.instances else ""
    print(f"{done} of {len(images)} images labelled in {args.output}{before}{found}")  # noqa: T201
    return summary


def _labeller(
    settings: LabelSettings, run: RunSettings, words: tuple[str, ...], job: Path | None
) -> tuple[Labeller, str]:
    """Who labels, and the hash of the weights. What no image could be labelled with is refused."""
    if run.workers == 1 and not run.scheduler:
        from clsclip.batch.serial import Here
        from clsclip.predict.predictor import Predictor

        predictor = Predictor(settings.model, device=settings.device)
        predictor.check_proposals(words, settings.regions, settings.detector)
        return Here(predictor), predictor.version
    if run.scheduler and run.workers > 1:
        raise InvalidConfigError(
            f"--workers {run.workers} is about this machine, --scheduler about a cluster, which "
            "has workers of its own. Leave one of them out."
        )
    from clsclip.batch.workers import Cluster, Processes
    from clsclip.model.checkpoint import model_version
    from clsclip.model.registry import find_model
    from clsclip.regions.generators import Generators

    pool = Cluster(run.scheduler, job) if run.scheduler else Processes(run.workers, job)
    folder = find_model(settings.model)
    Generators(folder, device="cpu").check(settings.regions, words, detector=settings.detector)
    return pool, model_version(folder)


if __name__ == "__main__":
    sys.exit(main())
