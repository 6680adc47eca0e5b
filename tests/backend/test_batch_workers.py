"""Labelling in several processes and on a Dask cluster; some of them die."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from clsclip.batch.inputs import InputImage
from clsclip.batch.manifest import Manifest, ManifestRow
from clsclip.batch.task import LabelTask
from clsclip.batch.workers import Pool, next_number
from clsclip.cli.label import main
from clsclip.cli.label_progress import LabelProgress
from waiting import eventually


@pytest.fixture
def arguments(tmp_path: Path, tiny_model: Path, rng: np.random.Generator) -> list[str]:
    """Nine images, one of them damaged; 400 rows, so that there are several looks at each."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "abcdefgh":
        pixels = rng.integers(0, 255, (400, 300, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    (folder / "bad.png").write_text("no image")
    return [
        str(folder), "--words=nucleus, cell", "--threshold=0.4", f"--model={tiny_model}",
        "--device=cpu", "--format=png", "--zoom=1",
    ]  # fmt: skip


def label_differences(one: Path, other: Path) -> float:
    """Part of the pixels that differ: threads add up in another order."""
    parts = []
    for file in sorted((one / "png").iterdir()):
        with Image.open(file) as mine, Image.open(other / "png" / file.name) as theirs:
            parts.append(float(np.mean(np.asarray(mine) != np.asarray(theirs))))
    assert len(parts) == 8
    return max(parts)


def check(output: Path, alone: Path) -> None:
    """All images are labelled, once each, in their order, as in one process."""
    rows = list(Manifest(output).read().values())
    assert [row.file.stem for row in rows] == ["a", "b", "bad", *"cdefgh"]
    assert [row.file.stem for row in rows if row.status == "failed"] == ["bad"]
    assert (output / "manifest.csv").read_text().count("\n") == 10
    assert label_differences(output, alone) < 0.001


@pytest.fixture
def alone(arguments: list[str], tmp_path: Path) -> Path:
    """What one process makes of the images."""
    output = tmp_path / "alone"
    assert main([*arguments, "--output", str(output)]) == 1
    return output


@pytest.mark.slow
def test_two_processes_label_as_one_does(
    arguments: list[str], tmp_path: Path, alone: Path, on_row: Callable[[Callable[[], None]], None]
) -> None:
    workers = set[int]()

    def count() -> None:
        for child in psutil.Process().children():
            if "spawn_main" in " ".join(child.cmdline()):
                workers.add(child.pid)

    on_row(count)
    output = tmp_path / "out"
    assert main([*arguments, "--workers", "2", "--output", str(output)]) == 1
    assert len(workers) == 2
    check(output, alone)
    assert not any(psutil.pid_exists(pid) for pid in workers)


@pytest.mark.slow
def test_a_cluster_labels_although_a_worker_is_lost(
    arguments: list[str], tmp_path: Path, alone: Path
) -> None:
    distributed = pytest.importorskip("distributed")
    output = tmp_path / "out"
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None,
        local_directory=str(tmp_path), silence_logs=50,
    ) as cluster:  # fmt: skip
        options = ["--scheduler", cluster.scheduler_address, "--output", str(output)]
        codes = list[int]()
        run = threading.Thread(target=lambda: codes.append(main([*arguments, *options])))
        run.start()
        states = cluster.scheduler.workers
        eventually(lambda: len(states) == 2 and all(each.processing for each in states.values()))
        lost = next(iter(cluster.workers.values())).pid
        os.kill(lost, signal.SIGKILL)
        run.join(300)
        assert codes == [1]
        assert not psutil.pid_exists(lost)
    check(output, alone)


def test_workers_have_numbers_of_their_own() -> None:
    begun = multiprocessing.get_context("spawn").Value("i", 0)
    with ThreadPoolExecutor(8) as threads:
        numbers = list(threads.map(lambda _: next_number(begun), range(50)))
    assert sorted(numbers) == list(range(50))


class FragilePool(ThreadPoolExecutor):
    """Stands in for processes: whatever labels one of some images dies, and the others with it."""

    def __init__(self, deadly: set[str]) -> None:
        super().__init__(2)
        self._deadly, self._broken = deadly, False

    def submit(  # type: ignore[override]
        self, call: object, image: InputImage, *arguments: object
    ) -> Future[ManifestRow]:
        return super().submit(self._label, image)

    def _label(self, image: InputImage) -> ManifestRow:
        time.sleep(0.005)
        self._broken = self._broken or image.key in self._deadly
        if self._broken:
            raise BrokenProcessPool("died")
        return ManifestRow(image.file, "done", 1.0)


class Fragile(Pool):
    def __init__(self, deadly: set[str]) -> None:
        super().__init__(None)
        self.deadly = deadly

    @contextmanager
    def executor(self) -> Iterator[Executor]:
        with FragilePool(self.deadly) as pool:
            yield pool

    def places(self, executor: Executor) -> int:
        return 2


def test_an_image_that_kills_its_process_is_found_out_and_only_that_one_fails(
    tmp_path: Path,
) -> None:
    images = [InputImage(Path(f"{name}.png"), name) for name in "abcdefgh"]
    task = LabelTask(tmp_path, ("cell",), "tiny", "0")
    rows = list[ManifestRow]()
    watch = LabelProgress(len(images), None)
    Fragile({"b", "f"}).label(images, task, record=rows.append, watch=watch, fail_fast=False)
    assert sorted(str(row.file) for row in rows) == [str(image.file) for image in images]
    failed = [row for row in rows if row.status == "failed"]
    assert {row.file.stem for row in failed} == {"b", "f"}
    assert all("died, perhaps because memory ran out" in row.error for row in failed)
    rows.clear()
    Fragile({"a"}).label(images, task, record=rows.append, watch=watch, fail_fast=True)
    assert [(row.file.stem, row.status) for row in rows if row.status == "failed"] == [
        ("a", "failed")
    ]


def test_a_cluster_that_cannot_be_had_says_why(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    arguments += ["--output", str(tmp_path / "out"), "--scheduler", "tcp://127.0.0.1:9"]
    assert main([*arguments, "--workers", "2"]) == 2
    assert "Leave one of them out" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert main(arguments) == 2
    assert "napari-clsclip[cluster]" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_no_thread_is_left() -> None:
    assert not [each for each in threading.enumerate() if each.name.startswith(("read", "write"))]
