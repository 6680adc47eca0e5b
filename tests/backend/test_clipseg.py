"""CLIPSeg as a model: it computes what transformers computes, and is used wherever a model is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tifffile import imread
from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

from clsclip import Predictor
from clsclip.cli.label import main as label
from clsclip.cli.train import main as train
from clsclip.errors import CheckpointError, InvalidConfigError
from clsclip.image_sources import ImageSource
from clsclip.looks import Looks
from clsclip.model import registry
from clsclip.model.checkpoint import load_model, model_version
from clsclip.model.clipseg import ClipSeg, load_clipseg
from clsclip.model.clipseg_config import clipseg_fault, read_clipseg_config
from clsclip.predict.large import LargeSegmenter
from clsclip.predict.parts import PartPredictor
from clsclip.wire import SegmentRequest, encode_segment_request
from clsclip.wire_segmentation import decode_segmentation


@pytest.fixture
def copy(tiny_clipseg: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_clipseg, tmp_path / "copy")


@pytest.fixture(scope="module")
def network(tiny_clipseg: Path) -> ClipSeg:
    return load_clipseg(tiny_clipseg)


@pytest.fixture(scope="module")
def predictor(tiny_clipseg: Path) -> Predictor:
    return Predictor(str(tiny_clipseg), device="cpu")


def reference(network: ClipSeg, pixels: torch.Tensor, texts: list[str]) -> torch.Tensor:
    """Logits of transformers' own forward."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (network.config.mean, network.config.std))
    tokens = network.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        return network.model(pixel_values=(pixels - mean) / std, **tokens).logits


@pytest.mark.parametrize("size", [64, 48, 96])
def test_masks_are_those_of_transformers(network: ClipSeg, size: int) -> None:
    pixels = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    texts = ["nucleus", "a photo of a cell"]
    with torch.inference_mode():
        words = network.text_cls(texts, templates=False)
        mine = network.decode(network.encode(pixels), words)
        exchanged = network.decode(network.encode(pixels), words.flip(0))
    expected = reference(network, pixels, texts)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-5)
    assert (exchanged - expected).abs().mean() > 0.1


@pytest.mark.parametrize("changes", [
    {"conditional_layer": 2}, {"extract_layers": [5, 0]},
    {"use_complex_transposed_convolution": False, "extract_layers": [3]},
])  # fmt: skip
def test_other_shapes_are_those_of_transformers(network: ClipSeg, changes: dict[str, Any]) -> None:
    torch.manual_seed(1)
    config = CLIPSegConfig.from_dict({**network.model.config.to_dict(), **changes})
    other = ClipSeg(CLIPSegForImageSegmentation(config), network.tokenizer, network.config)
    pixels = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        mine = other.decode(other.encode(pixels), other.text_cls(["cell"], templates=False))
    expected = reference(other, pixels, ["cell"])
    torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-5)


def test_oblong_windows_lie_like_the_image(network: ClipSeg) -> None:
    """Patches of a window of 5 x 2 are counted along its rows."""
    local = deepcopy(network)
    for layer in local.model.decoder.layers:
        layer.forward = lambda values, attention_mask: values  # as if no patch saw another
    with torch.inference_mode():
        word = local.text_cls(["cell"])
        encoded = local.encode(torch.zeros(1, 3, 80, 32))
        plain = local.decode(encoded, word)[0]
        encoded.reduced[-1][0, 1 + 3] += 10  # second row, second column
        changed = (local.decode(encoded, word)[0] - plain).abs()
    assert plain.shape == (80, 32)
    patches = changed.unfold(0, 16, 16).unfold(1, 16, 16).mean((2, 3))
    assert patches[:3].min() > 0  # with its neighbours, which a convolution blends
    assert patches[3:].max() == 0


def test_templates_are_averaged(network: ClipSeg) -> None:
    with torch.inference_mode():
        mean = network.text_cls(["cell", "nucleus"])
        single = network.text_cls(
            ["a photo of a cell.", "a photograph of a cell.", "an image of a cell.", "cell."], False
        )
    torch.testing.assert_close(mean[0], single.mean(0))
    assert not torch.allclose(mean[0], mean[1])


def test_patch_tokens_are_those_of_the_last_layer(network: ClipSeg) -> None:
    pixels = torch.rand(1, 3, 64, 64)
    mean, std = (torch.tensor(v)[:, None, None] for v in (network.config.mean, network.config.std))
    with torch.inference_mode():
        tokens = network.patch_tokens(pixels)
        expected = network.model.clip.vision_model((pixels - mean) / std).last_hidden_state
    torch.testing.assert_close(tokens, expected[:, 1:])


