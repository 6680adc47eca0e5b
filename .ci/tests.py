"""Run the tests in a process per core. With arguments, this is pytest with these arguments.

Each process draws its windows on a display of its own. Where one of them crashes, as a window
library may, the tests that are left are run once more, the one that crashed among them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

PYTEST = (sys.executable, "-m", "pytest")
BESIDE = ("-n", "logical", "--dist", "loadfile", "--durations", "40")
FOLDERS = ("tests/backend", "tests/end_to_end", "tests/plugin")


def run(tests: Sequence[str]) -> int:
    """Run tests, and once more those that a crash has kept from ending.

    A process that crashed is not replaced: pytest-xdist 3.8 may wait for ever after that.

    Parameters
    ----------
    tests : sequence of str
        What pytest is to run.

    Returns
    -------
    int
        Exit code of pytest; not 0 if a test failed before the crash.
    """
    with tempfile.TemporaryDirectory() as folder:
        outcomes = Path(folder) / "outcomes.jsonl"
        code = _pytest([*BESIDE, *tests], outcomes)
        if code == 0 or not outcomes.exists():
            return code
        ended = [json.loads(line) for line in outcomes.read_text("utf-8").splitlines()]
        crashed = {each["test"] for each in ended if each["when"] == "???"}
        if not crashed:
            return code
        over = {each["test"] for each in ended} - crashed
        failed = {each["test"] for each in ended if each["outcome"] == "failed"} - crashed
        listed = subprocess.run(
            [*PYTEST, "--collect-only", "-q", *tests],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        every = [line for line in listed.stdout.splitlines() if "::" in line]
        left = [test for test in every if test not in over]
        told = f"\nA process crashed in {', '.join(sorted(crashed))}"
        print(f"{told}: {len(left)} tests once more.", flush=True)
        (Path(folder) / "left").write_text("\n".join(left), "utf-8")
        again = _pytest([*BESIDE, f"@{Path(folder) / 'left'}"], None) if left else code
    if failed:
        print(f"\nBefore the crash failed: {', '.join(sorted(failed))}")
    return again or int(bool(failed))


def _pytest(arguments: Sequence[str], outcomes: Path | None) -> int:
    own = ["-p", "outcomes", "--max-worker-restart", "0"]
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",  # what the tests start shares the cores already
        "PYTHONPATH": os.pathsep.join(paths),
        "TEST_OUTCOMES": str(outcomes or ""),
    }
    return subprocess.call([*PYTEST, *own, *arguments], env=environment)


def main() -> int:
    """Run them; pytest's exit code."""
    if len(sys.argv) > 1:
        return subprocess.call([*PYTEST, *sys.argv[1:]])
    return run(FOLDERS)


if __name__ == "__main__":
    sys.exit(main())
