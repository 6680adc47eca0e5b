"""``napari-clsclip-train``: pre-train, train, teach, annotate, bundle, fetch, measure, explain."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Final

import clsclip
from clsclip.cli.arguments import add_settings, settings_from
from clsclip.cli.config_file import add_config_option
from clsclip.cli.download import DownloadSettings, download_model
from clsclip.errors import CancelledError, ClsClipError, InvalidConfigError
from clsclip.model.files import write_atomically
from clsclip.training.ablate import NOT_ASKED, AblateSettings, ablate
from clsclip.training.bundle import BundleSettings, bundle
from clsclip.training.detect import DetectSettings, train_detector
from clsclip.training.distributed import launched, process_group
from clsclip.training.evaluate import evaluate
from clsclip.training.evaluate_settings import EvaluateSettings
from clsclip.training.exchange import (
    ExportSettings,
    ImportSettings,
    export_annotations,
    import_annotations,
)
from clsclip.training.explain import ExplainSettings, explain
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
    args = _parser().parse_args(arguments)
    try:
        if launched() > 1 and args.command not in _TOGETHER:
            raise InvalidConfigError(
                f"'{args.command}' works in one process, and the launcher started {launched()}. "
                f"Call it without the launcher; {', '.join(_TOGETHER)} train in several."
            )
        code: int = args.run(args)
    except CancelledError as error:
        print(f"napari-clsclip-train: {error.message}", file=sys.stderr)  # noqa: T201
        return CANCELLED
    except ClsClipError as error:
        print(f"napari-clsclip-train: {error.message}", file=sys.stderr)  # noqa: T201
        return 2 if error.http_status == 422 else 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="napari-clsclip-train", description=__doc__)
    parser.add_argument("--version", action="version", version=clsclip.__version__)
    commands = parser.add_subparsers(dest="command", required=True)

    def add(
        name: str, run: Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        return command

    for name, settings, run, text in (
        (
            "pretrain",
            PretrainSettings,
            _pretrain,
            "Train a small CLIP from scratch into OUTPUT/clip.",
        ),
        (
            "fit",
            FitSettings,
            _fit,
            "Train a ClsCLIP head on a frozen CLIP; OUTPUT is then a model.",
        ),
        ("finetune", FinetuneSettings, _finetune, "Teach a model a word; OUTPUT is then a model."),
        (
            "detect",
            DetectSettings,
            _detect,
            "Train a YOLO for region proposals into OUTPUT/detector.",
        ),
        (
            "ablate",
            AblateSettings,
            _ablate,
            "Train and measure the variants that Tables 1 to 3 of the paper compare.",
        ),
    ):
        command = add(name, run, text)
        command.add_argument(
            "--output",
            required=True,
            type=Path,
            help="Run directory, or folder of the runs of ablate.",
        )
        command.add_argument("--resume", action="store_true", help="Go on with what is in OUTPUT.")
        add_config_option(command)
        without = NOT_ASKED if name == "ablate" else ()
        add_settings(command, settings, bare=("store",), without=without, required=False)
    text = "Keep images with label images in the annotation store."
    add_settings(add("import", _import, text), ImportSettings)
    text = "Write what is in the annotation store as folders of images and label images."
    add_settings(add("export", _export, text), ExportSettings)
    text = "Write a trained model with its CLIP weights as one self-contained folder."
    add_settings(add("bundle", _bundle, text), BundleSettings)
    text = "Fetch a model of the Hugging Face hub; after an interruption it goes on."
    add_settings(add("download", _download, text), DownloadSettings)
    command = add("evaluate", _evaluate, "Measure a model on images with label images.")
    command.add_argument("--json", type=Path, metavar="FILE", help="Write the figures here too.")
    add_settings(command, EvaluateSettings)
    text = "Show where the [CLS] looks, with its own and with replaced [CLS] (Figure 3)."
    command = add("explain", _explain, text)
    command.add_argument("--output", required=True, type=Path, help="Folder for figure and maps.")
    add_settings(command, ExplainSettings)
    return parser


def _evaluate(args: argparse.Namespace) -> int:
    result = evaluate(settings_from(args, EvaluateSettings), _tell)
    text = json.dumps(result.model_dump(), indent=2)
    if args.json is not None:
        write_atomically(args.json, (text + "\n").encode())
    return _done(text)


def _explain(args: argparse.Namespace) -> int:
    return _done(*explain(settings_from(args, ExplainSettings), args.output))


def _ablate(args: argparse.Namespace) -> int:
    asked = settings_from(args, AblateSettings, without=NOT_ASKED)
    return _done(ablate(asked, args.output, resume=args.resume, tell=_tell))


def _import(args: argparse.Namespace) -> int:
    return _done(import_annotations(settings_from(args, ImportSettings)))


def _export(args: argparse.Namespace) -> int:
    return _done(*export_annotations(settings_from(args, ExportSettings)))


def _bundle(args: argparse.Namespace) -> int:
    return _done(bundle(settings_from(args, BundleSettings)))


def _download(args: argparse.Namespace) -> int:
    return _done(download_model(settings_from(args, DownloadSettings)))


def _detect(args: argparse.Namespace) -> int:
    asked = settings_from(args, DetectSettings)
    return _done(train_detector(asked, args.output, resume=args.resume, tell=_tell))


def _done(*results: object) -> int:
    """Print what a command has made."""
    for result in results:
        print(result)  # noqa: T201
    return 0


def _pretrain(args: argparse.Namespace) -> int:
    asked = settings_from(args, PretrainSettings)
    return _train_together(asked.device, partial(pretrain, asked), args)


def _fit(args: argparse.Namespace) -> int:
    asked = settings_from(args, FitSettings)
    return _train_together(asked.device, partial(fit, asked), args)


def _train_together(device: str, work: Callable[..., Path], args: argparse.Namespace) -> int:
    with process_group(device) as group:
        tell = _tell if group.leads else _silent
        path = work(args.output, resume=args.resume, tell=tell, group=group)
        return _done(path) if group.leads else 0


def _finetune(args: argparse.Namespace) -> int:
    asked, output = settings_from(args, FinetuneSettings), args.output
    with _signals() as stop, process_group(asked.device) as group:
        if not group.leads:
            assist(asked, output, group)
            return 0
        finetune(asked, output, resume=args.resume, tell=_tell, cancelled=stop.is_set, group=group)
    _done(output)
    return CANCELLED if stop.is_set() else 0


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
