"""Words, data folders, crops, batches, losses, metrics and short runs of real training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.metrics import jaccard_score

from clsclip import Predictor
from clsclip.cli.train import main
from clsclip.errors import CheckpointError, FileError, InvalidConfigError
from clsclip.predict.regions import ANY_OBJECT
from clsclip.training.batches import (
    Sampler,
    caption_matrix,
    random_prompt,
    target_matrix,
)
from clsclip.training.crops import random_view
from clsclip.training.examples import Example
from clsclip.training.formats import LabelFolder, VocBoxes
from clsclip.training.loop import cosine_rate
from clsclip.training.losses import mask_loss, presence_loss, sigmoid_contrast
from clsclip.training.metrics import Scores
from clsclip.training.run import Clock, Run
from clsclip.training.sources import find_sources, shares, training_sources
from clsclip.training.tokenizer import train_tokenizer
from clsclip.training.words import canonical, plural, spellings, word_list


@pytest.fixture
def data(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A label folder, COCO, Pascal VOC and class folders, made of disks and squares."""
    root = tmp_path / "data"
    disk = np.hypot(*(np.indices((64, 80)) - np.array([32, 40])[:, None, None])) < 12
    picture = rng.integers(0, 60, (64, 80, 3), dtype=np.uint8)
    picture[disk] += 180

    def save(array: np.ndarray, *parts: str) -> None:
        file = root.joinpath(*parts)
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(file)

    for part in ("train", "val"):
        for index in range(3):
            save(picture, "nuclei", part, "images", f"{index}.png")
            save(disk.astype(np.uint16), "nuclei", part, "labels", f"{index}.png")
    save(picture, "coco", "train2017", "1.png")
    square = [20, 10, 40, 10, 40, 30, 20, 30]
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 3, "segmentation": [square], "iscrowd": 0,
         "area": 400, "bbox": [20, 10, 20, 20]},
        {"id": 2, "image_id": 1, "category_id": 1, "iscrowd": 1, "area": 50,
         "segmentation": {"size": [64, 80], "counts": [0, 50, 5070]}, "bbox": [0, 0, 1, 50]},
    ]  # fmt: skip
    content = {
        "images": [{"id": 1, "file_name": "1.png", "width": 80, "height": 64}],
        "categories": [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}],
        "annotations": annotations,
    }
    (root / "coco" / "annotations").mkdir()
    (root / "coco" / "annotations" / "instances_train2017.json").write_text(json.dumps(content))
    save(picture, "blood", "JPEGImages", "b.jpg")
    box = "<bndbox><xmin>10</xmin><ymin>20</ymin><xmax>30</xmax><ymax>60</ymax></bndbox>"
    (root / "blood" / "Annotations").mkdir()
    (root / "blood" / "Annotations" / "b.xml").write_text(
        f"<annotation><object><name>RBC</name>{box}</object></annotation>"
    )
    for word in ("Car_side", "starfish"):
        save(picture, "objects", word, "1.jpg")
    return root


def test_words() -> None:
    assert canonical("Car_Side") == "car"
    assert canonical("Nuclei") == "nucleus"
    assert canonical("starfish") == "starfish"
    assert plural("butterfly") == "butterflies"
    assert plural("toothbrush") == "toothbrushes"
    assert "a nucleus" in spellings("nucleus")
    assert "an ant" in spellings("ant")
    assert all(canonical(form) == "nucleus" for form in spellings("nucleus")[:-1])


def test_every_text_can_be_encoded_and_read_back() -> None:
    tokenizer = train_tokenizer(["nucleus", "a photo of a nucleus."] * 4)
    for text in ("nucleus", "mitochondrium ångström", "細胞", "🙂 cell"):
        ids = tokenizer(text)["input_ids"]
        assert ids[0] == tokenizer.bos_token_id
        assert ids[-1] == tokenizer.eos_token_id == max(tokenizer.get_vocab().values())
        assert tokenizer.unk_token_id not in ids[1:-1]
    assert len(tokenizer("nucleus")["input_ids"]) == 3


