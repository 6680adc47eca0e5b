"""Throughput of labelling a folder beside that of the bare predictor, and memory over many images.

    python benchmarks/batch.py --data ../shared/data/nuclei/val/images
    python benchmarks/batch.py --data ../shared/data/nuclei/val/images --memory 2000
    OMP_NUM_THREADS=1 python benchmarks/batch.py --data ../shared/data/nuclei/val/images --views 8

The first command segments IMAGES images of the folder (repeated where it has fewer) with one loaded
model, in turns: as arrays in memory by the predictor alone, and from files by the run that
``napari-clsclip-label`` does, which reads, segments, writes labels and keeps the manifest. It
prints the median time of each and their ratio; above 1, the run is the faster one. With
``--memory`` it labels so many crops of 64 x 64 pixels instead, at zoom 1, and prints resident
memory and how much it grows per image from the 200th image on.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import psutil
import torch
from PIL import Image

from clsclip import Predictor
from clsclip.batch.folder import label_folder
from clsclip.batch.inputs import InputImage, find_images
from clsclip.batch.large import BlockProgress
from clsclip.batch.manifest import ManifestRow
from clsclip.batch.serial import Here
from clsclip.batch.task import LabelTask
from clsclip.image_files import list_images, read_image

CROP = 64
WARM = 200
"""Images after which memory is compared."""


class Following:
    """Follows a run, and notes resident memory after every image, in MiB."""

    def __init__(self) -> None:
        self.memory: list[float] = []
        self.failed: list[ManifestRow] = []
        self._process = psutil.Process()

    def begin(self, kept: int) -> None:
        """Nothing to note."""

    def checkpoint(self) -> None:
        """Go on."""

    def blocks(self, image: InputImage, progress: BlockProgress) -> None:
        """Nothing to note."""

    def finished(self, row: ManifestRow) -> None:
        """Note the memory."""
        self.memory.append(self._process.memory_info().rss / 2**20)
        if row.status == "failed":
            self.failed.append(row)


def label(
    predictor: Predictor, images: list[InputImage], word: str, output: Path, zoom: float | None
) -> tuple[float, Following]:
    """Label images into a new folder: seconds, and what was noted."""
    task = LabelTask(output, (word,), predictor.name, predictor.version, zoom=zoom)
    following = Following()
    started = time.perf_counter()
    label_folder(images, task, Here(predictor), following, inputs=[images[0].file.parent])
    seconds = time.perf_counter() - started
    if following.failed:
        raise SystemExit(f"{following.failed[0].file}: {following.failed[0].error}")
    return seconds, following


def repeated(data: Path, folder: Path, number: int) -> list[InputImage]:
    """So many copies of the images of a folder."""
    folder.mkdir()
    for k, file in enumerate(itertools.islice(itertools.cycle(list_images(data)), number)):
        (folder / f"{k:04d}{file.suffix}").write_bytes(file.read_bytes())
    return find_images([folder])


def compare(args: argparse.Namespace, folder: Path) -> None:
    """Print the throughput of both."""
    predictor = Predictor(args.model)
    images = repeated(args.data, folder / "images", args.images)
    arrays = [read_image(image.file) for image in images]
    label(predictor, images[:1], args.word, folder / "warm", args.zoom)
    bare, run, cpu = [], [], []
    for k in range(args.repeats):
        started, cpu_before = time.perf_counter(), time.process_time()
        for array in arrays:
            predictor.segment(array, [args.word], zoom=args.zoom)
        bare.append(time.perf_counter() - started)
        cpu_between = time.process_time()
        run.append(label(predictor, images, args.word, folder / f"out{k}", args.zoom)[0])
        cpu.append((cpu_between - cpu_before) / (time.process_time() - cpu_between))
        print(f"bare {bare[-1]:.1f} s, folder {run[-1]:.1f} s, ratio {bare[-1] / run[-1]:.3f}")
    for name, seconds in (("bare predictor", bare), ("folder", run)):
        print(f"{name}: {len(images) / median(seconds):.2f} images/s (median of {len(seconds)})")
    ratios = [one / other for one, other in zip(bare, run, strict=True)]
    print(f"throughput of the folder: {median(bare) / median(run):.3f} of the bare predictor's")
    print(f"median of the ratios: {median(ratios):.3f}, of those of CPU time: {median(cpu):.3f}")


def remember(args: argparse.Namespace, folder: Path) -> None:
    """Print memory over many images."""
    (folder / "images").mkdir()
    sources = itertools.cycle([read_image(file) for file in list_images(args.data)])
    rng = np.random.default_rng(0)
    for k in range(args.memory):
        pixels = next(sources)
        top, left = rng.integers(0, np.array(pixels.shape[:2]) - CROP)
        crop = np.ascontiguousarray(pixels[top : top + CROP, left : left + CROP])
        Image.fromarray(crop).save(folder / "images" / f"{k:05d}.png")
    predictor = Predictor(args.model)
    images = find_images([folder / "images"])
    seconds, following = label(predictor, images, args.word, folder / "out", 1.0)
    memory = following.memory
    print(f"{len(images)} images of {CROP} x {CROP} in {seconds:.0f} s")
    for k in sorted({1, WARM, *range(500, len(memory) + 1, 500), len(memory)}):
        if k <= len(memory):
            print(f"after {k} images: {memory[k - 1]:.1f} MiB")
    later = memory[WARM - 1 :]
    slope = float(np.polyfit(np.arange(len(later)), later, 1)[0]) * 1024
    grown = f"{later[-1] - later[0]:+.1f} MiB, {slope:+.2f} KiB per image"
    print(f"from image {WARM} to {len(memory)}: {grown}")


def together(args: argparse.Namespace) -> None:
    """Print what is gained by views that go through the network together."""
    network = Predictor(args.model).window_network([args.word])
    for side in (network.image_size, network.image_size // 2 // 16 * 16):
        views = torch.rand(args.views, 3, side, side, generator=torch.Generator().manual_seed(0))
        singly, at_once = [], []
        for _ in range(1 + args.repeats):
            started = time.process_time()
            one = [network.probabilities(view[None])[0] for view in views]
            singly.append((time.process_time() - started) / args.views)
            started = time.process_time()
            (all_of_them,) = network.probabilities(views)
            at_once.append((time.process_time() - started) / args.views)
        alone, shared = median(singly[1:]), median(at_once[1:])
        apart = float((torch.cat(one) - all_of_them).abs().max())
        print(
            f"{side} x {side}: {alone:.4f} CPU s per view singly, {shared:.4f} of {args.views} "
            f"together ({alone / shared:.2f} times as fast), probabilities differ by {apart:.1e}"
        )


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of images")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--word", default="nucleus")
    parser.add_argument("--zoom", type=float, help="default: chosen for every image")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", type=int, help=f"so many images, more than {WARM}")
    parser.add_argument("--views", type=int, help="so many views of one size, singly and together")
    args = parser.parse_args()
    if args.memory is not None and args.memory <= WARM:
        parser.error(f"--memory must be more than {WARM}")
    with tempfile.TemporaryDirectory() as temporary:
        if args.views is not None:
            together(args)
        else:
            (compare if args.memory is None else remember)(args, Path(temporary))
    if hasattr(os, "getloadavg"):
        print("load average: " + ", ".join(f"{each:.1f}" for each in os.getloadavg()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
