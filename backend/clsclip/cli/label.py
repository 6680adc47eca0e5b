"""``napari-clsclip-label``: label image files and folders from the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

import clsclip
from clsclip.cli.arguments import add_settings, settings_from
from clsclip.config import (
    DeviceSettings,
    InstanceSettings,
    RegionSettings,
    SegmentSettings,
    ThresholdSettings,
)
from clsclip.errors import ClsClipError
from clsclip.wire import parse_words


class LabelSettings(
    SegmentSettings, RegionSettings, ThresholdSettings, InstanceSettings, DeviceSettings
):
    """Segmentation."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns
    -------
    int
        0: all files labelled; 1: some failed, see the manifest; 2: nothing was started.
    """
    parser = argparse.ArgumentParser(
        prog="napari-clsclip-label",
        description="Label images with the objects that words name. Writes OUTPUT/<stem>.tif "
        "(uint16 class ids, 0 = background), OUTPUT/classes.csv and OUTPUT/manifest.csv. With "
        "--instances every object has an id of its own, and OUTPUT/<stem>.features.csv lists them.",
    )
    parser.add_argument("--version", action="version", version=clsclip.__version__)
    parser.add_argument("inputs", nargs="+", type=Path, metavar="INPUT", help="Files or folders.")
    parser.add_argument(
        "--words", required=True, help="What to segment: one word or several, with commas."
    )
    parser.add_argument("--output", required=True, type=Path, help="Folder for the labels.")
    parser.add_argument("--overwrite", action="store_true", help="Replace labels in OUTPUT.")
    add_settings(parser, LabelSettings)
    args = parser.parse_args(arguments)
    try:
        return _label(args)
    except ClsClipError as error:
        print(f"napari-clsclip-label: {error.message}", file=sys.stderr)  # noqa: T201
        return 2


def _label(args: argparse.Namespace) -> int:
    settings = settings_from(args, LabelSettings)
    words = parse_words(args.words)
    from clsclip.batch.folder import collect_images, label_files, label_targets
    from clsclip.instances import InstanceOptions
    from clsclip.predict.predictor import Predictor

    files = collect_images(args.inputs)
    targets = label_targets(files, args.output, overwrite=args.overwrite)
    predictor = Predictor(settings.model, device=settings.device)
    predictor.check_proposals(words, settings.regions, settings.detector)
    failed = objects = 0
    outcomes = label_files(
        predictor, targets, words, args.output,
        threshold=settings.threshold, zoom=settings.zoom, templates=settings.templates,
        regions=settings.regions, detector=settings.detector,
        instances=InstanceOptions.of(settings) if settings.instances else None,
    )  # fmt: skip
    for outcome in tqdm(outcomes, total=len(files), unit="image"):
        objects += outcome.objects or 0
        if outcome.status == "failed":
            failed += 1
            tqdm.write(f"{outcome.file}: {outcome.error}", file=sys.stderr)
    done = len(files) - failed
    found = f", {objects} objects" if settings.instances else ""
    print(f"{done} of {len(files)} images labelled in {args.output}{found}")  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
