"""Model directories: round trips, atomic writing, strict reading; names of models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from clsclip.errors import CheckpointError, FileError, UnknownModelError
from clsclip.model import registry
from clsclip.model.checkpoint import load_model, load_word_heads, model_version, save_model
from clsclip.model.config import read_config
from clsclip.model.word_heads import HeadChoice, WordHead, head_like, with_word_head


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "copy"))


def test_round_trip_tensor_by_tensor(tiny_model: Path, tmp_path: Path) -> None:
    first = load_model(tiny_model)
    save_model(first, tmp_path / "again", source=str(tiny_model / "clip"), description="twin")
    second = load_model(tmp_path / "again")
    state = second.state_dict()
    assert state.keys() == first.state_dict().keys()
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert second.settings == first.settings
    assert not (tmp_path / "again" / "clip").exists()


def test_bundle_in_bfloat16_is_complete_and_half_as_large(tiny_model: Path, tmp_path: Path) -> None:
    save_model(load_model(tiny_model), tmp_path / "b", source="", bundle=torch.bfloat16)
    model = load_model(tmp_path / "b")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    files = [folder / "clip" / "model.safetensors" for folder in (tmp_path / "b", tiny_model)]
    assert files[0].stat().st_size < 0.6 * files[1].stat().st_size
    assert list((tmp_path / "b").glob("**/*.bin")) == []


def test_head_is_never_put_on_other_towers(copy: Path) -> None:
    weights = copy / "clip" / "model.safetensors"
    tensors = load_file(weights)
    name = next(iter(tensors))
    tensors[name] = tensors[name] + 1e-3
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="belongs to other CLIP weights"):
        load_model(copy)


def test_truncated_weights(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="missing or truncated"):
        load_model(copy)


def test_missing_superfluous_and_misshapen_tensors(copy: Path) -> None:
    weights = copy / "model.safetensors"
    tensors = load_file(weights)
    del tensors["projections.2.weight"]
    tensors["projections.9.bias"] = torch.zeros(3)
    tensors["decoder.reduce.bias"] = torch.zeros(5)
    save_file(tensors, weights)
    with pytest.raises(CheckpointError) as caught:
        load_model(copy)
    for fault in ("projections.2.weight: missing", "projections.9.bias", "decoder.reduce.bias"):
        assert fault in caught.value.message


def test_foreign_config(copy: Path, tmp_path: Path) -> None:
    (copy / "config.json").write_text(json.dumps({"architectures": ["ResNet"]}))
    with pytest.raises(CheckpointError, match="not the configuration of a ClsCLIP model"):
        load_model(copy)
    with pytest.raises(CheckpointError, match="not a model directory"):
        load_model(tmp_path / "nothing")


def test_failed_save_leaves_the_old_model(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, before = load_model(copy), model_version(copy)

    def full_disk(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("clsclip.model.checkpoint.save_file", full_disk)
    with pytest.raises(FileError, match="No space"):
        save_model(model, copy, source="x")
    assert model_version(copy) == before
    load_model(copy)
    assert [p.name for p in copy.parent.iterdir()] == ["copy"]


def test_another_detector_makes_another_version(copy: Path) -> None:
    versions = [model_version(copy)]
    (copy / "detector").mkdir()
    (copy / "detector" / ".DS_Store").write_bytes(b"of a file manager")
    assert model_version(copy) == versions[0]
    for described in (b"one", b"another"):  # by its configuration, which holds a hash of the rest
        (copy / "detector" / "detector.json").write_bytes(described)
        versions.append(model_version(copy))
    assert len(set(versions)) == 3
    assert all(len(version) == 12 for version in versions)


def test_save_refuses_a_folder_with_other_files(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("irreplaceable")
    with pytest.raises(FileError, match="holds other files"):
        save_model(load_model(tiny_model), tmp_path, source="x")
    assert (tmp_path / "thesis.txt").exists()


def test_registry_finds_user_models_and_names_unknown_ones(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "user_models", lambda: tmp_path)
    shutil.copytree(tiny_model, tmp_path / "mine")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    models = {model.name: model for model in registry.list_models()}
    assert models["mine"].available
    assert not models["broken"].available
    assert "broken" in (models["broken"].reason or "")
    assert registry.find_model("mine") == tmp_path / "mine"
    assert registry.find_model(str(tiny_model)) == tiny_model
    with pytest.raises(UnknownModelError, match=r"no model 'min'.*mine"):
        registry.find_model("min")


def test_heads_of_taught_words(tiny_model: Path, tmp_path: Path) -> None:
    model = load_model(tiny_model)
    state = {name: tensor + 0.25 for name, tensor in model.head_state().items()}
    taught = with_word_head((), WordHead(("star", "nucleus"), head_like(model, state)))
    folder = tmp_path / "taught"
    save_model(model, folder, source="", bundle=torch.float32, word_heads=taught)
    assert read_config(folder).word_heads == (("star", "nucleus"),)
    again = load_model(folder)
    (found,) = load_word_heads(folder, again)
    weights = found.head.head_state()
    assert all(weights[name].equal(state[name]) for name in state)
    choose = HeadChoice(again, [found])
    for spelling in ("star", "Stars", "cell nuclei"):
        assert choose(spelling) is found.head
    for other in ("starfish", "red star", "cell"):
        assert choose(other) is again
    assert found.head.towers is again.towers

    newer = with_word_head([found], WordHead(("star",), head_like(again, state)))
    assert [each.words for each in newer] == [("nucleus",), ("star",)]
    assert len(with_word_head(newer, WordHead(("nucleus", "star"), found.head))) == 1

    version = model_version(folder)
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"star"', '"stick"'))
    assert model_version(folder) != version
    file = folder / "word-head-1.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="word-head-1"):
        load_word_heads(folder, again)
