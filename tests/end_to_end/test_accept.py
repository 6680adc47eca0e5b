"""What the plugin's client gives a real backend to keep, also when that backend is killed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from clsclip.errors import BackendError, ConflictError
from clsclip.wire import TOKEN_VARIABLE
from clsclip.wire_annotations import Correction, Details
from napari_clsclip._client import Client

TOKEN = "a-token-for-tests"

Start = Callable[[], tuple[Client, subprocess.Popen[str]]]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start a backend whose store is the same every time."""
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    started: list[tuple[Client, subprocess.Popen[str]]] = []

    def run() -> tuple[Client, subprocess.Popen[str]]:
        command = [sys.executable, "-m", "clsclip.cli.backend", "--device", "cpu",
                   "--store", str(tmp_path / "store")]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        started.append((Client(json.loads(process.stdout.readline())["url"], TOKEN), process))
        return started[-1]

    yield run
    for client, process in started:
        client.close()
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_accepted_corrections_survive_the_death_of_the_backend(start: Start) -> None:
    rng = np.random.default_rng(0)
    client, backend = start()
    image = rng.integers(0, 4000, (60, 50), dtype=np.uint16)
    labels = (image > 2000).astype(np.uint16)
    first = client.accept(Correction(image, labels, ("细胞",), details=Details(scale=(0.2, 0.2))))
    second = client.accept(Correction(image, 1 - labels, ("细胞",)), replaces=first.id)
    backend.kill()
    backend.wait()
    with pytest.raises(BackendError):
        client.accept(Correction(image, labels, ("cell",)))
    client, _ = start()
    found = client.annotations("细胞")
    assert found.annotations == (second,)
    assert (second.lineage, second.version) == (first.id, 2)
    assert found.words == {"细胞": 1}
    with pytest.raises(ConflictError, match="somebody else"):
        client.accept(Correction(image, labels, ("细胞",)), replaces=first.id)
