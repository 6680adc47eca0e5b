"""``napari-clsclip-train ablate``: every variant once, the same budget, tables that add up."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPConfig

from clsclip import Predictor
from clsclip.cli.train import main
from clsclip.errors import InvalidConfigError
from clsclip.model.clip import random_towers
from clsclip.training.ablate import AblateSettings, ablate
from clsclip.training.ablation_tables import (
    ALL_TABLES,
    TABLES,
    Measured,
    Spread,
    Variant,
    VariantResult,
    required_variants,
    table_markdown,
)
from clsclip.training.run import RUN_FILE
from clsclip.training.tokenizer import train_tokenizer

SMALL = ["--steps", "1", "--image-size", "32", "--batch-size", "2", "--accumulate", "1",
         "--pairs", "2", "--limit", "1",
         "--decoder-width", "8", "--decoder-heads", "1", "--prompt-tokens", "3",
         "--share", "scenes=1", "--share", "blood=0", "--unseen", "red circle"]  # fmt: skip


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLIP with random weights and 9 visual layers, as many as Table 3 needs."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["nucleus", "a photo of a cell"] * 3)
    text = {"vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 32,
            "num_hidden_layers": 1, "num_attention_heads": 1,
            "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id}  # fmt: skip
    vision = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 9,
              "num_attention_heads": 2, "image_size": 32, "patch_size": 16}  # fmt: skip
    towers = random_towers(CLIPConfig(text_config=text, vision_config=vision), tokenizer)
    folder = tmp_path_factory.mktemp("clips") / "nine"
    towers.clip.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_variants_of_the_tables() -> None:
    assert [variant.name(12) for variant in required_variants(ALL_TABLES)] == [
        "channel", "spatial", "replace-2-3-4", "prompts", "replace-0-1-2", "replace-2-5-8",
        "replace-9-10-11",
    ]  # fmt: skip
    last = TABLES["3"].rows[2]
    assert last.variant.name(10) == "replace-7-8-9"
    assert last.variant.name(24) == "replace-21-22-23"
    with pytest.raises(
        InvalidConfigError, match="2, 5, 8 cannot be replaced in a visual encoder of 8"
    ):
        Variant("replace", (2, 5, 8)).replaced(8)


def result(*miou: float) -> VariantResult:
    seeds = {seed: {"cells": Measured(miou=m, fb_iou=0.5)} for seed, m in enumerate(miou)}
    summary = {"cells": Spread.of([each["cells"] for each in seeds.values()])}
    return VariantResult(
        guidance="replace", replaced_layers=(), weights=1234, seeds=seeds, summary=summary
    )


def test_differences_are_judged_by_the_spread() -> None:
    results = {"channel": result(0.40, 0.44, 0.42), "spatial": result(0.30, 0.34, 0.32),
               "replace-2-3-4": result(0.41, 0.45, 0.43)}  # fmt: skip
    text = table_markdown("1", results, 12, ["cells"])
    assert "| channel attention | 1,234 | 3 | 42.0 ± 2.0 | 50.0 ± 0.0 | 68.3 / 78.6 |" in text
    assert "channel attention -1.0 (within the spread)" in text
    assert "spatial attention -11.0 (beyond the spread)" in text
    del results["spatial"]
    results["channel"] = result(0.5)
    text = table_markdown("1", results, 12, ["cells"])
    assert "| spatial attention | - | 0 | - | - | 60.5 / 73.8 |" in text
    assert "cells: channel attention +7.0 (one seed, no spread)." in text


def test_ablation_is_interrupted_goes_on_and_gains_tables(
    data: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "ablation"
    command = ["ablate", "--clip", str(clip), "--data", str(data), "--output", str(output), *SMALL]
    first = AblateSettings(
        clip=str(clip), data=str(data), table=("2",), seeds=2, steps=1, image_size=32,
        batch_size=2, accumulate=1, pairs=2, limit=1, decoder_width=8, decoder_heads=1,
        prompt_tokens=3, share=("scenes=1", "blood=0"), unseen="red circle",
    )  # fmt: skip

    def interrupt(line: str) -> None:
        if line.startswith("100") and (output / "replace-2-3-4_seed0").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ablate(first, output, tell=interrupt)
    assert not (output / "replace-2-3-4_seed0" / "config.json").exists()
    written = (output / "prompts_seed0" / "model.safetensors").stat().st_mtime_ns
    assert main([*command, "--table", "2", "--seeds", "2"]) == 1
    assert "Give --resume" in capsys.readouterr().err
    assert main([*command, "--table", "2", "--seeds", "2", "--resume"]) == 0
    assert (output / "prompts_seed0" / "model.safetensors").stat().st_mtime_ns == written
    table = capsys.readouterr().out
    assert "**Table 2." in table
    assert "Table 3" not in table
    assert main([*command, "--table", "3", "--seeds", "1", "--resume"]) == 0
    table = capsys.readouterr().out
    assert table.strip() == (output / "ablation.md").read_text().strip()
    assert [line for line in table.splitlines() if line.startswith("**")] == [
        "**Table 2. Encoder update**",
        "**Table 3. Layers whose [CLS] is replaced**",
    ]
    assert "9, 10, 11 (here 6, 7, 8, the last of 9)" in table

    found = json.loads((output / "ablation.json").read_text())
    assert len(found["variants"]) == 5
    for name, variant in found["variants"].items():
        seeds = {"0", "1"} if name in ("prompts", "replace-2-3-4") else {"0"}
        assert variant["seeds"].keys() == seeds
        for seed, parts in variant["seeds"].items():
            run = output / f"{name}_seed{seed}"
            assert json.loads((run / "figures.json").read_text())["parts"] == parts
            asked = json.loads((run / RUN_FILE).read_text())
            assert (asked["guidance"], asked["seed"]) == (variant["guidance"], int(seed))
            weights = load_file(run / "model.safetensors")
            trained = {key.split(".")[1] for key in weights if key.startswith("projections")}
            assert trained == set(map(str, variant["replaced_layers"]))
            assert {"nuclei", "scenes"} <= parts.keys()
            assert variant["weights"] == sum(tensor.numel() for tensor in weights.values())
        for part, spread in variant["summary"].items():
            miou = [parts[part]["miou"] for parts in variant["seeds"].values() if part in parts]
            assert spread["miou"] == pytest.approx(mean(miou))
            if len(miou) > 1:
                assert spread["miou_spread"] == pytest.approx(stdev(miou))
    assert asked["steps"] == 1
    assert main([*command, "--table", "2", "--resume", "--learning-rate", "0.1"]) == 1
    assert "other settings" in capsys.readouterr().err
    model = Predictor(str(output / "prompts_seed0"))
    answer = model.segment(np.zeros((40, 30), np.uint8), ["cell"])
    assert answer.probabilities.shape == (1, 40, 30)


def test_what_cannot_be_compared_is_said_before_anything_is_trained(
    data: Path, clip: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ["--output", str(tmp_path / "a")]
    shallow = ["--clip", str(tiny_model / "clip"), "--data", str(data)]
    assert main(["ablate", *shallow, *output, "--table", "3", "--steps", "1"]) == 2
    assert "Layers 2, 5, 8 cannot be replaced" in capsys.readouterr().err
    nothing = ["--clip", str(clip), "--data", str(data / "objects")]
    assert main(["ablate", *nothing, *output, "--steps", "1"]) == 1
    assert "no validation part" in capsys.readouterr().err
    wrong = ["--clip", str(clip), "--data", str(data), "--regions", "somewhere"]
    assert main(["ablate", *wrong, *output, "--steps", "1"]) == 2
    assert "regions" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["ablate", *nothing, *output, "--presence"])
    assert not (tmp_path / "a").exists()
