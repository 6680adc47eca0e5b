from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy import ndimage

from clsclip.training.examples import Example, Source
from clsclip.training.scenes import RECENT, Scenes
from clsclip.training.scenes.biology import WORDS as BIOLOGY
from clsclip.training.scenes.colours import COLOURS, vary
from clsclip.training.scenes.fluorescence import fluorescence
from clsclip.training.scenes.shapes import SHAPES, draw_shape
from clsclip.training.scenes.stained import stained_section
from clsclip.training.scenes.textures import MATERIALS, PATTERNS, Grid
from clsclip.training.scenes.wording import article, counted, listed
from clsclip.words import spellings


@pytest.fixture(scope="module")
def examples() -> Sequence[Example]:
    scenes = Scenes(5)
    return [scenes[index] for index in range(120)]


def test_is_a_source_of_the_wanted_length() -> None:
    source: Source = Scenes(count=7, size=64)
    assert (len(source), source.masked, source.uncertain) == (7, True, frozenset())
    assert source[6].image.shape == (64, 64, 3)
    with pytest.raises(IndexError, match="There are 7 scenes"):
        source[7]


def test_words_are_unique_and_cover_every_combination() -> None:
    words = Scenes().words
    assert len(set(words)) == len(words)
    assert {"star", "red star", "striped star", "red object", *BIOLOGY} <= set(words)
    assert words[: len(SHAPES)] == tuple(SHAPES)


def test_scenes_depend_on_seed_and_index_only() -> None:
    first, again = Scenes(3), Scenes(3)
    first[0]
    for index in range(2, 6):
        one, two = first[index], again[index]
        assert np.array_equal(one.image, two.image)
        assert one.captions == two.captions
        assert one.diameter == two.diameter
        assert one.masks.keys() == two.masks.keys()
        for word in one.masks:
            assert np.array_equal(one.masks[word], two.masks[word])
            assert np.array_equal(one.boxes[word], two.boxes[word])
    assert not np.array_equal(first[1].image, first[2].image)
    assert not np.array_equal(first[1].image, Scenes(4)[1].image)


def test_annotations_are_complete(examples: Sequence[Example]) -> None:
    for example in examples:
        assert example.image.dtype == np.uint8
        assert example.image.shape == (256, 256, 3)
        assert example.ignore is None
        assert example.present == set(example.masks) == set(example.boxes)
        assert example.present
        assert example.present <= set(Scenes.words)
        for mask in example.masks.values():
            assert mask.dtype == np.bool_
            assert mask.shape == (256, 256)
            assert mask.any()


def test_boxes_are_tight(examples: Sequence[Example]) -> None:
    for example in examples:
        for word, boxes in example.boxes.items():
            mask, union = example.masks[word], np.zeros((256, 256), bool)
            assert boxes.dtype == np.float32
            for top, left, bottom, right in boxes.astype(int):
                assert 0 <= top < bottom <= 256
                assert 0 <= left < right <= 256
                inside = mask[top:bottom, left:right]
                assert all(edge.any() for edge in (*inside[[0, -1]], *inside.T[[0, -1]])), word
                union[top:bottom, left:right] = True
            assert not (mask & ~union).any()


def test_only_microscopy_has_a_diameter(examples: Sequence[Example]) -> None:
    for example in examples:
        biological = example.diameter is not None
        assert biological == bool(example.present & set(BIOLOGY))
        assert biological == example.present.issubset(BIOLOGY)
    kinds = [example.diameter is None for example in examples]
    assert 0.35 < np.mean(kinds) < 0.65
    assert all(2 < e.diameter < 140 for e in examples if e.diameter is not None)


def test_words_of_an_object_agree(examples: Sequence[Example]) -> None:
    for example in examples:
        for word in example.present - set(BIOLOGY) - set(SHAPES):
            adjective, noun = word.split()
            if noun != "object":
                for wider in (noun, f"{adjective} object"):
                    assert not (example.masks[word] & ~example.masks[wider]).any()
                    assert len(example.boxes[word]) <= len(example.boxes[wider])
        if example.diameter is None:
            shapes = np.logical_or.reduce([example.masks[w] for w in example.present & set(SHAPES)])
            colours = [
                example.masks[f"{c} object"] for c in COLOURS if f"{c} object" in example.masks
            ]
            assert np.array_equal(np.sum(colours, axis=0), shapes)  # one colour each, none missing


@pytest.mark.parametrize(("colour", "channel"), [("red", 0), ("green", 1), ("blue", 2)])
def test_masks_lie_on_the_colour(examples: Sequence[Example], colour: str, channel: int) -> None:
    word = f"{colour} object"
    found = [e.image[e.masks[word]].astype(float) for e in examples if word in e.masks]
    assert found
    for pixels in found:
        others = np.delete(pixels, channel, axis=1).max(1)
        assert np.mean(pixels[:, channel] > others) > 0.93


def test_objects_stand_out_from_what_surrounds_them(examples: Sequence[Example]) -> None:
    for example in examples:
        if example.diameter is None:
            for colour in COLOURS:
                mask = example.masks.get(f"{colour} object")
                if mask is not None:
                    around = ndimage.binary_dilation(mask, iterations=9) & ~mask
                    difference = example.image[around] - example.image[mask].mean(0)
                    assert np.linalg.norm(difference, axis=1).mean() > 30, (
                        colour,
                        example.captions,
                    )