def test_data_folders_are_recognised(data: Path) -> None:
    sources = find_sources(data)
    assert {name: type(s).__name__ for name, s in sources.items()} == {
        "blood": "VocBoxes", "coco": "CocoSource", "nuclei": "LabelFolder",
        "objects": "ClassFolders",
    }  # fmt: skip
    assert sources["objects"].words == ("car", "starfish")
    assert list(find_sources(data, val=True)) == ["nuclei"]
    example = sources["coco"][0]
    assert set(example.masks) == {"car"}
    assert 380 <= int(example.masks["car"].sum()) <= 441
    assert example.ignore is not None
    assert int(example.ignore.sum()) == 50
    nuclei = sources["nuclei"][0]
    assert nuclei.diameter == pytest.approx(24, abs=1.5)
    with pytest.raises(FileError, match="no data of a known format"):
        find_sources(data / "objects" / "starfish")
    with pytest.raises(FileError, match="does not exist"):
        find_sources(data / "none")


def test_voc_boxes_become_ellipses_with_ignored_edges(data: Path) -> None:
    example = VocBoxes(data / "blood")[0]
    mask, ignore = example.masks["red blood cell"], example.ignore
    assert ignore is not None
    assert mask[40, 20]
    assert not mask[21, 11]
    assert not ignore[21, 11]
    assert not ignore[40, 20]
    assert ignore[40, 29]
    assert ignore[40, 30]
    assert mask.sum() == pytest.approx(np.pi * 20 * 10, rel=0.1)
    np.testing.assert_array_equal(example.masks["cell"], mask)


def test_missing_labels_are_named(data: Path) -> None:
    (data / "nuclei" / "train" / "labels" / "1.png").unlink()
    with pytest.raises(FileError, match=r"1\.png' has no label file"):
        LabelFolder(data / "nuclei/train/images", data / "nuclei/train/labels", "nucleus")


def test_shares(data: Path) -> None:
    sources = find_sources(data)
    assert shares(sources, ("nuclei=4", "coco=0")) == [1.0, 0.0, 4.0, 1.0]
    for bad in ("nuclei", "nuclei=x", "moon=1", "nuclei=-1"):
        with pytest.raises(InvalidConfigError, match="FOLDER=NUMBER"):
            shares(sources, (bad,))


@pytest.mark.parametrize("diameter", [None, 24.0])
def test_crops_keep_image_and_mask_together(
    rng: np.random.Generator, diameter: float | None
) -> None:
    disk = np.hypot(*(np.indices((100, 130)) - np.array([50, 65])[:, None, None])) < 30
    pixels = np.repeat((disk * 200 + 20).astype(np.uint8)[..., None], 3, axis=2)
    example = Example(pixels, {"disk": disk}, frozenset({"disk"}), None, diameter)
    agreements = []
    for _ in range(40):
        view = random_view(example, 64, rng)
        image = view.image(rng)
        assert image.shape == (3, 64, 64)
        assert 0.0 <= float(image.min()) <= float(image.max()) <= 1.0
        mask, rest = view.mask("disk") & view.valid(), ~view.mask("disk") & view.valid()
        assert view.mask("disk").any() or not view.visible("disk")
        if mask.sum() > 50 and rest.sum() > 50:
            light = image.mean(0)
            agreements.append(abs(float(light[mask].mean() - light[rest].mean())))
    assert len(agreements) > 20
    assert np.median(agreements) > 0.2  # object and background differ where the mask says so


def test_batches_ask_for_present_and_absent_words(data: Path) -> None:
    sources = find_sources(data)
    sampler = Sampler(list(sources.values()), [1] * 4, plan=lambda: (8, 64), pairs=4, seed=0,
                      image_level=True)  # fmt: skip
    for _ in range(4):
        batch = sampler.batch()
        assert batch.images.shape == (8, 3, 64, 64)
        assert batch.masks.shape == batch.valid.shape == (32, 64, 64)
        for pair, word in enumerate(batch.words):
            image = pair // 4
            if word == ANY_OBJECT:
                assert (batch.masks[pair] & batch.valid[pair]).any()
                assert not batch.valid[pair].all()
            elif word in batch.absent[image]:
                assert not batch.masks[pair].any(), word
            else:
                assert word in batch.present[image]
        assert any(batch.masks[pair].any() for pair in range(32))
    words = list(sampler.batch().words)
    target, known = target_matrix(batch, words)
    assert (target & ~known).sum() == 0
    assert not (set().union(*batch.present) & {"face"})


