"""The paper's recipe: its defaults, what they come to, the same run again, TensorBoard."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from clsclip import Predictor
from clsclip.cli.train import main
from clsclip.config import Settings
from clsclip.errors import DeviceError, InvalidConfigError
from clsclip.model.config import read_config
from clsclip.training import loop
from clsclip.training.distributed import ProcessGroup
from clsclip.training.fit import FitSettings
from clsclip.training.fit import fit as train_head
from clsclip.training.recipe import Schedule
from clsclip.training.run import Clock, Run

TESTS = Path(__file__).parents[1]


def test_the_defaults_are_those_of_the_paper() -> None:
    settings = FitSettings(data="DIR")
    assert settings.clip == "openai/clip-vit-base-patch16"
    assert (settings.epochs, settings.learning_rate, settings.image_size) == (200, 1e-3, 352)
    assert (settings.replaced_layers, settings.decoder_layers) == ((2, 3, 4), 2)
    assert (settings.encoder_rate, settings.text_rate, settings.first_part) == (0, 0, 0)
    assert settings.cycles > 1
    voc, coco = (
        Schedule(settings.model_copy(update={"dataset": name}), images=6400)
        for name in ("pascal-5i", "coco-20i")
    )
    assert (voc.effective_batch, coco.effective_batch) == (64, 512)
    assert (voc.budget.steps, coco.budget.steps) == (200 * 100, 200 * 12.5)


def test_batches_that_do_not_fit_are_accumulated() -> None:
    def schedule(processes: int = 1, **changes: Any) -> Schedule:
        return Schedule(FitSettings(data="DIR", **changes), 100, processes)

    assert schedule(batch_size=16).accumulate == 4
    assert schedule(4, batch_size=4).accumulate == 4
    assert schedule(4, batch_size=4).effective_batch == 64
    assert schedule(batch_size=128).accumulate == 1
    uneven = schedule(batch_size=6, effective_batch=10)
    assert (uneven.accumulate, uneven.effective_batch) == (2, 12)
    assert uneven.budget.steps == np.ceil(200 * 100 / 12)
    given = schedule(2, batch_size=3, accumulate=5, effective_batch=7, epochs=6)
    assert (given.effective_batch, given.budget.steps) == (30, 20)
    small = schedule(batch_size=4, accumulate=1, image_size=64, first_size=32, first_part=0.5)
    assert small.budget.steps == np.ceil(200 * 100 / 10)  # half of the batches hold 16 images
    assert schedule(steps=3, minutes=2).budget.steps == 3
    assert schedule(minutes=2).budget.steps == 0
    with pytest.raises(InvalidConfigError, match="--steps or --minutes"):
        _ = Schedule(FitSettings(data="DIR"), 0).budget


def test_the_size_of_a_batch_follows_from_its_number_alone() -> None:
    settings = FitSettings(
        data="DIR", batch_size=4, accumulate=3, steps=10, image_size=64, first_size=32,
        first_part=0.5,
    )  # fmt: skip
    schedule = Schedule(settings, 100, processes=2)
    sizes = [schedule.plan(number, Clock()) for number in range(60)]
    assert sizes == [(16, 32)] * 30 + [(4, 64)] * 30
    timed = Schedule(settings.model_copy(update={"steps": 0, "minutes": 1.0}), 100)
    assert timed.plan(1000, Clock(seconds=29)) == (16, 32)
    assert timed.plan(0, Clock(seconds=31)) == (4, 64)


def command(clip: Path, data: Path, *options: str) -> list[str]:
    """Six steps over all kinds of data, of two batches each, the first ones with small views."""
    return [
        "fit", f"--clip={clip}", f"--data={data}", "--share=scenes=2", "--steps=6",
        "--image-size=48", "--first-size=32", "--first-part=0.5", "--batch-size=2",
        "--accumulate=2", "--decoder-width=24", "--presence", "--device=cpu", *options,
    ]  # fmt: skip


def reports(run: Path) -> list[dict[str, Any]]:
    """``metrics.jsonl`` without its times."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("time", "seconds")} for line in lines]


