"""Teach a model a structure that it never saw, from five images, and measure what it cost.

    python benchmarks/finetune.py --nuclei DIR/nuclei/val --output OUT

draws ten images with rosettes (petals around a hollow centre) among discs and threads, teaches
``mini`` the word "rosette" from five of them with ``napari-clsclip-train finetune``, and prints
the IoU of rosettes on the other five, before and after, on how many images of nuclei the answer to
"nucleus" is the same to the last bit, and the seconds that the command took, on the clock and on
the processors (half of which is what it takes on two idle cores). Further options go to the
command. The recipe of the images is this file; no training draws them.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.draw import disk, ellipse, line

from clsclip import Predictor
from clsclip.training.evaluate import EvaluateSettings, evaluate

WORD = "rosette"
SIZE = 384


def picture(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A grey image (uint8) and the label image of its rosettes (uint8, nonzero = rosette)."""
    shape = (SIZE, SIZE)
    grain = ndimage.gaussian_filter(rng.standard_normal(shape), 8)
    plane = 0.3 + 0.05 * grain / grain.std()
    labels = np.zeros(shape, np.uint8)
    taken = np.zeros(shape, bool)
    for _ in range(6):  # threads below everything
        ends = rng.integers(0, SIZE, 4)
        thread = np.zeros(shape, bool)
        thread[line(*ends)] = True
        plane[ndimage.binary_dilation(thread, iterations=2)] += rng.uniform(0.1, 0.25)
    for number in range(16):
        radius = rng.uniform(22, 42) if number < 7 else rng.uniform(10, 24)
        row, column = rng.uniform(radius + 4, SIZE - radius - 4, 2)
        around = disk((row, column), radius + 6, shape=shape)
        if taken[around].any():
            continue
        taken[around] = True
        brightness = rng.uniform(0.25, 0.45)
        if number < 7:
            here = rosette(row, column, radius, rng)
            labels[here] = 1
            plane[here] += brightness
        else:
            plane[disk((row, column), radius, shape=shape)] += brightness
    plane = ndimage.gaussian_filter(plane, 0.8) + rng.normal(0, 0.03, shape)
    return np.clip(plane * 255, 0, 255).astype(np.uint8), labels


def rosette(row: float, column: float, radius: float, rng: np.random.Generator) -> np.ndarray:
    """Six to nine petals around a hollow centre, bool."""
    mask = np.zeros((SIZE, SIZE), bool)
    petals, turn = int(rng.integers(6, 10)), rng.uniform(0, np.pi)
    length, width = 0.36 * radius, 0.8 * radius * np.sin(np.pi / petals) * 0.62
    for angle in turn + np.arange(petals) * 2 * np.pi / petals:
        centre = (row + 0.64 * radius * np.sin(angle), column + 0.64 * radius * np.cos(angle))
        mask[ellipse(*centre, length, width, shape=mask.shape, rotation=np.pi / 2 - angle)] = True
    return mask


def draw(folder: Path, count: int, seed: int) -> None:
    """Write ``folder/images`` and ``folder/labels``."""
    rng = np.random.default_rng(seed)
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        for part, pixels in zip(("images", "labels"), picture(rng), strict=True):
            Image.fromarray(pixels).save(folder / part / f"{index}.png")


def iou(model: str, folder: Path, word: str) -> float:
    """IoU that ``napari-clsclip-train evaluate`` prints."""
    return evaluate(
        EvaluateSettings(
            images=str(folder / "images"), labels=str(folder / "labels"), word=word, model=model
        )
    ).miou


def unchanged(models: tuple[str, str], folder: Path, word: str, step: int) -> str:
    """On how many images two models answer a word with the same probabilities."""
    files = sorted((folder / "images").iterdir())[::step]
    first, second = map(Predictor, models)
    same = 0
    for file in files:
        image = np.asarray(Image.open(file))
        found = [model.segment(image, [word]).probabilities for model in (first, second)]
        same += np.array_equal(*found)
    return f"{same} of {len(files)} images"


def main() -> int:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nuclei", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--every", type=int, default=4, help="take every N-th image of nuclei")
    args, further = parser.parse_known_args()
    learnt, kept = args.output / "learn", args.output / "test"
    draw(learnt, 5, seed=1)
    draw(kept, 5, seed=2)
    run = args.output / "run"
    started = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "clsclip.cli.train", "finetune", "--images", learnt / "images",
         "--labels", learnt / "labels", "--word", WORD, "--model", args.model, "--output", run,
         *further],
        check=True,
    )  # fmt: skip
    seconds = time.monotonic() - started
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    report = json.loads((run / "report.json").read_text())
    figures = {
        "seconds": round(seconds, 1),
        "processor_seconds": round(used.ru_utime + used.ru_stime, 1),
        "steps": report["steps"],
        "promoted": report["promoted"],
        WORD: [round(iou(model, kept, WORD), 3) for model in (args.model, str(run))],
        "nucleus_unchanged": unchanged((args.model, str(run)), args.nuclei, "nucleus", args.every),
    }
    print(json.dumps(figures, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
