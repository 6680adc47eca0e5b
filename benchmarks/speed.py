"""Time to load a model, time per image, and memory of the backend process.

    python benchmarks/speed.py --model mini

Times are medians. Loading is the model's alone, in a process that has imported PyTorch and
transformers. Memory is the peak of a process that has loaded the model and segmented one image by
itself: what a backend needs, less its HTTP service.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np


def load_seconds(model: str) -> float:
    """Time to load a model in a process that has imported PyTorch and transformers already."""
    code = (
        "import time, transformers.models.clip, clsclip.predict.predictor as p\n"
        f"s = time.perf_counter(); p.Predictor({model!r}); print(time.perf_counter() - s)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def segment_seconds(model: str, side: int, zoom: float | None, repeats: int) -> tuple[float, ...]:
    """Time of one word on one image (side x side pixels), for every repeat."""
    from skimage.data import immunohistochemistry
    from skimage.transform import resize

    from clsclip import Predictor

    image = (255 * resize(immunohistochemistry(), (side, side))).astype(np.uint8)
    predictor = Predictor(model)
    predictor.segment(image, ["nucleus"], zoom=zoom)
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        predictor.segment(image, ["nucleus"], zoom=zoom)
        times.append(time.perf_counter() - started)
    return tuple(times)


def resident_megabytes(model: str, side: int) -> float:
    """Memory of a process that has loaded a model and segmented one image."""
    code = (
        "import numpy as np; from clsclip import Predictor\n"
        f"p = Predictor({model!r}); i = np.random.default_rng(0).integers(0, 255, ({side},) * 2)\n"
        "p.segment(i.astype(np.uint8), ['nucleus'])\n"
        "print(open('/proc/self/status').read())"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    peak = re.search(r"VmHWM:\s+(\d+)", done.stdout)
    return int(peak[1]) / 1024 if peak else float("nan")


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    loads = [load_seconds(args.model) for _ in range(3)]
    print(f"loading: {median(loads):.2f} s")
    from clsclip.model.description import describe_model
    from clsclip.model.registry import find_model

    size = describe_model(find_model(args.model)).image_size
    for name, zoom in (
        ("one look at the whole image", size / args.side),
        ("automatic zoom", None),
        ("zoom 1", 1.0),
    ):
        times = segment_seconds(args.model, args.side, zoom, args.repeats)
        print(f"{args.side} x {args.side}, one word, {name}: {median(times):.3f} s")
    if Path("/proc/self/status").exists():
        print(f"peak memory: {resident_megabytes(args.model, args.side):.0f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
