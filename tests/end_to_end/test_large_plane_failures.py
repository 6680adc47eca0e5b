"""What cannot be had or written of a plane that is too large for one request, in a real window."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from filelock import FileLock
from napari.utils.notifications import notification_manager
from pytestqt.qtbot import QtBot

from large_plane import (
    BLOCKS,
    SHAPE,
    Dock,
    ask,
    files,
    finest,
    finish,
    opened,
    segment,
    small_limit,
    start,
)
from napari_clsclip._connection import BackendConnection
from napari_clsclip._large_settings import RESULTS_VARIABLE
from napari_clsclip._scope import Scope
from small_disk import mounted


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return small_limit(tmp_path, monkeypatch)


def test_what_cannot_be_had_is_told_and_the_visible_region_can_be_painted(
    dock: Dock, qtbot: QtBot
) -> None:
    viewer, tab, plane = opened(dock, show=True)
    tab.objects.setChecked(True)
    text = segment(tab, qtbot)
    assert 'napari-clsclip-label IMAGE --words "nucleus" --instances --output FOLDER' in text
    tab.objects.setChecked(False)
    tab.options.regions.setCurrentText("tiles")
    assert "Regions and boxes cannot be used for a plane of 1,500 x 1,200" in segment(tab, qtbot)
    tab.options.regions.setCurrentText("none")
    tab.scope.scope = Scope.ALL
    assert "scope This plane, which goes block by block" in segment(tab, qtbot)
    assert plane.computed == []
    tab.scope.scope = Scope.REGION
    viewer.scene.camera.center = (0, 700, 600)
    viewer.scene.camera.zoom = 4
    assert "of the plane" in segment(tab, qtbot)
    region = viewer.layers["nucleus"]
    assert region.editable
    assert region.data.shape < SHAPE
    region.paint((5, 5), 1)


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file system of 40 megabytes for the results."""
    with mounted(tmp_path / "disk", megabytes=40) as folder:
        monkeypatch.setenv(RESULTS_VARIABLE, str(folder))
        yield folder


def fill_up(file: Path) -> None:
    """Write a file until the disk is full."""
    with file.open("wb", buffering=0) as stream, suppress(OSError):
        while True:
            stream.write(bytes(4096))


def test_a_disk_that_is_full_before_or_during_a_run(
    dock: Dock, qtbot: QtBot, small_disk: Path, connection: BackendConnection
) -> None:
    viewer, tab, _ = opened(dock, seconds=0.02)
    other = small_disk / "other"
    other.write_bytes(bytes(20 * 2**20))
    text = segment(tab, qtbot)
    assert "The labels of this plane may take 32 MiB" in text
    assert "20 MiB are free there. Free some space, or name another folder in" in text
    assert text in [record.message for record in notification_manager.records]
    other.unlink()
    start(tab, qtbot, 1)
    fill_up(other)
    text = finish(tab, qtbot)
    assert "No space left on device" in text
    kept = int(re.search(rf"(\d) of {BLOCKS} blocks are finished and kept", text)[1])
    assert 1 <= kept < BLOCKS
    other.unlink()
    text = segment(tab, qtbot)
    assert f"{BLOCKS} blocks segmented ({kept} of them before)" in text
    direct = ask(connection, tab).labels(0.5)
    assert (finest(viewer.layers["nucleus"]) != direct).mean() < 1e-4


def test_a_folder_that_cannot_be_written_or_is_in_use(
    dock: Dock, qtbot: QtBot, tmp_path: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer, tab, _ = opened(dock)
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv(RESULTS_VARIABLE, str(tmp_path / "file" / "results"))
    text = segment(tab, qtbot)
    assert "cannot be written" in text
    assert "Name another one in the environment variable NAPARI_CLSCLIP_RESULTS" in text
    monkeypatch.setenv(RESULTS_VARIABLE, str(results))
    start(tab, qtbot, 1)
    tab.cancel_button.click()
    (file,) = files(results)
    monkeypatch.setattr("napari_clsclip._large_labels.LOCK_SECONDS", 1.0)
    with FileLock(results / f".{file.name}.lock"):
        assert "is being written by another napari" in segment(tab, qtbot)
    (file / "zarr.json").write_text("{")
    assert "is damaged" in segment(tab, qtbot)
    assert len(viewer.layers) == 2
