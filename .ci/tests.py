"""Run the tests in a process per core. With arguments, this is pytest with these arguments.

Each process draws its windows on a display of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys

PYTEST = (sys.executable, "-m", "pytest")
ALL = (
    "-n", "logical", "--dist", "loadfile", "--durations", "40",
    "tests/backend", "tests/end_to_end", "tests/plugin",
)  # fmt: skip


def main() -> int:
    """Run them; pytest's exit code."""
    if len(sys.argv) > 1:
        return subprocess.call([*PYTEST, *sys.argv[1:]])
    # what they start shares the cores already
    return subprocess.call([*PYTEST, *ALL], env={**os.environ, "OMP_NUM_THREADS": "1"})


if __name__ == "__main__":
    sys.exit(main())
