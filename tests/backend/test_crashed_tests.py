"""What ``.ci/tests.py`` does where a test takes its process along."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CI = Path(__file__).parents[2] / ".ci"
CRASHING = """
import os, pathlib
def test_before(): pass
def test_crash():
    once = pathlib.Path("crashed")
    if not once.exists():
        once.touch()
        os._exit(3)
    assert {passes}
def test_after(): pass
"""


@pytest.mark.parametrize(("passes", "code"), [(True, 0), (False, 1)])
def test_the_tests_that_are_left_run_once_more(tmp_path: Path, passes: bool, code: int) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_crashing.py").write_text(CRASHING.format(passes=passes))
    (tmp_path / "test_other.py").write_text("def test_other(): pass\n")
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import tests; sys.exit(tests.run(['.']))"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    environment |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "-p xdist.plugin"}
    ended = subprocess.run(
        [sys.executable, "-c", program, str(CI)], cwd=tmp_path, env=environment,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == code, ended.stdout + ended.stderr
    assert "A process crashed in test_crashing.py::test_crash" in ended.stdout
    first, last = ended.stdout.split(" tests once more.")
    # of four tests: the one before the crash has ended, the one of the other file may have
    assert first[-1] in "23"
    assert ("1 failed" in last) == (not passes)
