"""Losses, metrics, the learning rate, and short runs of real training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from clsclip import Predictor
from clsclip.cli.train import main
from clsclip.errors import CheckpointError, InvalidConfigError
from clsclip.model.checkpoint import load_model, save_model
from clsclip.model.config import read_config
from clsclip.training.bundle import BundleSettings, _average
from clsclip.training.loop import cosine_rate
from clsclip.training.losses import mask_loss, match_loss, presence_loss, sigmoid_contrast
from clsclip.training.run import Clock, Run


def test_presence_loss_wants_a_part_of_the_image() -> None:
    nothing, somewhere = torch.full((2, 64, 64), -5.0), torch.full((2, 64, 64), -5.0)
    somewhere[:, :24, :24] = 5
    assert float(presence_loss(nothing)) > 9
    assert float(presence_loss(somewhere)) < 0.1
    empty = torch.zeros(0, 64, 64, requires_grad=True)
    assert float(presence_loss(empty).detach()) == 0.0


def test_mask_loss_falls_with_the_error_and_ignores_invalid_pixels() -> None:
    target = torch.zeros(2, 8, 8)
    target[0, :4] = 1
    good = (target * 2 - 1) * 6
    valid = torch.ones_like(target)
    assert float(mask_loss(good, target, valid)) < 0.05
    assert float(mask_loss(-good, target, valid)) > 3
    spoiled = good.clone()
    spoiled[:, 6:] *= -1
    valid[:, 6:] = 0
    assert float(mask_loss(spoiled, target, valid)) < 0.05


def test_match_loss_counts_what_is_known_only() -> None:
    logits = torch.full((1, 3, 4), -9.0)
    logits[0, 0, :2] = 9  # shown in the first two patches
    logits[0, 1] = 9  # nobody knows whether it is there
    shown, hidden = torch.zeros(2, 1, 3, 4, dtype=torch.bool)
    shown[0, 0, :2] = hidden[0, 0, 2:] = True
    somewhere = torch.zeros(1, 3, dtype=torch.bool)
    assert float(match_loss(logits, shown, hidden, somewhere)) < 0.01
    somewhere[0, 2] = True  # it is in the image, and no patch says so
    missed = float(match_loss(logits, shown, hidden, somewhere))
    assert missed > 2
    logits[0, 2, 3] = 9
    assert float(match_loss(logits, shown, hidden, somewhere)) < 0.01
    hidden[0, 1, 0] = True
    assert float(match_loss(logits, shown, hidden, somewhere)) > missed
    nothing = torch.zeros_like(shown)
    assert float(match_loss(logits, nothing, nothing, torch.zeros_like(somewhere))) == 0.0


def test_contrast_leaves_unknown_pairs_out() -> None:
    similarity = torch.tensor([[5.0, -5.0, 9.0]], requires_grad=True)
    target = torch.tensor([[True, False, False]])
    known = torch.tensor([[True, True, False]])
    loss = sigmoid_contrast(similarity, target, known)
    loss.backward()
    assert float(loss.detach()) < 0.05
    assert similarity.grad is not None
    assert float(similarity.grad[0, 2]) == 0.0


def test_learning_rate() -> None:
    assert cosine_rate(0.0) == pytest.approx(1.001)
    assert cosine_rate(1.0) == pytest.approx(0.001)
    assert cosine_rate(0.49, cycles=2) < 0.01 < 0.9 < cosine_rate(0.51, cycles=2)
    assert cosine_rate(0.01, warm_up=0.1) == pytest.approx(0.1)


def test_pretrain_fit_bundle_evaluate_and_resume(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--width", "32", "--layers", "5", "--heads", "2", "--text-width", "32",
             "--text-layers", "1", "--image-size", "64", "--batch-size", "4"]  # fmt: skip
    run = ["pretrain", "--data", str(data), "--minutes", "0.03", "--output", str(tmp_path / "p")]
    assert main([*run, *small]) == 0
    assert main([*run, *small]) == 1
    assert "--resume" in capsys.readouterr().err
    lines = (tmp_path / "p" / "metrics.jsonl").read_text().splitlines()
    assert {"step", "contrast", "pixel"} <= set(json.loads(lines[-1]))
    further = [*run[:-1], str(tmp_path / "q"), *small, "--learning-rate", "1e-12"]
    assert main([*further, "--start", str(tmp_path / "nowhere")]) == 1
    assert "no pre-training to go on from" in capsys.readouterr().err
    assert main([*further, "--start", str(tmp_path / "p")]) == 0
    before, after = (
        load_file(tmp_path / name / "clip" / "model.safetensors") for name in ("p", "q")
    )
    for name, weights in before.items():
        torch.testing.assert_close(after[name], weights, msg=name)
    fit = ["fit", "--clip", str(tmp_path / "q" / "clip"), "--data", str(data), "--minutes", "0.03",
           "--image-size", "64", "--batch-size", "4", "--accumulate", "1", "--decoder-width", "24",
           "--presence", "--first-size", "48", "--first-part", "0.5", "--output",
           str(tmp_path / "f")]  # fmt: skip
    assert main(fit) == 0
    weights = (tmp_path / "f" / "model.safetensors").read_bytes()
    assert main([*fit, "--resume"]) == 0  # its time is over: the same model again
    assert (tmp_path / "f" / "model.safetensors").read_bytes() == weights
    assert main([*fit, "--resume", "--seed", "5"]) == 1
    assert "other settings" in capsys.readouterr().err
    model = tmp_path / "f"
    assert main(["bundle", "--model", str(model), "--output", str(tmp_path / "b")]) == 0
    recipe = json.loads((tmp_path / "b" / "config.json").read_text())["training"]
    assert [each["layers"] for each in recipe["pretraining"]] == [5, 5]
    assert recipe["pretraining"][0]["steps"] > 0
    assert recipe["heads"][0]["steps"] > 0
    frozen = recipe["heads"][0]
    assert frozen["encoder_rate"] == 0
    free = [*fit[:-1], str(tmp_path / "e"), "--start", str(tmp_path / "f"),
            "--encoder-rate", "0.1", "--text-rate", "0.1"]  # fmt: skip
    assert main(free) == 0
    assert main(["bundle", "--model", str(tmp_path / "e"), "--output", str(tmp_path / "b")]) == 0
    recipe = json.loads((tmp_path / "b" / "config.json").read_text())["training"]
    assert [head["encoder_rate"] for head in recipe["heads"]] == [0, 0.1]
    assert len(recipe["pretraining"]) == 2
    shutil.rmtree(tmp_path / "p")  # the recipe of what was bundled is kept with it
    again = [*fit[:-1], str(tmp_path / "g"), "--start", str(tmp_path / "b")]
    again[again.index("--clip") + 1] = str(tmp_path / "b" / "clip")
    assert main(again) == 0
    arguments = ["bundle", "--model", str(tmp_path / "g"), "--output", str(tmp_path / "h")]
    assert main([*arguments, "--commit", "0f1e2d3"]) == 0
    recipe = json.loads((tmp_path / "h" / "config.json").read_text())["training"]
    assert [head["encoder_rate"] for head in recipe["heads"]] == [0, 0.1, 0]
    assert len(recipe["pretraining"]) == 2
    assert recipe["commit"] == "0f1e2d3"
    between = ["bundle", "--model", str(tmp_path / "g"), "--average", str(tmp_path / "b"),
               "--dtype", "float32", "--output", str(tmp_path / "m")]  # fmt: skip
    assert main(between) == 0
    one, other, mean = (load_file(tmp_path / name / "model.safetensors") for name in "gbm")
    for name, weights in mean.items():
        torch.testing.assert_close(weights, (one[name].float() + other[name].float()) / 2, msg=name)
    recipe = json.loads((tmp_path / "m" / "config.json").read_text())["training"]
    assert recipe["averaged_with"] == Predictor(str(tmp_path / "b")).version
    for each in ("g", "m"):  # of a bundle, and of a head that goes on from a mean
        run = tmp_path / f"{each}-on"
        if each == "m":
            on = [*again[:-3], str(run), "--start", str(tmp_path / "m")]
            on[on.index("--clip") + 1] = str(tmp_path / "m" / "clip")
            assert main(on) == 0
        source = run if each == "m" else tmp_path / "m"
        last = ["bundle", "--model", str(source), "--output", str(tmp_path / "last")]
        assert main(last) == 0
        recipe = json.loads((tmp_path / "last" / "config.json").read_text())["training"]
        assert len(recipe["pretraining"]) == 2
        assert len(recipe["heads"]) == (4 if each == "m" else 3)
        kept = recipe["heads"][2] if each == "m" else recipe
        assert kept["averaged_with"] == Predictor(str(tmp_path / "b")).version
    wider = [*again[:-3], str(tmp_path / "w"), "--decoder-width", "30", "--steps", "1"]
    assert main(wider) == 0
    between[between.index("--average") + 1] = str(tmp_path / "w")
    assert main(between) == 2
    assert "other shapes" in capsys.readouterr().err
    both = ["bundle", "--model", str(tmp_path / "e"), "--average", str(tmp_path / "f"),
            "--dtype", "float32", "--output", str(tmp_path / "ef")]  # fmt: skip
    assert main(both) == 0  # of the encoders too, which "e" has trained
    for file in ("model.safetensors", "clip/model.safetensors"):
        mean, one = (load_file(tmp_path / name / file) for name in ("ef", "e"))
        other = load_file(tmp_path / ("q" if "clip" in file else "f") / file)
        for name, weights in mean.items():
            torch.testing.assert_close(weights, (one[name] + other[name]) / 2, msg=name)
    assert Predictor(str(tmp_path / "ef")).version != Predictor(str(tmp_path / "e")).version
    before, after = (
        load_file(folder / "clip" / "model.safetensors")
        for folder in (tmp_path / "q", tmp_path / "e")
    )
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.startswith("vision_model.encoder") for name in changed)
    assert any(name.startswith("text_model.encoder") for name in changed)
    assert all(name.startswith(("vision_model.", "text_model.")) for name in changed)
    bundled = Predictor(str(tmp_path / "b"))
    image = np.zeros((64, 80), np.uint8)
    assert bundled.segment(image, ["car"]).probabilities.shape == (1, 64, 80)
    val = data / "nuclei" / "val"
    arguments = ["evaluate", "--images", str(val / "images"), "--labels", str(val / "labels"),
                 "--word", "nucleus", "--model", str(tmp_path / "b")]  # fmt: skip
    assert main([*arguments, "--json", str(tmp_path / "e.json")]) == 0
    figures = json.loads((tmp_path / "e.json").read_text())
    assert figures["images"] == 3
    assert 0.0 <= figures["miou"] <= 1.0
    assert figures["per_class"].keys() == {"nucleus"}


@pytest.mark.parametrize(
    ("changed", "taught", "told"),
    [
        ("text_projection", False, "belong to different CLIPs"),
        ("tokenizer", False, "belong to different CLIPs"),
        ("text_model", True, "Average first"),
        ("vision_model", True, "Average first"),
    ],
)
def test_what_has_no_mean(
    tiny_model: Path, tmp_path: Path, changed: str, taught: bool, told: str
) -> None:
    model, other = load_model(tiny_model), load_model(tiny_model)
    weights = model.head_state()
    if changed == "tokenizer":  # of encoders that differ, too, or nobody would ask
        other.towers.tokenizer.add_tokens(["rosette"])
        changed = "text_model"
    with torch.no_grad():
        next(getattr(other.towers.clip, changed).parameters()).add_(0.1)
    settings = BundleSettings(model="new", output="out", average="old")
    with pytest.raises(InvalidConfigError, match=told):
        _average(model, other, settings, taught=taught)
    assert all(torch.equal(weights[name], each) for name, each in model.head_state().items())


def test_a_mean_has_read_the_words_of_both(tiny_model: Path, tmp_path: Path) -> None:
    model = load_model(tiny_model)
    for name, words in (("new", ["red cell", "nucleus"]), ("old", ["cell", "nucleus"])):
        save_model(model, tmp_path / name, source="", bundle=torch.float32, words=words)
    new, old, mean = (str(tmp_path / name) for name in ("new", "old", "mean"))
    assert main(["bundle", "--model", new, "--average", old, "--output", mean]) == 0
    assert read_config(Path(mean)).words == ("cell", "nucleus", "red cell")


def test_state_round_trip_and_foreign_states(tmp_path: Path) -> None:
    def parts() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        module = torch.nn.Linear(3, 2)
        return module, torch.optim.AdamW(module.parameters(), lr=0.1)

    from clsclip.training.evaluate_settings import EvaluateSettings

    settings = EvaluateSettings(images="a", labels="b", word="c")
    run = Run(tmp_path / "run", settings, resume=False)
    module, optimizer = parts()
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    run.save_state({"m": module}, optimizer, Clock(7, 1.5))
    other, fresh = parts()
    assert Run(tmp_path / "run", settings, resume=True).load_state({"m": other}, fresh) == Clock(
        7, 1.5
    )
    for each, opt in ((module, optimizer), (other, fresh)):
        opt.zero_grad()
        each(torch.ones(1, 3)).pow(2).sum().backward()
        opt.step()
    for a, b in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    state = tmp_path / "run" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match="Remove it to start anew"):
        run.load_state({"m": other}, fresh)
