"""Fixtures for all tests: small models, real images, the shared data where it is there."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test waits for a network
# Tests and the backends that they start share the cores: who waits must not keep them busy.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def versions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder of the versions of a model, instead of that of whoever runs the tests.

    So is that of the batches.
    """
    folder = tmp_path_factory.mktemp("versions")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAPARI_CLSCLIP_VERSIONS", str(folder))
        patch.setenv("NAPARI_CLSCLIP_BATCHES", str(tmp_path_factory.mktemp("batches")))
        yield folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with small random weights: real code paths, meaningless masks.

    A process of its own makes it, because a test process that has drawn a window with Mesa's
    software OpenGL may crash when it imports torch (both bring an LLVM).
    """
    path = tmp_path_factory.mktemp("models") / "tiny"
    script = Path(__file__).with_name("make_tiny_model.py")
    subprocess.run([sys.executable, str(script), str(path)], check=True, timeout=300)
    return path


@pytest.fixture(autouse=True)
def unsaved_folder(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Where napari keeps unsaved corrections: not where the user's are, and not those of others."""
    folder = tmp_path_factory.getbasetemp() / f"unsaved-{uuid.uuid4().hex}"
    monkeypatch.setenv("NAPARI_CLSCLIP_UNSAVED", str(folder))
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    """Seeded random numbers."""
    return np.random.default_rng(0)


@pytest.fixture
def shared_data() -> Path:
    """The folder of reference data; tests that need it are skipped where it is missing."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the reference data is not at {SHARED_DATA}")
    return SHARED_DATA
