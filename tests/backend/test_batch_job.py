"""A batch as a job: what others see of it, and how they pause and end it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image
from tifffile import imwrite

from clsclip.batch.manifest import Manifest
from clsclip.cli.label import main
from clsclip.model.files import read_json
from clsclip.model.run_state import OUTCOME_FILE, RunState, read_state
from waiting import eventually


@pytest.fixture
def arguments(tmp_path: Path, tiny_model: Path, rng: np.random.Generator) -> list[str]:
    """A job of four images, one of them damaged."""
    folder = tmp_path / "in"
    (folder / "more").mkdir(parents=True)
    for name in ("a", "c", "more/d"):
        pixels = rng.integers(0, 255, (200, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    (folder / "b.png").write_text("no image")
    return [
        str(folder), "--recursive", "--words=nucleus, cell", "--threshold", "0.4",
        f"--model={tiny_model}", f"--output={tmp_path / 'out'}", f"--job={tmp_path / 'job'}",
        "--overwrite", "--no-instances",
    ]  # fmt: skip


FURTHER = 8


@pytest.fixture
def many(arguments: list[str], tmp_path: Path) -> list[str]:
    """The same with further images: more than are under way when the first one is written."""
    for number in range(FURTHER):
        copy = tmp_path / "in" / "more" / f"{number}.png"
        copy.write_bytes((tmp_path / "in" / "a.png").read_bytes())
    return arguments


def state(tmp_path: Path) -> RunState:
    found = read_json(tmp_path / "job" / OUTCOME_FILE, RunState)
    assert found is not None
    return found


def test_others_see_files_pictures_and_how_it_ended(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job, folder = tmp_path / "job", tmp_path / "in"
    assert main(arguments) == 1
    files = [("a.png", "a"), ("b.png", "b"), ("c.png", "c"), ("more/d.png", "more/d")]
    assert json.loads((job / "files.json").read_text()) == [
        {"file": str(folder / name), "key": key} for name, key in files
    ]
    assert {file.name for file in (job / "thumbnails").iterdir()} == {"0.png", "2.png", "3.png"}
    with Image.open(job / "thumbnails" / "2.png") as picture:
        assert (picture.size, picture.mode) == ((25, 100), "RGB")
    told = capsys.readouterr()
    assert "\n2 of 4: b.png failed\n3 of 4: c.png labelled\n" in told.out
    assert "b.png: " in told.err
    found = read_state(job)
    assert found is not None
    assert (found.state, found.reason) == ("done", "")
    assert found.seconds > 0
    # it goes on with its own files, although it was told to overwrite, and others are there now
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes())
    (folder / "0.png").write_bytes((folder / "a.png").read_bytes())
    before = (tmp_path / "out" / "a.tif").stat().st_mtime_ns
    assert main(arguments) == 0
    assert (tmp_path / "out" / "a.tif").stat().st_mtime_ns == before
    assert len(Manifest(tmp_path / "out").read()) == 4
    assert (job / "thumbnails" / "1.png").exists()
    assert state(tmp_path).seconds > found.seconds
    # another job with the same words begins anew
    other = [each.replace(str(job), str(tmp_path / "another")) for each in arguments]
    assert main(other) == 0
    assert len(Manifest(tmp_path / "out").read()) == 5
    assert (tmp_path / "out" / "a.tif").stat().st_mtime_ns != before


def test_a_pause_begins_after_the_present_file_and_does_not_count(
    many: list[str], tmp_path: Path, on_row: Callable[[Callable[[], None]], None]
) -> None:
    pause = tmp_path / "job" / "pause"
    on_row(pause.touch)
    codes = list[int]()
    thread = threading.Thread(target=lambda: codes.append(main(many)))
    thread.start()
    eventually(pause.exists)
    time.sleep(1.0)
    rows = len(Manifest(tmp_path / "out").read())
    before = state(tmp_path)
    assert 1 <= rows < 4 + FURTHER
    time.sleep(0.6)
    assert len(Manifest(tmp_path / "out").read()) == rows
    assert (state(tmp_path).state, state(tmp_path).seconds) == ("running", before.seconds)
    pause.unlink()
    thread.join(60)
    assert codes == [1]
    assert len(Manifest(tmp_path / "out").read()) == 4 + FURTHER


def test_a_cancelled_job_keeps_what_is_done_and_goes_on(
    many: list[str], tmp_path: Path, on_row: Callable[[Callable[[], None]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    cancel = tmp_path / "job" / "cancel"
    on_row(cancel.touch)
    assert main(many) == 130
    assert "The same command goes on" in capsys.readouterr().err
    assert state(tmp_path).state == "cancelled"
    assert not cancel.exists()
    kept = Manifest(tmp_path / "out").read()
    assert 1 <= len(kept) < 4 + FURTHER
    assert main(many) == 1
    assert state(tmp_path).state == "done"
    rows = Manifest(tmp_path / "out").read()
    assert len(rows) == 4 + FURTHER
    assert all(rows[file] == row for file, row in kept.items() if row.status == "done")


def test_a_large_image_is_left_between_blocks(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    imwrite(tmp_path / "in" / "0.tif", np.zeros((420, 64), np.uint8))
    arguments += ["--large-from", "20000", "--chunk", "64", "--zoom", "1"]
    from clsclip.batch import large

    add = large.Journal.add

    def cancel(self: large.Journal, entry: dict[str, int]) -> None:
        add(self, entry)
        (tmp_path / "job" / "cancel").touch()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large.Journal, "add", cancel)
        assert main(arguments) == 130
    assert Manifest(tmp_path / "out").read() == {}
    assert "0.tif: block 1 of 7" in capsys.readouterr().out
    assert main(arguments) == 1
    assert "1 of 7 blocks are done already" in (told := capsys.readouterr()).err
    assert "0.tif: block 2 of 7" in told.out
    assert (tmp_path / "job" / "thumbnails" / "0.png").exists()
    assert (tmp_path / "out" / "0.zarr").exists()


def test_what_cannot_begin_says_why(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = tmp_path / "job"
    assert main([*arguments, "--model", "minni"]) == 2
    assert (state(tmp_path).state, "no model 'minni'" in state(tmp_path).reason) == ("failed", True)
    with FileLock(job / "run.lock"):
        assert main(arguments) == 2
    assert "Another process works on the job" in capsys.readouterr().err
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".labelling.lock"):
        assert main(arguments) == 2
    assert "Another process labels into" in capsys.readouterr().err
    assert main([*arguments, "--fail-fast"]) == 1
    assert state(tmp_path).state == "failed"
    assert state(tmp_path).reason.startswith(f"{tmp_path / 'in' / 'b.png'}: ")