def test_fluorescence_is_bright_on_dark(examples: Sequence[Example]) -> None:
    shown = 0
    for example in examples:
        # nuclei may show as holes in cells, but not on their own
        if "fluorescence" in example.captions[0] and "cell" not in example.masks:
            shown += 1
            background = ~np.logical_or.reduce(list(example.masks.values()))
            for word, mask in example.masks.items():
                assert example.image[mask].mean() > example.image[background].mean() + 8, word
    assert shown


def test_stained_nuclei_are_darker_than_the_tissue(examples: Sequence[Example]) -> None:
    stained = [e for e in examples if "tissue" in e.masks and "nucleus" in e.masks]
    assert stained
    for example in stained:
        tissue, nucleus = example.masks["tissue"], example.masks["nucleus"]
        assert not (nucleus & ~tissue).any()
        matrix = tissue & ~nucleus
        assert example.image[nucleus].mean() < example.image[matrix].mean() - 8


def test_every_kind_of_word_turns_up() -> None:
    scenes, seen = Scenes(1, size=128), set[str]()
    for index in range(400):
        seen |= scenes[index].present
    assert {*SHAPES, *BIOLOGY} <= seen
    assert {f"{name} object" for name in (*COLOURS, *PATTERNS)} <= seen


def test_captions_name_what_is_there(examples: Sequence[Example]) -> None:
    plurals = {"bacterium": "bacteria", "tissue": "tissue", "pollen": "pollen"}
    for example in examples:
        assert 1 <= len(example.captions) <= 3
        names = {n for w in example.present for n in (*spellings(w)[:2], plurals.get(w, w))}
        for caption in example.captions:
            assert any(name in caption for name in names), caption
            assert "  " not in caption
            assert not {"a orange", "a ellipse", "a arrow", "a octagon"} & {
                " ".join(pair) for pair in zip(caption.split(), caption.split()[1:], strict=False)
            }


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_fill_their_drawing(name: str) -> None:
    cover = draw_shape(SHAPES[name], 60, np.random.default_rng(0))
    assert 0.0 <= cover.min() < 0.01 < 0.99 < cover.max() <= 1.0
    rows, columns = (np.flatnonzero((cover > 0).any(axis)) for axis in (1, 0))
    assert len(cover) - len(rows) <= 1
    assert cover.shape[1] - len(columns) <= 1
    assert 20 < max(len(rows), len(columns)) <= 87  # at most the diagonal of a square


@pytest.mark.parametrize("name", MATERIALS)
def test_patterns_stay_within_the_colour(name: str) -> None:
    rng = np.random.default_rng(0)
    pattern = MATERIALS[name](Grid.turned(rng, 40, 50, 9.0, 0.4))
    assert pattern.shape == (40, 50)
    assert pattern.dtype == np.float32
    assert np.abs(pattern).max() <= 1
    assert (pattern.std() > 0.15) == (name != "plain")
    for colour in COLOURS.values():
        pixels = vary(colour.draw(rng), colour, pattern)
        assert pixels.min() >= 0
        assert pixels.max() <= 1 + 1e-6


def test_english() -> None:
    assert article("orange star") == "an orange star"
    assert article("H&E stained tissue") == "an H&E stained tissue"
    assert counted(1, "arrow", "arrows") == "an arrow"
    assert counted(4, "cell", "cells") == "four cells"
    assert listed(["a star"]) == "a star"
    assert listed(["a star", "a ring", "a drop"]) == "a star, a ring and a drop"


def test_drawn_scenes_are_seen_again_and_renewed(rng: np.random.Generator) -> None:
    scenes = Scenes(3, size=64)
    drawn = [id(scenes.draw(rng)) for _ in range(2 * RECENT)]
    assert len(set(drawn[:RECENT])) == RECENT
    assert RECENT < len(set(drawn)) < 1.6 * RECENT


def test_a_brown_label_may_fill_the_cytoplasm_around_blue_nuclei() -> None:
    """Then brown says nothing about nuclei: it lies beside them, and they stay bluer than it."""
    rng, filled = np.random.default_rng(8), 0
    for _ in range(40):
        picture = stained_section(rng, 192)
        nuclei, tissue = (
            np.logical_or.reduce([s.labels > 0 for s in picture.structures if s.word == word])
            for word in ("nucleus", "tissue")
        )
        if {structure.word for structure in picture.structures} != {"nucleus", "tissue"}:
            continue
        blueness = picture.pixels[..., 2] - picture.pixels[..., 0]
        brown = (blueness < -0.15) & tissue & ~nuclei  # eosin is pink: not that far
        if brown.mean() > 0.1:
            filled += 1
            assert blueness[nuclei].mean() > blueness[brown].mean() + 0.1
    assert filled >= 3


def test_a_picture_is_never_left_without_anything_to_see() -> None:
    for seed in range(300):  # in so small a picture, objects easily come to lie outside
        assert fluorescence(np.random.default_rng(seed), 4).structures
