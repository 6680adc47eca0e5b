"""How long an annotation store takes to add, list, read and rank, with many annotations in it.

    python benchmarks/store.py --annotations 10000

Annotations of 128 x 128 pixels are added to a new store in a temporary folder; with
``--database URL`` to that database (its tables must be empty). 1,000 images
are ranked beside as many accepted ones as the backend compares with.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np

from clsclip.ranking import Candidate, rank
from clsclip.store.store import AnnotationStore
from clsclip.wire_annotations import Correction
from clsclip.wire_ranking import NEWEST

SIDE = 128
WORDS = ("nucleus", "cell", "membrane", "filament", "vessel")
REPEATS = 7
PAGE = 50
RANKED = 1000
FEATURES = 256
"""Channels of an embedding by the bundled model."""


def corrections(count: int) -> Iterator[Correction]:
    """Different images with different labels of one of five words each."""
    rng = np.random.default_rng(0)
    for number in range(count):
        image = rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
        labels = (image > 128).astype(np.uint8)
        yield Correction(image, labels, (WORDS[number % len(WORDS)],))


def candidates(count: int) -> list[Candidate[int]]:
    """Images with random expectations and looks."""
    rng = np.random.default_rng(1)
    looks = rng.normal(size=(count, FEATURES)).astype(np.float32)
    looks /= np.linalg.norm(looks, axis=1, keepdims=True)
    return [Candidate(k, (rng.random(),), each) for k, each in enumerate(looks)]


def milliseconds(call: Callable[[], object]) -> float:
    """Median time of some calls."""
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return 1000 * median(times)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--annotations", type=int, default=10_000)
    parser.add_argument("--database", default="")
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        AnnotationStore(Path(folder), args.database) as store,
    ):
        started = time.perf_counter()
        for correction in corrections(args.annotations):
            store.add(correction)
        each = (time.perf_counter() - started) / args.annotations
        print(f"add one: {1000 * each:.1f} ms (mean of {args.annotations})")
        listed = store.list()
        image = store.read(listed[-1]).image
        ranked, known = candidates(RANKED), candidates(NEWEST)
        accepted = np.stack([each.embedding for each in known])
        for name, call in (
            ("open", lambda: AnnotationStore(Path(folder), args.database).close()),
            ("count", lambda: len(store)),
            (f"list the newest {PAGE}", lambda: store.list(limit=PAGE)),
            (f"list {PAGE} from the middle", lambda: store.list(offset=len(listed) // 2, limit=50)),
            (f"list {PAGE} of one word", lambda: store.list(word="vessel", limit=PAGE)),
            ("list all", store.list),
            ("words with their counts", store.words),
            ("read the arrays of one", lambda: store.read(listed[len(listed) // 3])),
            ("look whether an image is accepted", lambda: store.has_image(image)),
            (f"rank {RANKED} images", lambda: rank(ranked, accepted)),
        ):
            print(f"{name}: {milliseconds(call):.1f} ms")


if __name__ == "__main__":
    main()
