"""A pytest plugin: which tests have ended, and how, for the file that ``TEST_OUTCOMES`` names."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Of several processes, the first one hears of every test, and writes."""
    name = os.environ.get("TEST_OUTCOMES")
    if not name or "PYTEST_XDIST_WORKER" in os.environ:
        return
    # xdist writes "???" for a test that took its process along
    ended = report.when in ("teardown", "???") or report.outcome != "passed"
    if ended:
        line = {"test": report.nodeid, "when": report.when, "outcome": report.outcome}
        with Path(name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
