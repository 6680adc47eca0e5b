"""``--config FILE`` of the training commands."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from clsclip.cli.arguments import add_settings, settings_from
from clsclip.cli.config_file import add_config_option
from clsclip.cli.train import main
from clsclip.errors import FileError, InvalidConfigError
from clsclip.training.detect import DetectSettings
from clsclip.training.finetune_settings import FinetuneSettings
from clsclip.training.fit import FitSettings
from clsclip.training.pretrain import PretrainSettings


def read(text: str, folder: Path, *options: str, model: type = FitSettings) -> FitSettings:
    """Settings of a file with a text, and options."""
    file = folder / "recipe.toml"
    file.write_text(text)
    parser = argparse.ArgumentParser()
    add_config_option(parser)
    add_settings(parser, model, required=False)
    settings: FitSettings = settings_from(parser.parse_args([f"--config={file}", *options]), model)
    return settings


def test_options_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    text = """
        data = "DIR"
        learning-rate = 3e-4
        share = ["nuclei=4", "scenes=2"]
        replaced_layers = [0, 1, 2]
        presence = true
        epochs = 50
        accumulate = 3
    """
    settings = read(text, tmp_path)
    assert (settings.data, settings.learning_rate, settings.epochs) == ("DIR", 3e-4, 50)
    assert settings.share == ("nuclei=4", "scenes=2")
    assert (settings.replaced_layers, settings.presence) == ((0, 1, 2), True)
    assert (settings.seed, settings.decoder_layers) == (0, 2)
    options = ("--data=OTHER", "--share=a=1", "--no-presence", "--seed=4")
    settings = read(text, tmp_path, *options)
    assert (settings.data, settings.share, settings.presence) == ("OTHER", ("a=1",), False)
    assert (settings.seed, settings.learning_rate, settings.accumulate) == (4, 3e-4, 3)


def test_an_option_takes_the_place_of_what_stands_for_the_same(tmp_path: Path) -> None:
    text = 'data = "DIR"\nsteps = 5\naccumulate = 3\n'
    settings = read(text, tmp_path, "--epochs=7", "--effective-batch=32")
    assert (settings.steps, settings.epochs) == (0, 7)
    assert (settings.accumulate, settings.effective_batch) == (0, 32)
    assert read(text, tmp_path, "--minutes=2").steps == 0
    assert read(text, tmp_path, "--seed=1").steps == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'data = "D"\nlearning_rat = 1',
            r"no option 'learning_rat'\. Did you mean 'learning_rate'",
        ),
        ('data = "D"\nmodel = "x"', r"no option 'model'"),
        ('data = "D"\n[fit]\nsteps = 1', r"no option 'fit'"),
        ('data = "D"\nsteps = -1', r"recipe\.toml': steps = -1: .*greater than or equal to 0"),
        ('data = "D"\nbatch_size = "many"', r"recipe\.toml': batch_size = many: .*integer"),
        ('data = "D"\nbatch_size = 1\nbatch-size = 2', r"'batch_size' is given twice"),
        ("steps = 1", r"--data is missing"),
        ('data = "D"\ndownload = true', r"say which one with --dataset"),
        ("data = ", r"is no TOML"),
    ],
)
def test_mistakes_are_named(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match=message):
        read(text, tmp_path)


def test_a_wrong_option_is_named_beside_a_good_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match=r"--seed -1: "):
        read('data = "D"', tmp_path, "--seed=-1")


@pytest.mark.parametrize("model", [PretrainSettings, FinetuneSettings, DetectSettings])
def test_the_other_training_commands_read_files_too(model: type, tmp_path: Path) -> None:
    text = "batch_size = 5\nsteps = 9\n"
    needed = {} if model is FinetuneSettings else {"data": "DIR"}
    found = read(text + "".join(f'{k} = "{v}"\n' for k, v in needed.items()), tmp_path, model=model)
    assert (found.batch_size, found.steps) == (5, 9)
    assert read(text, tmp_path, "--minutes=3", *(f"--{k}={v}" for k, v in needed.items()),
                model=model).steps == 0  # fmt: skip


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "none.toml"
    for name in ("pretrain", "fit", "finetune", "detect"):
        assert main([name, f"--config={file}", f"--output={tmp_path / 'run'}"]) == 1
        assert f"'{file}' cannot be read" in capsys.readouterr().err
    assert FileError.code == "file"


def test_a_run_keeps_what_file_and_options_say(
    data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(
        f'clip = "{tiny_model / "clip"}"\ndata = "{data}"\nimage_size = 32\nbatch_size = 2\n'
        "accumulate = 1\nepochs = 100\n"
    )
    fit = ["fit", f"--config={file}", f"--output={tmp_path / 'run'}", "--steps=1"]
    assert main(fit) == 0
    kept = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (kept["steps"], kept["batch_size"], kept["epochs"]) == (1, 2, 200)
    assert (tmp_path / "run" / "model.safetensors").exists()
