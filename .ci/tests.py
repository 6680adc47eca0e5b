"""Run the tests: those of the backend in a process per core, then those that open windows.

The latter measure how long the window stands still, so that nothing may run beside them. With
arguments, this is pytest with these arguments.
"""

from __future__ import annotations

import os
import subprocess
import sys

PYTEST = (sys.executable, "-m", "pytest")
PARTS = (
    ("tests/backend", "-n", "logical", "--dist", "loadfile"),
    ("tests/plugin", "tests/end_to_end"),
)


def main() -> int:
    """Run them; the highest exit code."""
    if len(sys.argv) > 1:
        return subprocess.call([*PYTEST, *sys.argv[1:]])
    beside_each_other = {**os.environ, "OMP_NUM_THREADS": "1"}  # they share the cores already
    codes = [
        subprocess.call([*PYTEST, *PARTS[0]], env=beside_each_other),
        subprocess.call([*PYTEST, *PARTS[1]]),
    ]
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