def test_uncertain_words_are_never_asked_as_absent(data: Path) -> None:
    sources = find_sources(data)
    sampler = Sampler([sources["nuclei"], sources["blood"]], [1, 1], plan=lambda: (8, 64),
                      pairs=4, seed=0)  # fmt: skip
    batch = sampler.batch()
    for present, absent in zip(batch.present, batch.absent, strict=True):
        assert not present & absent
        assert ("cell" in absent) is False
        assert ("nucleus" in absent) is False


@pytest.mark.parametrize("image_level", [True, False])
def test_unseen_words_have_no_masks(data: Path, image_level: bool) -> None:
    sources = find_sources(data)
    sampler = Sampler(list(sources.values()), [1] * 4, plan=lambda: (16, 48), pairs=4, seed=0,
                      unseen=frozenset({"nucleus"}), image_level=image_level)  # fmt: skip
    batches = [sampler.batch() for _ in range(4)]
    asked = [
        (word, bool(located), bool(mask.any()), pair // 4, batch)
        for batch in batches
        for pair, (word, located, mask) in enumerate(
            zip(batch.words, batch.located, batch.masks, strict=True)
        )
    ]
    assert not any(filled for word, _, filled, _, _ in asked if word == "nucleus")
    assert any(filled for *_, filled, _, _ in asked)
    if not image_level:
        assert all(located for _, located, *_ in asked)
        assert "nucleus" not in {word for word, *_ in asked}
        assert not any("nucleus" in row for b in batches for row in (*b.present, *b.absent))
        return
    weak = [(word, image, batch) for word, located, _, image, batch in asked if not located]
    assert {"nucleus", "starfish"} <= {word for word, *_ in weak}
    assert all(word in batch.present[image] for word, image, batch in weak)


def test_scenes_join_the_training_with_their_captions(data: Path) -> None:
    share = ("scenes=3", "nuclei=1", "coco=0", "blood=0", "objects=0")
    sources = training_sources(str(data), share, 0)
    assert "scenes" in sources
    assert "scenes" not in training_sources(str(data), share[1:], 0)
    sampler = Sampler(list(sources.values()), shares(sources, share), plan=lambda: (12, 48),
                      pairs=4, seed=0, image_level=True)  # fmt: skip
    batch = sampler.batch()
    matrix = caption_matrix(batch)
    assert matrix.shape == (12, sum(map(bool, batch.captions)))
    assert (matrix.sum(0) == 1).all()
    assert [bool(caption) for caption in batch.captions] == matrix.any(1).tolist()
    assert not any(p & a for p, a in zip(batch.present, batch.absent, strict=True))
    # a photograph may show a circle; nobody annotated whether it does
    alone = Sampler(list(sources.values()), [0, 0, 1, 0, 0], plan=lambda: (4, 48), pairs=4, seed=0)
    shapes = frozenset(sources["scenes"].everywhere)
    assert not any(shapes & row for row in alone.batch().absent)


def test_presence_loss_wants_a_part_of_the_image() -> None:
    nothing, somewhere = torch.full((2, 64, 64), -5.0), torch.full((2, 64, 64), -5.0)
    somewhere[:, :24, :24] = 5
    assert float(presence_loss(nothing)) > 9
    assert float(presence_loss(somewhere)) < 0.1
    empty = torch.zeros(0, 64, 64, requires_grad=True)
    assert float(presence_loss(empty).detach()) == 0.0


def test_word_lists(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("# a comment\nstar\nNuclei  # another\n\n")
    assert word_list(str(file)) == word_list("star, cell nucleus") == {"star", "nucleus"}
    assert word_list("") == frozenset()
    with pytest.raises(FileError, match="cannot be read"):
        word_list(str(tmp_path / "none.txt"))


def test_prompts_use_spellings_and_templates(rng: np.random.Generator) -> None:
    prompts = {random_prompt("nucleus", ["a photo of a {}."], rng) for _ in range(200)}
    assert {"nucleus", "a photo of a nucleus.", "nuclei", "cell nucleus"} <= prompts


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


def test_contrast_leaves_unknown_pairs_out() -> None:
    similarity = torch.tensor([[5.0, -5.0, 9.0]], requires_grad=True)
    target = torch.tensor([[True, False, False]])
    known = torch.tensor([[True, True, False]])
    loss = sigmoid_contrast(similarity, target, known)
    loss.backward()
    assert float(loss.detach()) < 0.05
    assert similarity.grad is not None
    assert float(similarity.grad[0, 2]) == 0.0


def test_scores_agree_with_scikit_learn(rng: np.random.Generator) -> None:
    scores = Scores()
    pixels: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {"a": [], "b": []}
    for word in ("a", "b", "a", "b", "a"):
        predicted, truth, ignore = rng.random((3, 20, 30)) < 0.4
        scores.add(word, predicted, truth, ignore)
        pixels[word].append((predicted[~ignore], truth[~ignore]))
    joined = {
        word: [np.concatenate(side) for side in zip(*found, strict=True)]
        for word, found in pixels.items()
    }
    expected = {word: jaccard_score(truth, made) for word, (made, truth) in joined.items()}
    assert scores.per_class == pytest.approx(expected, abs=1e-9)
    assert scores.miou == pytest.approx(np.mean(list(expected.values())), abs=1e-9)
    made, truth = (np.concatenate([joined[w][k] for w in "ab"]) for k in (0, 1))
    both = [jaccard_score(truth, made), jaccard_score(~truth, ~made)]
    assert scores.fb_iou == pytest.approx(np.mean(both), abs=1e-9)


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
           "--image-size", "64", "--batch-size", "4", "--decoder-width", "24", "--presence",
           "--first-size", "48", "--first-part", "0.5", "--output",
           str(tmp_path / "f")]  # fmt: skip
    assert main(fit) == 0
    assert main([*fit, "--resume"]) == 0  # its time is over: one more step, the same run
    assert main([*fit, "--resume", "--seed", "5"]) == 1
    assert "other settings" in capsys.readouterr().err
    model = tmp_path / "f" / "model"
    assert main(["bundle", "--model", str(model), "--output", str(tmp_path / "b")]) == 0
    recipe = json.loads((tmp_path / "b" / "config.json").read_text())["training"]
    assert [each["layers"] for each in recipe["pretraining"]] == [5, 5]
    assert recipe["pretraining"][0]["steps"] > 0
    assert recipe["heads"][0]["steps"] > 0
    frozen = recipe["heads"][0]
    assert frozen["encoder_rate"] == 0
    free = [*fit[:-1], str(tmp_path / "e"), "--start", str(tmp_path / "f"), "--encoder-rate", "0.1"]
    assert main(free) == 0
    assert main(["bundle", "--model", str(tmp_path / "e"), "--output", str(tmp_path / "b")]) == 0
    recipe = json.loads((tmp_path / "b" / "config.json").read_text())["training"]
    assert [head["encoder_rate"] for head in recipe["heads"]] == [0, 0.1]
    assert len(recipe["pretraining"]) == 2
    before, after = (
        load_file(folder / "clip" / "model.safetensors")
        for folder in (tmp_path / "q", tmp_path / "e" / "model")
    )
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.startswith("vision_model.encoder") for name in changed)
    assert not any(name.startswith("text_model") for name in changed)
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


def test_state_round_trip_and_foreign_states(tmp_path: Path) -> None:
    def parts() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        module = torch.nn.Linear(3, 2)
        return module, torch.optim.AdamW(module.parameters(), lr=0.1)

    from clsclip.training.evaluate import EvaluateSettings

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
