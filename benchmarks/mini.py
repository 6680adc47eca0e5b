"""Every figure of docs/models/mini.md, as a Markdown table per subject.

    python benchmarks/mini.py --data DIR --model mini

DIR holds ``nuclei/val`` (images/ and labels/) and ``coco_mini`` (COCO). Each row is what one
``napari-clsclip-train evaluate`` prints; ``--show`` prints those commands instead of running them.
``--only scenes`` leaves out the subjects without "scenes" in their names; "spelling" is the last
of them.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

from clsclip import Predictor
from clsclip.cli.arguments import add_settings, settings_from
from clsclip.config import DEFAULT_THRESHOLD
from clsclip.training.disturb import CHANGES
from clsclip.training.evaluate import SCENE_SEED, EvaluateSettings, Evaluation, evaluate
from clsclip.training.examples import Source
from clsclip.training.scenes import Scenes
from clsclip.training.sources import find_sources
from clsclip.words import spellings

UNSEEN = Path(__file__).with_name("unseen.txt")
WRONG = ("airplane", "chair", "vessel")
SPELLED = (
    "nucleus", "cell", "filament", "membrane", "spot", "bacterium", "star", "circle", "heart",
    "ring", "flower",
)  # fmt: skip
SPELLED_IMAGES = 8


def run(command: str, model: str) -> Evaluation:
    """What ``napari-clsclip-train evaluate`` computes for these arguments."""
    parser = argparse.ArgumentParser()
    add_settings(parser, EvaluateSettings)
    args = parser.parse_args([*shlex.split(command), "--model", model])
    return evaluate(settings_from(args, EvaluateSettings))


def nuclei(data: Path) -> str:
    """Arguments that name the validation images of nuclei."""
    folder = data / "nuclei" / "val"
    return f"--images {folder / 'images'} --labels {folder / 'labels'}"


def commands(data: Path) -> Iterator[tuple[str, str]]:
    """Subject and arguments of every evaluation."""
    yield "nuclei", f"{nuclei(data)} --word nucleus"
    for word in WRONG:
        yield f"{word} on nuclei", f"{nuclei(data)} --word {word}"
    yield "nucleus on photographs", f"--data {data / 'coco_mini'} --word nucleus"
    yield "scenes", f"--data scenes --unseen {UNSEEN}"
    yield "scenes, shuffled words", f"--data scenes --unseen {UNSEEN} --shuffled"
    yield "photographs, boxes", f"--data {data / 'coco_mini'} --regions boxes --unseen {UNSEEN}"
    yield (
        "photographs, boxes vouched for",
        f"--data {data / 'coco_mini'} --regions manual --unseen {UNSEEN}",
    )
    yield "photographs", f"--data {data / 'coco_mini'} --unseen {UNSEEN}"
    for change in CHANGES[1:]:
        yield f"nuclei, {change}", f"{nuclei(data)} --word nucleus --change {change}"


def row(subject: str, found: Evaluation) -> Iterator[str]:
    """Table rows of one evaluation: all, and its parts."""
    means = list(found.image_mean.values())
    yield (
        f"| {subject} | {found.images} | {found.miou:.3f} | {mean(means):.3f} | "
        f"{found.fb_iou:.3f} | {found.foreground:.2%} | {found.seconds:.0f} |"
    )
    for name, part in sorted(found.parts.items()):
        yield (
            f"| — {name} ({part.images} questions, {part.classes} words) | | {part.miou:.3f} | "
            f"{part.image_mean:.3f} | {part.fb_iou:.3f} | | |"
        )


def spelling(model: str, data: Path) -> Iterator[str]:
    """IoU of each spelling's mask with that of the word itself, mean over images.

    Images in which neither finds anything say nothing and are left out.
    """
    predictor = Predictor(model)
    lowest = round(255 * DEFAULT_THRESHOLD)
    scenes: Source = Scenes(SCENE_SEED, count=400)
    photographed = find_sources(data / "nuclei", val=True)["nuclei"]
    for word in SPELLED:
        source = photographed if word == "nucleus" else scenes
        examples = (source[index] for index in range(len(source)))
        images = [e.image for e in examples if word in e.present][:SPELLED_IMAGES]
        forms = dict.fromkeys([*spellings(word)[1:], word.capitalize(), word.upper()])
        agreement: dict[str, list[float]] = {form: [] for form in forms}
        for image in images:
            # one request each: of words that differ in case only, a request keeps the first
            base, *others = (
                predictor.segment(image, [form]).probabilities[0] >= lowest
                for form in (word, *forms)
            )
            for form, other in zip(forms, others, strict=True):
                union = int((base | other).sum())
                if union:
                    agreement[form].append(int((base & other).sum()) / union)
        means = {form: mean(values) for form, values in agreement.items() if values}
        cells = ", ".join(f"{form} {value:.3f}" for form, value in means.items())
        worst = f"{min(means.values()):.3f}" if means else "nothing found"
        found = max(map(len, agreement.values()))
        yield f"| {word} | {found} of {len(images)} | {worst} | {cells} |"


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--show", action="store_true", help="Print the commands only.")
    parser.add_argument("--only", default="", help="Subjects with this in their names.")
    args = parser.parse_args()
    asked = [(subject, each) for subject, each in commands(args.data) if args.only in subject]
    if args.show:
        for subject, command in asked:
            print(f"# {subject}\nnapari-clsclip-train evaluate {command} --model {args.model}")
        return 0
    if asked:
        print("| subject | images | mIoU | mean IoU | FB-IoU | labelled | seconds |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
    for subject, command in asked:
        print(*row(subject, run(command, args.model)), sep="\n", flush=True)
    if args.only in "spelling":
        print("\n| word | images | lowest | spellings |\n| --- | --- | --- | --- |")
        for line in spelling(args.model, args.data):
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
