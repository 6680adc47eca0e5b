"""Several processes that train together, as the backend starts them; here without GPUs."""

from __future__ import annotations

import json
import os
import subprocess
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clsclip import Predictor
from clsclip.cli.train import main
from clsclip.errors import DeviceError
from clsclip.model.report import REPORT_FILE
from clsclip.service.training_processes import train_command
from clsclip.training.distributed import ProcessGroup, alone, process_group
from clsclip.training.loop import DivergedError
from two_processes import STEPS, batch, weights_after_training

TESTS = Path(__file__).parents[1]
_COMMAND = train_command(2)
LAUNCHER = _COMMAND[: _COMMAND.index("--module")]


def launch(*command: str) -> str:
    """What two processes said."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS)}
    found = subprocess.run(
        [*LAUNCHER, *command], env=environment, check=False, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-3000:]
    return found.stdout + found.stderr


@pytest.mark.slow
def test_two_processes_train_as_one_does_on_all_batches(tmp_path: Path) -> None:
    launch(str(TESTS / "two_processes.py"), str(tmp_path))
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first["size"] == second["size"] == 2
    assert first["weights"] == second["weights"]
    both = (torch.cat([batch(step, 0), batch(step, 1)]) for step in range(STEPS + 1))
    expected = weights_after_training(tmp_path / "alone", None, both, first=0)
    np.testing.assert_allclose(first["weights"], expected, rtol=1e-5, atol=1e-6)
    before = weights_after_training(tmp_path / "other", None, iter([batch(9, 9)] * 9), first=0)
    assert not np.allclose(first["weights"], before, rtol=1e-3)  # the batches mattered
    assert (tmp_path / "run" / "state.safetensors").exists()


@pytest.mark.slow
def test_a_model_is_taught_by_two_processes(tiny_model: Path, tmp_path: Path) -> None:
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.mkdir()
    labels.mkdir()
    for number in range(3):
        image = np.full((64, 64, 3), 40, np.uint8)
        image[10 + number : 40, 12:44] = (200, 120, 90)
        Image.fromarray(image).save(images / f"{number}.png")
        Image.fromarray((image[..., 0] > 100).astype(np.uint8)).save(labels / f"{number}.png")
    run = tmp_path / "run"
    command = [
        "--module", "quick_training", "finetune", f"--images={images}", f"--labels={labels}",
        "--word=zarf", f"--model={tiny_model}", f"--output={run}", "--epochs=3", "--holdout=0.4",
    ]  # fmt: skip
    launch(*command)
    report = json.loads((run / REPORT_FILE).read_text())
    assert report["words"] == ["zarf"]
    assert report["learnt_from"] == 2
    steps = report["steps"]
    assert steps > 0
    image = np.asarray(Image.open(images / "0.png"))
    Predictor(str(run)).segment(image, ["zarf"])
    assert "is over" in launch(*command, "--resume")  # the second process hears of it, and ends


def test_several_processes_need_devices_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(DeviceError, match="cuda:1"), process_group("cuda:1"):
        pass


def test_what_one_process_does_is_not_done_by_several(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["bundle", "--model=x", "--output=y"]) == 2
    assert "works in one process" in capsys.readouterr().err


def test_one_process_needs_no_launcher() -> None:
    assert train_command(1)[-2:] == ("-m", "clsclip.cli.train")
    assert _COMMAND[-2:] == ("--module", "clsclip.cli.train")


def test_one_process_agrees_with_itself() -> None:
    group = alone("cpu")
    assert group.leads
    assert group.agree(1.5, 0) == (1.5, 0)
    assert group.seed(3, 4) == (3, 4)
    assert list(islice(group.batch_numbers(5), 3)) == [5, 6, 7]


def test_processes_share_the_batches_of_one() -> None:
    together = [ProcessGroup(rank, 3, torch.device("cpu")) for rank in range(3)]
    numbers = [list(islice(group.batch_numbers(2), 4)) for group in together]
    assert sorted(number for mine in numbers for number in mine) == list(range(6, 18))


def test_a_loss_that_is_not_a_number_ends_the_training(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="step 0"):
        weights_after_training(tmp_path, None, iter([batch(0, 0) * torch.nan]), first=0)
