"""``napari-clsclip-label --job`` without a model: writes the same files, one image after the other.

What the service does with a batch is tested with it at once: images are labelled by their
brightness, an image whose name holds "bad" fails, unless there is a file "good" beside it, and each
takes as long as ``STUB_SECONDS`` says. What the command itself does is tested in
``test_label.py`` and others.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from clsclip.batch.exporting import finish_exports
from clsclip.batch.exports import exporter, read_labelled_output
from clsclip.batch.files import features_file, label_file, write_features, write_labels
from clsclip.batch.inputs import InputImage, find_images
from clsclip.batch.job import Job
from clsclip.batch.manifest import Manifest, ManifestRow
from clsclip.batch.outputs import begin, finish, labelling
from clsclip.errors import CancelledError, ClsClipError
from clsclip.instance_features import instance_features
from clsclip.instances import find_instances


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("inputs", nargs="+", type=Path)
    for name in ("output", "job"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--words", type=lambda text: tuple(text.split(",")))
    parser.add_argument("--format", type=lambda text: tuple(text.split(",")))
    for name in ("device", "model", "pattern", "zoom", "regions", "detector", "threshold",
                 "min-area", "min-certainty"):  # fmt: skip
        parser.add_argument(f"--{name}", default="")
    for name in ("recursive", "overwrite", "instances", "templates"):
        parser.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, required=True)
    args = parser.parse_args()
    job = Job(args.job)
    try:
        with job.working():
            images = job.images(
                lambda: find_images(args.inputs, pattern=args.pattern, recursive=args.recursive)
            )
            with labelling(args.output):
                failed = label(args, job, images)
            job.done()
    except CancelledError:
        return 130
    return 1 if failed else 0


def label(args: argparse.Namespace, job: Job, images: Sequence[InputImage]) -> int:
    settings = {"words": list(args.words), "instances": args.instances}
    begun = begin(
        images, args.output, args.words, settings, formats=args.format, overwrite=args.overwrite,
        job=str(args.job),
    )  # fmt: skip
    manifest, failed = Manifest(args.output), 0
    for image in begun.todo:
        job.checkpoint()
        started = time.monotonic()
        time.sleep(float(os.environ.get("STUB_SECONDS", "0")))
        try:
            with image.open() as source:
                pixels = source.read()
        except ClsClipError as error:
            row = ManifestRow(image.file, "failed", time.monotonic() - started, error.message)
            manifest.append(row)
            failed += 1
            continue
        if "bad" in image.file.name and not (image.file.parent / "good").exists():
            row = ManifestRow(image.file, "failed", time.monotonic() - started, "It is bad.")
        else:
            row = segment(args, image, pixels, started)
        manifest.append(row)
        failed += row.status == "failed"
        number = len(manifest.read())
        print(f"{number} of {len(images)}: {image.file.name} {row.status}", flush=True)  # noqa: T201
        job.tick()
    finish_exports(images, args.output, args.format, args.words)
    finish(images, args.output, args.format)
    return failed


def segment(
    args: argparse.Namespace, image: InputImage, pixels: np.ndarray, started: float
) -> ManifestRow:
    target = label_file(args.output, image.key)
    target.parent.mkdir(parents=True, exist_ok=True)
    labels, objects = (pixels > 127).astype(np.uint16), None
    if args.instances:
        labels = find_instances(pixels)
        features = instance_features(labels, pixels)
        words = np.full(len(features["label"]), args.words[0])
        named = {"label": features["label"], "class": words}
        write_features(features_file(target), {**named, **features})
        objects = len(features["label"])
    write_labels(target, labels)
    labelled = read_labelled_output(args.output, image.file, image.key, args.words)
    for name in args.format:
        if name != "tiff":
            exporter(name, args.output, args.words).write(labelled)
    assert image.thumbnail is not None
    Image.fromarray(pixels).resize((16, 16)).save(image.thumbnail)
    score = round(float(pixels.mean()) / 255, 4) if pixels.any() else None
    return ManifestRow(image.file, "done", time.monotonic() - started, objects=objects, score=score)


if __name__ == "__main__":
    sys.exit(main())
