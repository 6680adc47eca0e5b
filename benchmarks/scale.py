"""Speed and memory of the command line on a very large image, beside a small one.

    python benchmarks/scale.py --zoom 0.25

A zarr of SIDE x SIDE pixels and some of SMALL x SMALL are generated, both full of bright round
nuclei, and labelled by ``napari-clsclip-label`` in processes of their own. The time of an image is
what the command writes into its manifest, without loading the model; the CPU time is the process's,
less that of a process which only loads the model, and so knows nothing of what else the machine
does. Memory is the peak of resident memory above such a process. The small images are labelled
before and after the large one, and the median is taken, because machines do not stay as they are.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import zarr
from numpy.typing import NDArray

CELL = 40
"""Pixels from one nucleus to the next."""


@dataclass(frozen=True)
class Run:
    """What a process took: CPU seconds, and MiB of resident memory at its peak."""

    cpu: float
    memory: float


def nuclei(rows: slice, columns: slice, seed: int) -> NDArray[np.uint8]:
    """A part of an endless image of bright disks of 12 to 30 pixels across, and noise."""
    y = np.arange(rows.start, rows.stop, dtype=np.int64)[:, None]
    x = np.arange(columns.start, columns.stop, dtype=np.int64)[None]
    image = np.full((y.size, x.size), 15.0, np.float32)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            cell = (y // CELL + down) * 1_000_003 + (x // CELL + right) * 7_919 + seed
            number = (cell * 2_654_435_761) & 0xFFFFFFFF
            row = (y // CELL + down + 0.2 + 0.6 * (number & 255) / 255) * CELL
            column = (x // CELL + right + 0.2 + 0.6 * (number >> 8 & 255) / 255) * CELL
            radius = 6 + 9 * (number >> 16 & 255) / 255
            inside = np.hypot(y - row, x - column) < radius
            image = np.where(inside, 90 + (number >> 24 & 127), image)
    noise = np.random.default_rng((seed, rows.start, columns.start)).normal(0, 5, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def generate(path: Path, side: int, seed: int) -> None:
    """Write a zarr of nuclei, chunk by chunk."""
    array = zarr.create_array(path, shape=(side, side), chunks=(1000, 1000), dtype="u1")
    for top in range(0, side, 1000):
        for left in range(0, side, 1000):
            part = slice(top, min(top + 1000, side)), slice(left, min(left + 1000, side))
            array[part] = nuclei(*part, seed)


def measured(arguments: list[str]) -> Run:
    """Run Python with arguments, and measure that process."""
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{arguments} ended with {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Run(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit / 2**20)


def label(inputs: list[Path], output: Path, options: list[str]) -> tuple[Run, list[float]]:
    """Label images by the command line: the process, and the seconds of every image."""
    arguments = ["-m", "clsclip.cli.label", *map(str, inputs), "--output", str(output), *options]
    run = measured(arguments)
    with (output / "manifest.csv").open(newline="") as stream:
        return run, [float(row["seconds"]) for row in csv.DictReader(stream)]


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--word", default="nucleus")
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--small", type=int, default=2_000)
    parser.add_argument("--repeats", type=int, default=4, help="small images before, and after")
    parser.add_argument("--zoom", type=float, help="default: chosen for every image")
    parser.add_argument("--folder", type=Path, help="for the images; kept and used again")
    args = parser.parse_args()
    options = ["--model", args.model, "--words", args.word]
    options += [] if args.zoom is None else ["--zoom", str(args.zoom)]
    with tempfile.TemporaryDirectory() as temporary:
        folder, outputs = args.folder or Path(temporary), Path(temporary)
        large = folder / f"large-{args.side}.zarr"
        small = [folder / f"small-{args.small}-{k}.zarr" for k in range(args.repeats + 1)]
        for seed, (path, side) in enumerate(
            [(large, args.side), *((path, args.small) for path in small)]
        ):
            if not path.exists():
                generate(path, side, seed)
        idle = measured(["-c", f"from clsclip import Predictor; Predictor({args.model!r})"])
        before, seconds = label(small, outputs / "before", options)
        run, (large_seconds,) = label([large], outputs / "large", options)
        after, more = label(small, outputs / "after", options)
    megapixels, small_megapixels = args.side**2 / 1e6, args.small**2 / 1e6
    # the first image of a process warms it up
    speed = small_megapixels / median(seconds[1:] + more[1:])
    large_speed = megapixels / large_seconds
    cpu = (before.cpu + after.cpu - 2 * idle.cpu) / (2 * len(small) * small_megapixels)
    large_cpu = (run.cpu - idle.cpu) / megapixels
    print(f"{args.side} x {args.side}: {large_speed:.3f} megapixels/s in {large_seconds:.0f} s")
    print(f"{args.small} x {args.small}: {speed:.3f} megapixels/s")
    print(f"speed of the large image: {large_speed / speed:.3f} of the small one's")
    print(
        f"CPU seconds per megapixel: {large_cpu:.3f}, small {cpu:.3f}, {large_cpu / cpu:.3f} of it"
    )
    print(
        f"peak memory above a loaded model ({idle.memory:.0f} MiB): large "
        f"{run.memory - idle.memory:.0f} MiB, small {before.memory - idle.memory:.0f} MiB"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