def assert_same_run(one: Path, other: Path) -> None:
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    states = (load_file(run / "state.safetensors") for run in (one, other))
    first, second = states
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert len(reports(one)) == 1
    assert reports(one) == reports(other)


@pytest.mark.slow
def test_a_run_that_was_killed_ends_like_one_that_was_not(
    data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        fit = command(tiny_model / "clip", data)
        assert main([*fit, f"--output={tmp_path / 'whole'}"]) == 0
        killed = [*fit, f"--output={tmp_path / 'killed'}"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.run(
            [sys.executable, str(TESTS / "killed_fit.py"), *killed], env=environment, check=False,
            capture_output=True, timeout=300,
        )  # fmt: skip
        assert process.returncode == -signal.SIGKILL, process.stderr.decode()[-2000:]
        assert not (tmp_path / "killed" / "model.safetensors").exists()
        assert main([*killed, "--resume"]) == 0
    finally:
        torch.set_num_threads(threads)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    config = read_config(tmp_path / "killed")
    assert (config.training["steps"], config.training["effective_batch"]) == (6, 4)
    assert {"nucleus", "car", "red star"} <= set(config.words)
    image = np.zeros((40, 48), np.uint8)
    assert Predictor(str(tmp_path / "killed")).segment(image, ["car"]).probabilities.any()


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str], int], None]:
    """Run a command until the checkpoint of a step is written."""
    save_state = Run.save_state

    class InterruptedRunError(Exception):
        pass

    def run(arguments: list[str], step: int) -> None:
        def save_and_end(self: Run, *state: Any) -> None:
            save_state(self, *state)
            if state[-1].step == step:
                raise InterruptedRunError

        with monkeypatch.context() as patch:
            patch.setattr(loop, "CHECKPOINT_SECONDS", -1)
            patch.setattr(Run, "save_state", save_and_end)
            with pytest.raises(InterruptedRunError):
                main(arguments)

    return run


def test_in_bfloat16_too_and_another_seed_is_another_run(
    data: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    interrupted: Callable[[list[str], int], None],
) -> None:  # fmt: skip
    monkeypatch.setattr("clsclip.training.fit.fast_dtype", lambda _: torch.bfloat16)
    fit = command(tiny_model / "clip", data, "--steps=3", "--encoder-rate=0.3", "--text-rate=0.3")
    whole, broken, other = (tmp_path / name for name in ("whole", "broken", "other"))
    assert main([*fit, f"--output={whole}"]) == 0
    interrupted([*fit, f"--output={broken}"], 2)
    assert main([*fit, f"--output={broken}", "--resume"]) == 0
    assert_same_run(whole, broken)
    assert main([*fit, f"--output={other}", "--seed=1"]) == 0
    assert reports(other) != reports(whole)
    assert main([*fit, f"--output={other}", "--seed=-1"]) == 2


def test_a_run_by_epochs_keeps_the_size_of_its_steps(
    data: Path, tiny_model: Path, tmp_path: Path, interrupted: Callable[[list[str], int], None]
) -> None:
    run = tmp_path / "run"
    by_steps = command(tiny_model / "clip", data, "--epochs=4", f"--output={run}")
    fit = [option for option in by_steps if not option.startswith("--steps")]
    interrupted(fit, 1)
    schedule, state = run / "schedule.json", run / "state.safetensors"
    before = schedule.read_bytes(), state.read_bytes()
    settings = FitSettings.model_validate_json((run / "run.json").read_bytes())
    with pytest.raises(InvalidConfigError, match="takes 4 images per step, and would take 8"):
        train_head(settings, run, resume=True, group=ProcessGroup(0, 2, torch.device("cpu")))
    assert before == (schedule.read_bytes(), state.read_bytes())
    assert main([*fit, "--resume"]) == 0
    assert before[0] == schedule.read_bytes()
    recipe = json.loads((run / "config.json").read_text())["training"]
    assert recipe["effective_batch"] == 4


def test_steps_and_minutes_are_no_epochs_and_may_be_of_another_size() -> None:
    settings = FitSettings(data="DIR", batch_size=2, accumulate=2, epochs=4)
    Schedule(settings, 100).require_same(4)
    with pytest.raises(InvalidConfigError, match="as many processes as before, or train by"):
        Schedule(settings, 100).require_same(8)
    for budget in ({"steps": 3}, {"minutes": 1.0}):
        Schedule(settings.model_copy(update=budget), 100).require_same(8)


