"""Words, data folders, views and batches of training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from clsclip.errors import FileError, InvalidConfigError
from clsclip.predict.regions import ANY_OBJECT
from clsclip.training.batches import (
    Sampler,
    caption_matrix,
    target_matrix,
)
from clsclip.training.compared import compared_words, match_targets
from clsclip.training.crops import random_view
from clsclip.training.examples import Example
from clsclip.training.formats import LabelFolder, VocBoxes
from clsclip.training.prompts import random_prompt
from clsclip.training.scenes import Scenes
from clsclip.training.sources import find_sources, shares, training_sources
from clsclip.training.tokenizer import train_tokenizer
from clsclip.words import canonical, other_spellings, plural, spellings, word_list


def test_words() -> None:
    assert canonical("Car_Side") == "car"
    assert canonical("Nuclei") == "nucleus"
    assert canonical("starfish") == "starfish"
    assert plural("butterfly") == "butterflies"
    assert plural("toothbrush") == "toothbrushes"
    assert "a nucleus" in spellings("nucleus")
    assert "an ant" in spellings("ant")
    assert all(canonical(form) == "nucleus" for form in spellings("nucleus")[:-1])


def test_spellings_that_mean_the_same() -> None:
    same = other_spellings(["nucleus", "star", "red star", "person", "skis", "stars of mine"])
    assert same["nuclei"] == same["cell nucleus"] == "nucleus"
    assert (same["stars"], same["red stars"], same["people"]) == ("star", "red star", "person")
    assert not {"woman", "man", "human", "ski", "skis", "star"} & same.keys()
    assert "stars" not in other_spellings(["star", "stars"])


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
    sampler = Sampler(list(sources.values()), [1] * 4, plan=lambda _: (8, 64), pairs=4, seed=0,
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
    sampler = Sampler([sources["nuclei"], sources["blood"]], [1, 1], plan=lambda _: (8, 64),
                      pairs=4, seed=0)  # fmt: skip
    batch = sampler.batch()
    for present, absent in zip(batch.present, batch.absent, strict=True):
        assert not present & absent
        assert ("cell" in absent) is False
        assert ("nucleus" in absent) is False


def test_a_rare_word_is_asked_where_it_is_absent_as_well(data: Path) -> None:
    file = data / "coco" / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    content["categories"] += [{"id": 100 + n, "name": f"thing {n}"} for n in range(80)]
    file.write_text(json.dumps(content))
    sources = find_sources(data)
    sampler = Sampler(
        [sources["coco"], sources["nuclei"]], [1, 1], plan=lambda _: (16, 32), pairs=2, seed=0
    )
    present = absent = 0
    for _ in range(30):
        batch = sampler.batch()
        for word, mask in zip(batch.words, batch.masks, strict=True):
            if word == "car":
                present += bool(mask.any())
                absent += not mask.any()
    assert present > 50
    assert absent > 0.25 * present, "eighty other words must not crowd it out"


@pytest.mark.parametrize("image_level", [True, False])
def test_unseen_words_have_no_masks(data: Path, image_level: bool) -> None:
    sources = find_sources(data)
    sampler = Sampler(list(sources.values()), [1] * 4, plan=lambda _: (16, 48), pairs=4, seed=0,
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
    sampler = Sampler(list(sources.values()), shares(sources, share), plan=lambda _: (12, 48),
                      pairs=4, seed=0, image_level=True)  # fmt: skip
    batch = sampler.batch()
    matrix = caption_matrix(batch)
    assert matrix.shape == (12, sum(map(bool, batch.captions)))
    assert (matrix.sum(0) == 1).all()
    assert [bool(caption) for caption in batch.captions] == matrix.any(1).tolist()
    assert not any(p & a for p, a in zip(batch.present, batch.absent, strict=True))
    # a photograph may show a circle; nobody annotated whether it does
    alone = Sampler(
        list(sources.values()), [0, 0, 1, 0, 0], plan=lambda _: (4, 48), pairs=4, seed=0
    )
    shapes = frozenset(sources["scenes"].everywhere)
    assert not any(shapes & row for row in alone.batch().absent)


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


@pytest.mark.parametrize("unseen", [frozenset(), frozenset({"car"})])
def test_boxes_of_unseen_words_guide_no_view(data: Path, unseen: frozenset[str]) -> None:
    example = find_sources(data)["coco"][0]
    rng = np.random.default_rng(0)
    regions = [random_view(example, 64, rng, unseen).region for _ in range(40)]
    assert {region[0] for region in regions if region} == {"car"} - unseen


def test_a_region_counts_inside_its_box_only(rng: np.random.Generator) -> None:
    box = np.array([[20, 30, 60, 50]], np.float32)
    mask = np.zeros((100, 130), bool)
    mask[10:90, 35:45] = True
    example = Example(np.zeros((100, 130, 3), np.uint8), {"car": mask}, frozenset({"car"}),
                      boxes={"car": box})  # fmt: skip
    views = [random_view(example, 64, rng) for _ in range(40)]
    shown = [view for view in views if view.region]
    assert shown
    for view in shown:
        assert 0.4 < view.boxed().float().mean() < 0.75  # 1 / 1.3 of each side
        assert (view.mask("car") & ~view.boxed()).any()
    assert all(view.boxed().all() for view in views if not view.region)


def test_patches_are_compared_with_all_words_of_the_batch(data: Path) -> None:
    sources = {**find_sources(data), "scenes": Scenes(1, size=64)}
    sampler = Sampler(list(sources.values()), [1] * 5, plan=lambda _: (8, 64), pairs=2, seed=0,
                      image_level=True, unseen=frozenset({"nucleus"}), patch=16)  # fmt: skip
    for _ in range(3):
        batch = sampler.batch()
        words = compared_words(batch, np.random.default_rng(0))
        assert len(set(words)) == len(words)
        assert frozenset().union(*batch.present) <= set(words)
        assert len(words) > len(frozenset().union(*batch.present))  # and some others
        shown, hidden, somewhere = match_targets(batch, words)
        assert shown.shape == hidden.shape == (8, len(words), 16)
        assert not (shown & hidden).any()
        for row, (present, absent) in enumerate(zip(batch.present, batch.absent, strict=True)):
            for column, word in enumerate(words):
                told = bool(hidden[row, column].any() or shown[row, column].any())
                assert bool(somewhere[row, column]) == (
                    word in present and word not in batch.cover[row]
                )
                if word in absent:
                    assert torch.equal(hidden[row, column], batch.vouched[row])
                elif word not in present or somewhere[row, column]:
                    assert not told
        for pair, word in enumerate(batch.words):
            row = pair // 2
            if word in batch.cover[row] and word in words and batch.valid[pair].all():
                cells = batch.masks[pair].view(4, 16, 4, 16).float().mean((1, 3)).flatten()
                assert torch.equal(shown[row, words.index(word)], cells >= 0.25)
        assert "nucleus" not in {word for cover in batch.cover for word in cover}


def test_views_may_be_asked_one_word_each(data: Path) -> None:
    sampler = Sampler(list(find_sources(data).values()), [1] * 4, plan=lambda _: (12, 32),
                      pairs=1, seed=0, image_level=True)  # fmt: skip
    batches = [sampler.batch() for _ in range(4)]
    assert all(len(batch.words) == len(batch.masks) == len(batch.valid) == 12 for batch in batches)
    asked = [pair for batch in batches for pair in zip(batch.words, batch.present, strict=True)]
    assert any(word == ANY_OBJECT for word, _ in asked)
    assert any(word in present for word, present in asked)
    assert any(word not in present and word != ANY_OBJECT for word, present in asked)
