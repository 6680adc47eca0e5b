"""Kill napari at random moments while somebody paints, and read what is offered again.

    xvfb-run -a python benchmarks/kills_napari.py --kills 50

A napari process with a result of the plugin paints one stroke after the other with the mouse, each
with a label of its own, and is killed with SIGKILL. What the next napari would offer is read: no
file may be corrupt, and every stroke that had ended ``--grace`` seconds before the kill must be
there, pixel by pixel. By default that is what is promised, while somebody paints on and on: see
``LONGEST_SECONDS`` of the journal; and a second to write it.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from clsclip.errors import ClsClipError
from clsclip.wire import TOKEN_VARIABLE
from napari_clsclip._connection import URL_VARIABLE
from napari_clsclip._unsaved_files import FOLDER_VARIABLE, dead_sessions
from napari_clsclip._unsaved_journal import LONGEST_SECONDS

NOWHERE = "http://127.0.0.1:1"
TESTS = Path(__file__).parents[1] / "tests"
FIRST = 100
"""Label of the first stroke."""

PAUSES = (0.1, 12.0)
"""Seconds of painting before a kill, at random."""

PAINT = f"""
import sys, time
sys.path.insert(0, {str(TESTS)!r})
import numpy as np
from paint_in_napari import PLANE, SHAPE, Painting, settle
painting = Painting()
rng = np.random.default_rng(int(sys.argv[2]))
print("ready", flush=True)
for number in range(1000):
    label = {FIRST} + number
    painting.labels.selected_label = label
    row, column = rng.uniform(60, SHAPE[1] - 60), rng.uniform(60, SHAPE[2] - 200)
    painting.stroke((row, column), (row + rng.uniform(-40, 40), column + rng.uniform(20, 140)))
    ended = time.monotonic()
    np.save(sys.argv[1] + f"/{{label}}.npy", painting.labels.data[PLANE])
    print(label, ended, flush=True)
    settle(rng.uniform(0, 1.5))
"""


@dataclass(frozen=True)
class Killed:
    """What became of the strokes of one process.

    Attributes
    ----------
    strokes : int
        That had ended when it was killed.
    due : int
        Of these, those that had to be on disk.
    lost : list of str
        What is wrong with them.
    late : float
        Seconds before the kill at which the newest stroke ended that is on disk.
    """

    strokes: int
    due: int
    lost: list[str]
    late: float


def paint_and_kill(folder: Path, seed: int, seconds: float, grace: float) -> Killed:
    """Let a process paint for some seconds, kill it, and read what it left."""
    unsaved, states = folder / "unsaved", folder / "states"
    states.mkdir()
    environment = {
        **os.environ, URL_VARIABLE: NOWHERE, TOKEN_VARIABLE: "none", FOLDER_VARIABLE: str(unsaved)
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-c", PAINT, str(states), str(seed)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
    )  # fmt: skip
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        raise SystemExit(f"napari ended with {process.wait()}")
    time.sleep(seconds)
    process.kill()
    killed = time.monotonic()
    process.wait()
    lines = [line.split() for line in process.stdout.read().splitlines()]
    process.stdout.close()
    strokes = {int(label): killed - float(ended) for label, ended in lines}
    return _compare(unsaved, states, strokes, grace)


def _compare(unsaved: Path, states: Path, strokes: dict[int, float], grace: float) -> Killed:
    due = [label for label, age in strokes.items() if age >= grace]
    lost: list[str] = []
    plane = None
    for session in dead_sessions(unsaved):
        for kept in session.entries():
            try:
                about = kept.read_about()
                if about is not None:
                    plane = kept.read(about)[0][1]
            except ClsClipError as error:
                lost.append(error.message)
        session.release()
    if plane is None:
        return Killed(len(strokes), len(due), [*lost, *map(str, due)], float("inf"))
    there = [label for label in strokes if (plane == label).any()]
    if due:
        expected = np.load(states / f"{max(due)}.npy")
        newer = plane > max(due)  # painted over by later strokes
        lost += [
            f"stroke {label}: {int(wrong)} pixels"
            for label in due
            if (wrong := ((expected == label) & (plane != label) & ~newer).sum())
        ]
    late = min((strokes[label] for label in there), default=float("inf"))
    return Killed(len(strokes), len(due), lost, late)


def main() -> int:
    """Print a table; 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--grace", type=float, default=LONGEST_SECONDS + 1, help="Seconds a stroke may be behind."
    )
    args = parser.parse_args()
    chance = random.Random(args.seed)
    outcomes = []
    for number in range(args.kills):
        with tempfile.TemporaryDirectory() as folder:
            seconds = chance.uniform(*PAUSES)
            outcomes.append(paint_and_kill(Path(folder), number, seconds, args.grace))
    lost = [text for outcome in outcomes for text in outcome.lost]
    behind = [outcome.late for outcome in outcomes if outcome.due]
    rows = {
        "kills of napari": len(outcomes),
        "strokes that had ended": sum(outcome.strokes for outcome in outcomes),
        f"strokes that had ended {args.grace} s before": sum(each.due for each in outcomes),
        "of these lost or corrupt": len(lost),
        "newest stroke on disk, seconds before the kill (median)": round(median(behind), 2),
    }
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:{width}}  {value}")
    for text in lost:
        print(text)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