def test_one_window_equals_the_network(
    predictor: Predictor, network: ClipSeg, rng: np.random.Generator
) -> None:
    image = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    result = predictor.segment(image, ["The cell", "nucleus"], zoom=1.0, templates=False)
    pixels = torch.from_numpy(image / 255).permute(2, 0, 1)[None].float()
    expected = reference(network, pixels.expand(2, -1, -1, -1), ["cell", "nucleus"]).sigmoid() * 255
    allowed = 1.0 if predictor.dtype == torch.float32 else 8.0
    assert np.abs(result.probabilities - expected.numpy()).max() <= allowed
    assert result.model_version == predictor.version


def test_half_precision_gives_nearly_the_same(
    tiny_clipseg: Path,
    predictor: Predictor,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What hardware with native bfloat16 computes."""
    image = rng.integers(0, 255, (80, 50, 3), dtype=np.uint8)
    monkeypatch.setattr("clsclip.predict.predictor.fast_dtype", lambda _: torch.bfloat16)
    fast = Predictor(str(tiny_clipseg), device="cpu").segment(image, ["cell"], zoom=1.0)
    exact = predictor.segment(image, ["cell"], zoom=1.0)
    difference = fast.probabilities.astype(int) - exact.probabilities
    assert np.abs(difference).mean() < 5


def test_regions_tiles_and_embeddings(predictor: Predictor, rng: np.random.Generator) -> None:
    image = rng.integers(0, 255, (90, 120, 3), dtype=np.uint8)
    box = (10.0, 20.0, 50.0, 70.0)
    inside = predictor.segment(image, ["cell", "nucleus"], regions={"cell": [box]}, zoom=1.0)
    assert inside.probabilities[0, 15:45, 25:65].any()
    assert not inside.probabilities[0, 60:].any()
    assert inside.probabilities[1, 60:].any()
    vouched = predictor.segment(image, ["cell"], regions={"cell": [box]}, vouched=True)
    np.testing.assert_array_equal(vouched.probabilities[0], inside.probabilities[0])
    tiles = predictor.segment(image, ["cell"], regions="tiles", zoom=1.0)
    whole = predictor.segment(image, ["cell"], zoom=1.0)
    np.testing.assert_array_equal(tiles.probabilities, whole.probabilities)
    assert len(tiles.proposals[0]) > 1
    vector = predictor.embedding(image)
    assert vector.shape == (48,)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-3)


def test_large_images_are_segmented_without_seams(
    predictor: Predictor, rng: np.random.Generator
) -> None:
    image = rng.integers(0, 255, (150, 170, 3), dtype=np.uint8)
    whole = predictor.segment(image, ["cell"], zoom=1.0).probabilities
    parts = np.zeros_like(whole)
    looks = Looks((0.0, 255.0), ((1.0,),))
    source = ImageSource("image", lambda: image, image.shape, image.dtype, "yxs")
    with LargeSegmenter(predictor, source, ["cell"], looks, chunk=64) as segmenter:
        for block in segmenter.in_order():
            for region, values in segmenter.segment(block):
                parts[(slice(None), *region)] = values
    assert np.abs(parts.astype(int) - whole).max() <= 1


def test_files_are_labelled(tiny_clipseg: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(rng.integers(0, 255, (60, 70), dtype=np.uint8)).save(tmp_path / "in" / "a.png")
    output = tmp_path / "out"
    arguments = [str(tmp_path / "in"), "--words", "cell, nucleus", "--model", str(tiny_clipseg),
                 "--instances", "--device", "cpu", "--output", str(output)]  # fmt: skip
    assert label(arguments) == 0
    assert imread(output / "a.tif").shape == (60, 70)


def test_the_service_lists_and_uses_it(
    tiny_clipseg: Path, serve: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "user_models", lambda: tmp_path)
    (tmp_path / "rival").symlink_to(tiny_clipseg)
    shutil.copytree(tiny_clipseg, tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").unlink()
    service = serve(PartPredictor, store=str(tmp_path / "store"))
    listed = {model["name"]: model for model in service.http.get("/v1/models").json()["models"]}
    assert listed["rival"]["available"]
    assert "CLIPSeg" in listed["rival"]["description"]
    assert not listed["broken"]["available"]
    assert "model.safetensors' is missing" in listed["broken"]["reason"]
    window = service.http.get("/v1/window", params={"model": "rival"})
    assert window.json() == {"image_size": 64}
    asked = SegmentRequest(words=("cell",), model="rival")
    body = encode_segment_request(np.zeros((20, 30), np.uint8), asked)
    answer = decode_segmentation(service.post("r1", body).content, 2**20)
    assert answer.model_version == model_version(tiny_clipseg)
    refused = service.http.post("/v1/trainings", json={"words": ["cell"], "model": "rival"})
    assert refused.status_code == 422
    assert "cannot be taught" in refused.json()["error"]["message"]


def test_it_cannot_be_taught_or_bundled(
    tiny_clipseg: Path, predictor: Predictor, data: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    nuclei = data / "nuclei" / "train"
    bundle = ["bundle", "--model", str(tiny_clipseg), "--output", str(tmp_path / "b")]
    folders = ["--images", str(nuclei / "images"), "--labels", str(nuclei / "labels")]
    teach = ["finetune", *folders, "--word", "nucleus", "--model", str(tiny_clipseg), "--output",
             str(tmp_path / "r")]  # fmt: skip
    for arguments in (bundle, teach):
        assert train(arguments) == 2
        assert "is a CLIPSeg: it segments, but cannot be taught" in capsys.readouterr().err
    with pytest.raises(InvalidConfigError, match="gone on from"):
        load_model(tiny_clipseg)  # as fit --start does
    with pytest.raises(InvalidConfigError, match=r"CLIPSeg and cannot be taught. Choose a ClsCLIP"):
        predictor.teach(["cell"], {}, "new")


def test_sizes_and_colours_are_read_in_every_form(copy: Path) -> None:
    file = copy / "preprocessor_config.json"
    known = json.loads(file.read_text())
    sizes: list[tuple[Any, int]] = [(96, 96), ({"height": 80, "width": 80}, 80)]
    for size, expected in sizes:
        file.write_text(json.dumps({**known, "size": size}))
        assert read_clipseg_config(copy).image_size == expected
    file.write_text(json.dumps({**known, "do_normalize": False}))
    assert read_clipseg_config(copy).std == (1.0, 1.0, 1.0)
    file.unlink()
    assert read_clipseg_config(copy).image_size == 352
    inside = {"processor_class": "CLIPSegProcessor", "image_processor": {**known, "size": 32}}
    (copy / "processor_config.json").write_text(json.dumps(inside))
    assert read_clipseg_config(copy).image_size == 32
    for size in ({"height": 80, "width": 64}, 0, "large"):
        file.write_text(json.dumps({**known, "size": size}))
        with pytest.raises(CheckpointError):
            read_clipseg_config(copy)
        assert clipseg_fault(copy)


def test_files_of_older_transformers_are_read(copy: Path, network: ClipSeg) -> None:
    """As the published ones are: numbers of positions, a tokenizer in two files, odd settings.

    The end-of-text token has another id in the settings than in the tokenizer, and some weights are
    no safetensors.
    """
    settings = json.loads((copy / "config.json").read_text())
    settings["text_config"] |= {"bos_token_id": 0, "eos_token_id": 2, "torchscript": False}
    settings |= {"text_config_dict": None, "vision_config_dict": None, "torch_dtype": "float32"}
    (copy / "config.json").write_text(json.dumps(settings))
    state = network.model.state_dict()
    state["clip.vision_model.embeddings.position_ids"] = torch.arange(10)[None]
    (copy / "model.safetensors").unlink()
    torch.save(state, copy / "pytorch_model.bin")
    tokens = json.loads((copy / "tokenizer.json").read_text())["model"]
    (copy / "tokenizer.json").unlink()
    (copy / "vocab.json").write_text(json.dumps(tokens["vocab"]))
    merges = "\n".join(" ".join(pair) for pair in tokens["merges"])
    (copy / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    assert clipseg_fault(copy) is None
    old = load_clipseg(copy)
    with torch.inference_mode():
        words = ["cell", "some nuclei"]
        torch.testing.assert_close(old.text_cls(words), network.text_cls(words))


def test_broken_folders_are_named(copy: Path, network: ClipSeg) -> None:
    version = model_version(copy)
    state = network.model.state_dict()
    del state["decoder.film_mul.weight"]
    network.model.save_pretrained(copy, state_dict=state)
    with pytest.raises(CheckpointError, match=r"do not fit .*decoder\.film_mul\.weight"):
        load_clipseg(copy)
    assert model_version(copy) != version
    (copy / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(CheckpointError, match="does not hold a readable CLIPSeg"):
        Predictor(str(copy), device="cpu")
    (copy / "tokenizer.json").unlink()
    assert "tokenizer.json' is missing" in str(clipseg_fault(copy))
    with pytest.raises(CheckpointError, match="tokenizer"):
        load_clipseg(copy)
    settings = json.loads((copy / "preprocessor_config.json").read_text())
    for name in ("size",):
        (copy / "preprocessor_config.json").write_text(json.dumps({**settings, name: 100}))
        with pytest.raises(CheckpointError, match="not a multiple of its patches of 16"):
            ClipSeg(network.model, network.tokenizer, read_clipseg_config(copy))
