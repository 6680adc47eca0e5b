"""``napari-clsclip-train``: pre-train a CLIP, train a head or detector, bundle, evaluate."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import clsclip
from clsclip.cli.arguments import add_settings, settings_from
from clsclip.errors import ClsClipError
from clsclip.model.checkpoint import write_atomically
from clsclip.training.bundle import BundleSettings, bundle
from clsclip.training.detect import DetectSettings, train_detector
from clsclip.training.evaluate import EvaluateSettings, evaluate
from clsclip.training.fit import FitSettings, fit
from clsclip.training.pretrain import PretrainSettings, pretrain


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns
    -------
    int
        0: done; 1: the work failed; 2: wrong usage.
    """
    parser = argparse.ArgumentParser(prog="napari-clsclip-train", description=__doc__)
    parser.add_argument("--version", action="version", version=clsclip.__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, settings, text in (
        ("pretrain", PretrainSettings, "Train a small CLIP from scratch into OUTPUT/clip."),
        ("fit", FitSettings, "Train a ClsCLIP head on a frozen CLIP into OUTPUT/model."),
        ("detect", DetectSettings, "Train a YOLO for region proposals into OUTPUT/detector."),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--output", required=True, type=Path, help="Run directory.")
        command.add_argument("--resume", action="store_true", help="Go on with the run in OUTPUT.")
        add_settings(command, settings)
    text = "Write a trained model with its CLIP weights as one self-contained folder."
    add_settings(commands.add_parser("bundle", help=text, description=text), BundleSettings)
    text = "Measure a model on images with label images."
    command = commands.add_parser("evaluate", help=text, description=text)
    command.add_argument("--json", type=Path, metavar="FILE", help="Write the figures here too.")
    add_settings(command, EvaluateSettings)
    args = parser.parse_args(arguments)
    try:
        _run(args)
    except ClsClipError as error:
        print(f"napari-clsclip-train: {error.message}", file=sys.stderr)  # noqa: T201
        return 2 if error.http_status == 422 else 1
    return 0


def _run(args: argparse.Namespace) -> None:
    if args.command == "evaluate":
        result = evaluate(settings_from(args, EvaluateSettings), _tell)
        text = json.dumps(result.model_dump(), indent=2)
        if args.json is not None:
            write_atomically(args.json, (text + "\n").encode())
        print(text)  # noqa: T201
        return
    if args.command == "pretrain":
        path = pretrain(settings_from(args, PretrainSettings), args.output, resume=args.resume,
                        tell=_tell)  # fmt: skip
    elif args.command == "detect":
        path = train_detector(
            settings_from(args, DetectSettings), args.output, resume=args.resume, tell=_tell
        )
    elif args.command == "fit":
        path = fit(settings_from(args, FitSettings), args.output, resume=args.resume, tell=_tell)
    else:
        path = bundle(settings_from(args, BundleSettings))
    print(path)  # noqa: T201


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
