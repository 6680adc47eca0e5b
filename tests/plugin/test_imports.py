"""The plugin lives in napari's process, which must not load the models' libraries."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "clsclip.model", "clsclip.predict", "fastapi")


@pytest.mark.parametrize("module", ["_widget", "_sample_data"])
def test_plugin_loads_no_model_library(module: str) -> None:
    code = f"""
import sys, warnings
import napari_clsclip.{module}
loaded = [name for name in {HEAVY} if name in sys.modules]
sys.exit(f"loaded: {{loaded}}" if loaded else 0)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "module",
    [
        "_layers", "_predicted_plane", "_supervisor", "_segment_job", "_drawn_boxes",
        "_object_planes", "_large_job",
    ],
)  # fmt: skip
def test_logic_loads_neither_qt_nor_napari(module: str) -> None:
    code = f"""
import sys
import napari_clsclip.{module}
loaded = [name for name in ("qtpy", "PySide6", "napari", "torch") if name in sys.modules]
sys.exit(f"loaded: {{loaded}}" if loaded else 0)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
