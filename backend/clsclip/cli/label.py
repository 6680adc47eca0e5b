"""``napari-clsclip-label``: label image files and folders from the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from tqdm import tqdm

import clsclip
from clsclip.cli.arguments import add_settings, settings_from
from clsclip.config import (
    DeviceSettings,
    InstanceSettings,
    LargeImageSettings,
    RegionSettings,
    SegmentSettings,
    ThresholdSettings,
)
from clsclip.errors import ClsClipError
from clsclip.typed_words import parse_words

if TYPE_CHECKING:
    from clsclip.batch.large import BlockProgress


class LabelSettings(
    SegmentSettings,
    RegionSettings,
    ThresholdSettings,
    InstanceSettings,
    LargeImageSettings,
    DeviceSettings,
):
    """Segmentation."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns
    -------
    int
        0: all files labelled; 1: some failed, see the manifest; 2: nothing was started; 130:
        interrupted, the same command goes on.
    """
    parser = argparse.ArgumentParser(
        prog="napari-clsclip-label",
        description="Label images with the objects that words name. Writes OUTPUT/<stem>.tif "
        "(uint16 class ids, 0 = background), OUTPUT/classes.csv and OUTPUT/manifest.csv. With "
        "--instances every object has an id of its own, and OUTPUT/<stem>.features.csv lists them. "
        "Very large images become OUTPUT/<stem>.zarr. After an interruption, the same command "
        "goes on.",
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
    parser.add_argument("--overwrite", action="store_true", help="Replace labels in OUTPUT.")
    add_settings(parser, LabelSettings)
    args = parser.parse_args(arguments)
    try:
        return _label(args)
    except ClsClipError as error:
        print(f"napari-clsclip-label: {error.message}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        again = "Give the same command again to go on."
        print(f"napari-clsclip-label: interrupted. {again}", file=sys.stderr)  # noqa: T201
        return 130


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
    failed = skipped = objects = 0
    bar = _BlockBar()
    outcomes = label_files(
        predictor, targets, words, args.output,
        threshold=settings.threshold, zoom=settings.zoom, templates=settings.templates,
        regions=settings.regions, detector=settings.detector,
        instances=InstanceOptions.of(settings) if settings.instances else None,
        large=LargeImageSettings(
            large_from=settings.large_from, chunk=settings.chunk, level=settings.level
        ),
        overwrite=args.overwrite, progress=bar,
    )  # fmt: skip
    for outcome in tqdm(outcomes, total=len(files), unit="image"):
        bar.close()
        objects += outcome.objects or 0
        skipped += outcome.status == "skipped"
        if outcome.status == "failed":
            failed += 1
            tqdm.write(f"{outcome.file}: {outcome.error}", file=sys.stderr)
    done = len(files) - failed
    before = f" ({skipped} of them before)" if skipped else ""
    found = f", {objects} objects" if settings.instances else ""
    print(f"{done} of {len(files)} images labelled in {args.output}{before}{found}")  # noqa: T201
    return 1 if failed else 0


class _BlockBar:
    """A progress bar on standard error for the blocks of one large image."""

    def __init__(self) -> None:
        self._bar: tqdm[NoReturn] | None = None  # it iterates over nothing
        self._stage = ""

    def __call__(self, file: Path, blocks: BlockProgress) -> None:
        bar = self._bar
        if bar is None or self._stage != blocks.stage:
            self.close()
            if blocks.skipped:
                tqdm.write(
                    f"{file}: {blocks.skipped} of {blocks.total} blocks are done already and are "
                    "skipped.",
                    file=sys.stderr,
                )
            title = file.name if blocks.stage == "segment" else f"{file.name}: objects"
            self._stage = blocks.stage
            bar = self._bar = tqdm(
                desc=title, total=blocks.total, initial=blocks.skipped, unit="block", leave=False
            )
        bar.update(blocks.done - bar.n)

    def close(self) -> None:
        """End the bar of this image."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


if __name__ == "__main__":
    sys.exit(main())