def test_pretraining_goes_on_as_it_would_have(
    data: Path, tmp_path: Path, interrupted: Callable[[list[str], int], None]
) -> None:
    pretrain = [
        "pretrain", f"--data={data}", "--share=scenes=1", "--steps=4", "--width=32", "--layers=5",
        "--heads=2", "--text-width=32", "--text-layers=1", "--image-size=48", "--first-size=32",
        "--first-part=0.5", "--batch-size=2", "--device=cpu",
    ]  # fmt: skip
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert main([*pretrain, f"--output={whole}"]) == 0
    interrupted([*pretrain, f"--output={broken}"], 1)
    assert main([*pretrain, f"--output={broken}", "--resume"]) == 0
    first, second = (load_file(run / "state.safetensors") for run in (whole, broken))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert reports(whole) == reports(broken)


def test_reports_of_steps_that_are_taken_again_are_dropped(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", Settings(), resume=False)
    for step in (50, 100, 150):
        run.report(step=step, mask=0.5)
    with (run.path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 10')  # killed while it wrote
    run.forget_after(100)
    assert [line["step"] for line in reports(run.path)] == [50, 100]
    run.forget_after(0)
    assert reports(run.path) == []


def test_tensorboard_shows_figures_and_masks_and_changes_nothing(
    data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit = command(tiny_model / "clip", data, "--steps=2")
    plain, shown = tmp_path / "plain", tmp_path / "shown"
    assert main([*fit, f"--output={plain}"]) == 0
    assert main([*fit, f"--output={shown}", "--tensorboard"]) == 0
    assert_same_run(plain, shown)
    events = EventAccumulator(str(shown)).Reload()
    tags = events.Tags()
    assert set(tags["scalars"]) == {"loss/mask", "loss/presence", "learning rate/factor"}
    (scalar,) = events.Scalars("loss/mask")
    assert scalar.step == 2
    assert scalar.value == pytest.approx(reports(shown)[0]["mask"])
    assert len(tags["images"]) == 4
    for tag in tags["images"]:
        (picture,) = events.Images(tag)
        assert (picture.height, picture.width) == (48, 3 * 48)
    assert main([*fit, f"--output={shown}", "--resume"]) == 0  # without pictures it may go on


def test_without_tensorboard_it_says_how_to_get_it(
    data: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    run = tmp_path / "run"
    assert main(command(tiny_model / "clip", data, "--tensorboard", f"--output={run}")) == 2
    assert "napari-clsclip[tensorboard]" in capsys.readouterr().err
    assert not run.exists()


def test_too_much_memory_is_refused_before_the_start(
    data: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    fit = command(tiny_model / "clip", data, f"--output={tmp_path / 'run'}")
    assert main([*fit, "--batch-size=100000000"]) == 1
    assert "smaller --batch-size" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()

    def exhausted(*_: object) -> dict[str, torch.Tensor]:
        raise torch.OutOfMemoryError

    monkeypatch.setattr("clsclip.training.fit.HeadLoss.__call__", exhausted)
    assert main(fit) == 1
    assert DeviceError.code == "device"
    assert "2 images at a time" in capsys.readouterr().err


def test_words_of_whole_images_teach_where_they_are(
    data: Path, tiny_model: Path, tmp_path: Path, interrupted: Callable[[list[str], int], None],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    fit = command(
        tiny_model / "clip", data, "--steps=3", "--match", "--image-level", "--text-steps=2",
        "--text-rate=0.3", "--unseen=nucleus,star",
    )  # fmt: skip
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert main([*fit, f"--output={whole}"]) == 0
    assert "words: step 2 of 2" in capsys.readouterr().err
    assert np.isfinite(reports(whole)[0]["match"])
    interrupted([*fit, f"--output={broken}"], 2)
    assert main([*fit, f"--output={broken}", "--resume"]) == 0
    assert_same_run(whole, broken)
    assert any(name.startswith("match.") for name in load_file(whole / "model.safetensors"))
    strict = tmp_path / "strict"
    bundle = ["bundle", f"--model={whole}", f"--output={strict}", "--match-scale=3"]
    assert main([*bundle, "--match-shift=-2"]) == 0
    head = load_file(strict / "model.safetensors")
    assert (head["match.scale"].item(), head["match.shift"].item()) == (3, -2)
    assert read_config(strict).training["match"] == {"scale": 3, "shift": -2}
    bundle[1] = f"--model={tiny_model}"
    assert main(bundle) == 2
    assert "train it with fit --match" in capsys.readouterr().err
    assert {"nucleus", "star"} <= set(read_config(whole).words)
    on = command(tiny_model / "clip", data, "--steps=1", f"--start={whole}", "--match",
                 f"--output={tmp_path / 'on'}", "--unseen=star,car")  # fmt: skip
    on[1] = f"--clip={whole / 'clip'}"
    assert main(on) == 0
    words = read_config(tmp_path / "on").words
    assert len(set(words)) == len(words)
    assert {"star", "car"} <= set(words)  # of the run before
    alone = [*fit, f"--output={tmp_path / 'alone'}", "--steps=1"]
    assert main([option for option in alone if option != "--image-level"]) == 0
    words = read_config(tmp_path / "alone").words
    assert "circle" in words
    assert not {"star", "red star", "nucleus"} & set(words)
    image = np.zeros((40, 48), np.uint8)
    assert Predictor(str(whole)).segment(image, ["car"]).probabilities.any()
    photographs = [*fit, f"--output={tmp_path / 'photographs'}"]
    photographs.remove("--share=scenes=2")
    assert main(photographs) == 2
    assert "leave --text-steps out" in capsys.readouterr().err


def test_words_stay_where_they_were_placed(
    data: Path, tiny_model: Path, tmp_path: Path, interrupted: Callable[[list[str], int], None]
) -> None:
    fit = command(tiny_model / "clip", data, "--steps=3", "--match", "--text-steps=2")
    short, broken = tmp_path / "short", tmp_path / "broken"
    assert main([*fit, "--steps=1", f"--output={short}"]) == 0
    interrupted([*fit, f"--output={broken}"], 2)
    assert main([*fit, f"--output={broken}", "--resume"]) == 0
    before, placed, trained = (
        load_file(folder / "clip" / "model.safetensors") for folder in (tiny_model, short, broken)
    )
    text = {name for name in placed if name.startswith("text_model.encoder.")}
    assert any(not torch.equal(before[name], placed[name]) for name in text)
    assert all(torch.equal(placed[name], trained[name]) for name in placed)


def test_going_on_from_a_head_with_a_new_look_at_presence(
    data: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fit(name: str, *options: str) -> int:
        run = command(tiny_model / "clip", data, "--steps=1", f"--output={tmp_path / name}")
        return main([*run, *options])

    assert fit("without", "--no-presence") == 0
    further = (f"--start={tmp_path / 'without'}", "--learning-rate=1e-12")
    assert fit("with", *further) == 0
    old, new = (load_file(tmp_path / name / "model.safetensors") for name in ("without", "with"))
    added = new.keys() - old.keys()
    assert added
    assert all(name.startswith("presence.") for name in added)
    for name, weights in old.items():
        torch.testing.assert_close(new[name], weights, msg=name)
    assert read_config(tmp_path / "with").head.edge_radius == 0
    assert fit("edges", *further, "--edge-radius=8") == 0
    for name, radius in (("edges too", None), ("wider edges", 12), ("no edges", 0)):
        asked = () if radius is None else (f"--edge-radius={radius}",)
        assert fit(name, f"--start={tmp_path / 'edges'}", *asked) == 0
        config = read_config(tmp_path / name)
        assert config.head.edge_radius == (8 if radius is None else radius)
        assert config.training["edge_radius"] == config.head.edge_radius
    assert fit("wider", *further, "--decoder-width=30") == 2
    assert "another shape" in capsys.readouterr().err
    assert fit("less", f"--start={tmp_path / 'with'}", "--no-presence") == 2
    assert "another shape" in capsys.readouterr().err
