"""Small OWL and Grounding DINO detectors with random weights, through the real loading path."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    BertTokenizer,
    CLIPTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Owlv2ImageProcessor,
    Owlv2Processor,
    OwlViTConfig,
    OwlViTForObjectDetection,
    OwlViTImageProcessor,
    OwlViTProcessor,
)

from clsclip.errors import CheckpointError, ModelUnavailableError
from clsclip.regions.open_vocabulary import OpenVocabularyDetector
from clsclip.training.tokenizer import train_tokenizer

SIDE, PATCH = 64, 16
KINDS = {
    "owlv2": (Owlv2Config, Owlv2ForObjectDetection, Owlv2ImageProcessor, Owlv2Processor),
    "owlvit": (OwlViTConfig, OwlViTForObjectDetection, OwlViTImageProcessor, OwlViTProcessor),
}


def save_detector(kind: str, tokenizer: CLIPTokenizer, folder: Path) -> Path:
    """A detector whose boxes are the patches of its input, half a patch further."""
    config, model, image_processor, processor = KINDS[kind]
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
             "num_attention_heads": 2}  # fmt: skip
    text = {
        **tower, "vocab_size": len(tokenizer), "max_position_embeddings": 16,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    vision = {**tower, "image_size": SIDE, "patch_size": PATCH}
    torch.manual_seed(0)
    network = model(config(text_config=text, vision_config=vision, projection_dim=32))
    flat = (network.box_head.dense2, network.class_head.logit_scale, network.class_head.logit_shift)
    for layer in flat:  # without the last two, some random scores would be 0
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    network.save_pretrained(folder)
    images = image_processor(size={"height": SIDE, "width": SIDE})
    processor(image_processor=images, tokenizer=tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    tokenizer = train_tokenizer(["nucleus", "a photo of a cell"] * 3)
    root = tmp_path_factory.mktemp("open_vocabulary")
    return {kind: save_detector(kind, tokenizer, root / kind) for kind in KINDS}


def noise(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    return rng.random((rows, columns, 3), np.float32)


def patches(rows: int, columns: int, height: int, width: int) -> set[tuple[float, ...]]:
    """Where the boxes of :func:`save_detector` lie in an image."""
    half = np.array([height, width]) / 2
    boxes = set()
    for row in range(height, 4 * height + 1, height):
        for column in range(width, 4 * width + 1, width):
            centre = np.array([row, column])
            low, high = centre - half, np.minimum(centre + half, (rows, columns))
            if (low < high).all():
                boxes.add((*low.tolist(), *high.tolist()))
    return boxes


@pytest.mark.parametrize("word", ["nucleus", "細胞核", "a very long description " * 20])
@pytest.mark.parametrize("shape", [(60, 120), (120, 60)])
def test_boxes_are_in_the_pixels_of_the_image(
    folders: dict[str, Path], rng: np.random.Generator, shape: tuple[int, int], word: str
) -> None:
    for kind, folder in folders.items():
        detector = OpenVocabularyDetector(folder, device="cpu", confidence=0.0)
        regions = detector.propose(noise(rng, *shape), word)
        # OWLv2 fills the image up to a square, OWL-ViT stretches it
        sides = (30, 30) if kind == "owlv2" else (shape[0] // 4, shape[1] // 4)
        found = {tuple(round(edge, 1) for edge in region.box) for region in regions}
        assert found == patches(*shape, *sides)
        assert len(found) == len(regions)
        scores = [region.score for region in regions]
        assert scores == sorted(scores, reverse=True)
        assert {(region.word, region.origin) for region in regions} == {(word, "open vocabulary")}


def test_scores_depend_on_word_and_image_and_are_thresholded(
    folders: dict[str, Path], rng: np.random.Generator
) -> None:
    picture = noise(rng, 64, 64)
    every = OpenVocabularyDetector(folders["owlv2"], device="cpu", confidence=0.0)
    first = every.propose(picture, "nucleus")
    assert every.propose(picture, "nucleus") == first
    assert every.propose(noise(rng, 64, 64), "nucleus") != first
    assert every.propose(picture, "airplane") != first
    middle = first[len(first) // 2].score
    some = OpenVocabularyDetector(folders["owlv2"], device="cpu", confidence=middle)
    assert some.propose(picture, "nucleus") == [r for r in first if r.score > middle]
    none = OpenVocabularyDetector(folders["owlv2"], device="cpu", confidence=1.0)
    assert none.propose(picture, "nucleus") == []


def test_any_image_shape_works(folders: dict[str, Path], rng: np.random.Generator) -> None:
    for folder in folders.values():
        detector = OpenVocabularyDetector(folder, device="cpu", confidence=0.0)
        for shape in ((1, 1), (1, 300), (3, 7), (3, 3)):
            for region in detector.propose(noise(rng, *shape), "cell"):
                assert 0 <= region.box[0] < region.box[2] <= shape[0]
                assert 0 <= region.box[1] < region.box[3] <= shape[1]


def test_a_grounding_dino_reads_words_too(tmp_path: Path, rng: np.random.Generator) -> None:
    tower = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "nucleus"]
    tokenizer = BertTokenizer(vocab={piece: index for index, piece in enumerate(pieces)})
    torch.manual_seed(0)
    config = GroundingDinoConfig(
        backbone_config={
            "model_type": "swin", "image_size": 64, "embed_dim": 8, "depths": [1, 1, 1],
            "num_heads": [1, 1, 2], "window_size": 4, "out_features": ["stage2", "stage3"],
        },
        text_config={**tower, "model_type": "bert", "vocab_size": 7, "intermediate_size": 32},
        num_feature_levels=3, d_model=32, num_queries=20, encoder_layers=1, decoder_layers=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, encoder_attention_heads=2,
        decoder_attention_heads=2, disable_custom_kernels=True,
    )  # fmt: skip
    GroundingDinoForObjectDetection(config).save_pretrained(tmp_path)
    images = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    GroundingDinoProcessor(images, tokenizer).save_pretrained(tmp_path)
    detector = OpenVocabularyDetector(tmp_path, device="cpu", confidence=0.0)
    for word in ("nucleus", "細胞核", "cells, e.g. nuclei"):
        regions = detector.propose(noise(rng, 60, 120), word)
        assert regions
        for region in regions:
            assert 0 <= region.box[0] < region.box[2] <= 60
            assert 0 <= region.box[1] < region.box[3] <= 120


def test_weights_that_are_nowhere_are_told_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    detector = OpenVocabularyDetector(device="cpu")
    assert detector.knows("細胞核")
    assert not detector.available()
    with pytest.raises(ModelUnavailableError, match="google/owlv2-base-patch16-ensemble") as caught:
        detector.load()
    assert "Connect to the network" in caught.value.message
    for nothing in ("/no/such/folder", "", "a b", tmp_path):
        assert not OpenVocabularyDetector(nothing).available()
    with pytest.raises(ModelUnavailableError, match="no/such/folder"):
        OpenVocabularyDetector("/no/such/folder", device="cpu").load()


def test_weights_in_the_cache_of_the_hub_need_no_network(
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    rng: np.random.Generator,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    commit = "0" * 40
    repository = tmp_path / "models--someone--owl"
    shutil.copytree(folders["owlv2"], repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    detector = OpenVocabularyDetector("someone/owl", device="cpu", confidence=0.0)
    assert detector.available()
    assert detector.propose(noise(rng, 64, 64), "cell")


def _truncate(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


def _wider(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 2
    (folder / "config.json").write_text(json.dumps(config))


def _other_kind(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "clip"}')


@pytest.mark.parametrize("damage", [_truncate, _pickled, _wider, _other_kind])
def test_damaged_and_foreign_folders_are_refused(
    folders: dict[str, Path], tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(folders["owlv2"], folder)
    damage(folder)
    detector = OpenVocabularyDetector(folder, device="cpu")
    assert detector.available() is (damage is not _pickled)
    with pytest.raises(CheckpointError, match="damaged"):
        detector.load()
