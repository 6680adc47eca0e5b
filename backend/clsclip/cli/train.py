"""``napari-clsclip-train``: pre-train, train, teach, keep annotations, bundle, fetch, evaluate."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Final

import clsclip
from clsclip.cli.arguments import add_settings, settings_from
from clsclip.cli.download import DownloadSettings, download_model
from clsclip.errors import CancelledError, ClsClipError, InvalidConfigError
from clsclip.model.files import write_atomically
from clsclip.training.bundle import BundleSettings, bundle
from clsclip.training.detect import DetectSettings, train_detector
from clsclip.training.distributed import launched, process_group
from clsclip.training.evaluate import EvaluateSettings, evaluate
from clsclip.training.exchange import (
    ExportSettings,
    ImportSettings,
    export_annotations,
    import_annotations,
)
from clsclip.training.finetune import assist, finetune
from clsclip.training.finetune_settings import FinetuneSettings
from clsclip.training.fit import FitSettings, fit
from clsclip.training.pretrain import PretrainSettings, pretrain

CANCELLED: Final = 130
"""Exit code after a signal, as shells have it for SIGINT."""

_TOGETHER: Final = ("pretrain", "fit", "finetune")
"""Commands that several processes do together; see clsclip.training.distributed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns
    -------
    int
        0: done; 1: the work failed; 2: wrong usage; 130: cancelled by a signal.
    """
    parser = argparse.ArgumentParser(prog="napari-clsclip-train", description=__doc__)
    parser.add_argument("--version", action="version", version=clsclip.__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, settings, text in (
        ("pretrain", PretrainSettings, "Train a small CLIP from scratch into OUTPUT/clip."),
        ("fit", FitSettings, "Train a ClsCLIP head on a frozen CLIP; OUTPUT is then a model."),
        ("finetune", FinetuneSettings, "Teach a model a word; OUTPUT is then a model."),
        ("detect", DetectSettings, "Train a YOLO for region proposals into OUTPUT/detector."),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--output", required=True, type=Path, help="Run directory.")
        command.add_argument("--resume", action="store_true", help="Go on with the run in OUTPUT.")
        add_settings(command, settings, bare=("store",))
    text = "Keep images with label images in the annotation store."
    add_settings(commands.add_parser("import", help=text, description=text), ImportSettings)
    text = "Write what is in the annotation store as folders of images and label images."
    add_settings(commands.add_parser("export", help=text, description=text), ExportSettings)
    text = "Write a trained model with its CLIP weights as one self-contained folder."
    add_settings(commands.add_parser("bundle", help=text, description=text), BundleSettings)
    text = "Fetch a model of the Hugging Face hub; after an interruption it goes on."
    add_settings(commands.add_parser("download", help=text, description=text), DownloadSettings)
    text = "Measure a model on images with label images."
    command = commands.add_parser("evaluate", help=text, description=text)
    command.add_argument("--json", type=Path, metavar="FILE", help="Write the figures here too.")
    add_settings(command, EvaluateSettings)
    args = parser.parse_args(arguments)
    try:
        return _run(args)
    except CancelledError as error:
        print(f"napari-clsclip-train: {error.message}", file=sys.stderr)  # noqa: T201
        return CANCELLED
    except ClsClipError as error:
        print(f"napari-clsclip-train: {error.message}", file=sys.stderr)  # noqa: T201
        return 2 if error.http_status == 422 else 1


def _run(args: argparse.Namespace) -> int:
    if launched() > 1 and args.command not in _TOGETHER:
        raise InvalidConfigError(
            f"'{args.command}' works in one process, and the launcher started {launched()}. Call "
            f"it without the launcher; {', '.join(_TOGETHER)} train in several."
        )
    if args.command == "evaluate":
        result = evaluate(settings_from(args, EvaluateSettings), _tell)
        text = json.dumps(result.model_dump(), indent=2)
        if args.json is not None:
            write_atomically(args.json, (text + "\n").encode())
        print(text)  # noqa: T201
        return 0
    if args.command == "finetune":
        return _finetune(settings_from(args, FinetuneSettings), args.output, args.resume)
    if args.command == "import":
        print(import_annotations(settings_from(args, ImportSettings)))  # noqa: T201
        return 0
    if args.command == "export":
        for folder in export_annotations(settings_from(args, ExportSettings)):
            print(folder)  # noqa: T201
        return 0
    if args.command == "download":
        print(download_model(settings_from(args, DownloadSettings)))  # noqa: T201
        return 0
    if args.command in ("pretrain", "fit"):
        return _train_on_folders(args)
    if args.command == "detect":
        path = train_detector(
            settings_from(args, DetectSettings), args.output, resume=args.resume, tell=_tell
        )
    else:
        path = bundle(settings_from(args, BundleSettings))
    print(path)  # noqa: T201
    return 0


def _finetune(settings: FinetuneSettings, output: Path, resume: bool) -> int:
    with _signals() as stop, process_group(settings.device) as group:
        if not group.leads:
            assist(settings, output, group)
            return 0
        finetune(settings, output, resume=resume, tell=_tell, cancelled=stop.is_set, group=group)
    print(output)  # noqa: T201
    return CANCELLED if stop.is_set() else 0


def _train_on_folders(args: argparse.Namespace) -> int:
    if args.command == "pretrain":
        clip = settings_from(args, PretrainSettings)
        work = partial(pretrain, clip)
        device = clip.device
    else:
        head = settings_from(args, FitSettings)
        work = partial(fit, head)
        device = head.device
    with process_group(device) as group:
        tell = _tell if group.leads else _silent
        path = work(args.output, resume=args.resume, tell=tell, group=group)
        if group.leads:
            print(path)  # noqa: T201
    return 0


def _silent(_: str) -> None:
    """Where the leading process tells."""


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; a second one ends the process at once."""
    stop = threading.Event()
    old = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, _: FrameType | None) -> None:
        stop.set()
        signal.signal(number, old[signal.Signals(number)])
        _tell("Ending with what is best so far...")

    for number in old:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
