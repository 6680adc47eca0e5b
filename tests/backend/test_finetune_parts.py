"""Corrections, views, memory, held-out images and promotion, each by itself."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tifffile import imwrite

from clsclip import Predictor
from clsclip.errors import CheckpointError, FileError, InvalidConfigError
from clsclip.model.checkpoint import load_model
from clsclip.model.report import Figures, WordFigures
from clsclip.model.run_state import OUTCOME_FILE, locked, read_state, write_state
from clsclip.training.checks import PATIENCE, Best
from clsclip.training.class_ids import read_classes, word_labels
from clsclip.training.corrections import Correction
from clsclip.training.distributed import alone
from clsclip.training.evaluate import evaluate
from clsclip.training.evaluate_settings import EvaluateSettings
from clsclip.training.examples import Example
from clsclip.training.finetune_settings import FinetuneSettings
from clsclip.training.footprint import step_bytes
from clsclip.training.holdout import judge, known_questions, split
from clsclip.training.lessons import Lessons, predicted_zooms
from clsclip.training.losses import recall_loss
from clsclip.training.prompts import Prompts
from clsclip.training.replay import Memory
from clsclip.training.run import STATE_FILE, Run
from clsclip.training.scenes import biology
from clsclip.training.taught import Taught
from clsclip.training.word_training import LessonData, WordTraining


def correction(name: str, *shown: str, words: tuple[str, ...] = ("blob",)) -> Correction:
    """An image of 64 x 80 pixels, with a square of each word that it shows."""
    masks = {}
    for number, word in enumerate(words):
        masks[word] = np.zeros((64, 80), bool)
        if word in shown:
            masks[word][20:40, 10 + 30 * number : 30 + 30 * number] = True
    ignore = np.zeros((64, 80), bool)
    ignore[60:] = True
    image = np.full((64, 80, 3), 50, np.uint8)
    for mask in masks.values():
        image[mask] = 200
    return Correction(name, Example(image, masks, frozenset(shown), ignore))


def test_held_out_images_hardly_change_when_others_join() -> None:
    first = [correction(f"{n}", "blob") for n in range(20)]
    learnt, held = split(first, 0.2, seed=0)
    assert (len(learnt), len(held)) == (16, 4)
    assert split(first[::-1], 0.2, seed=0)[1] == held
    later = split([*first, *(correction(f"new {n}", "blob") for n in range(5))], 0.2, seed=0)[1]
    assert len({c.name for c in held} & {c.name for c in later}) >= 3
    assert split(first, 0.2, seed=1)[1] != held
    assert split(first, 0.0, seed=0)[1] == ()
    assert split(first[:2], 0.5, seed=0)[1] == ()
    assert len(split(first[:3], 0.2, seed=0)[1]) == 1


@pytest.mark.parametrize("seed", range(5))
def test_one_image_of_every_word_stays_to_learn_from(seed: int) -> None:
    words = ("blob", "rim")
    shown = [("blob",), ("blob",), ("blob", "rim"), (), ()]
    corrections = [correction(f"{n}", *s, words=words) for n, s in enumerate(shown)]
    learnt, held = split(corrections, 0.6, seed)
    assert frozenset[str]().union(*(c.shows for c in learnt)) == {"blob", "rim"}
    assert held[0].shows == {"blob"}  # an empty image says little


def version(miou: float | None, **old: float) -> Figures:
    return Figures(
        miou=miou, fb_iou=miou, per_word={"blob": WordFigures(miou=miou, fb_iou=miou)},
        old_words={word: WordFigures(miou=value, fb_iou=value) for word, value in old.items()},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "promoted", "reason"),
    [
        (version(0.2, cell=0.5), version(0.6, cell=0.47), True, "0.200 -> 0.600"),
        (version(0.2, cell=0.5), version(0.6, cell=0.44), False, "'cell' loses 0.060"),
        (version(0.2), version(0.6), True, "Other words are answered as before"),
        (version(0.2, cell=0.5), version(0.6, cell=0.6), True, "nothing is lost elsewhere"),
        (version(0.6, cell=0.5), version(0.6, cell=0.9), False, "Not better"),
        (version(None), version(None), False, "at least 3 images"),
    ],
)
def test_a_version_is_promoted_only_if_it_is_better(
    before: Figures, after: Figures, promoted: bool, reason: str
) -> None:
    verdict = judge(before, after, most_lost=0.05)
    assert verdict[0] is promoted
    assert reason in verdict[1]


def test_the_best_state_is_kept_not_the_last() -> None:
    trained = torch.nn.Linear(1, 1, bias=False)
    best = Best(trained)

    def offer(score: float | None, kept: bool, step: int) -> bool:
        with torch.no_grad():
            trained.weight.fill_(step)
        return best.offer(trained, score, kept, step)

    offers = [(0.5, False), (0.3, True), (0.4, True), (0.35, True), (0.9, False), (0.4005, True)]
    taken = [offer(score, kept, step) for step, (score, kept) in enumerate(offers, start=1)]
    assert taken == [True, True, True, False, False, True]
    assert (float(best.weights.weight), int(best.step)) == (6.0, 6)
    assert int(best.stale) == 3
    assert not best.stalled
    copy = Best(trained)
    copy.load_state_dict(best.state_dict())
    assert (int(copy.step), float(copy.score)) == (6, pytest.approx(0.4005))
    for step in range(7, 7 + PATIENCE):
        offer(0.1, True, step)
    assert best.stalled
    assert int(best.step) == 6
    newest = Best(trained)
    assert [newest.offer(trained, None, True, step) for step in (1, 2)] == [True, True]
    assert int(newest.step) == 2


def test_views_have_the_scale_of_the_predictor(tiny_model: Path) -> None:
    image = np.zeros((100, 100), np.uint8)
    mask = np.zeros((100, 100), bool)
    mask[30:60, 30:60] = True
    first, second, companion = predicted_zooms(mask, 64)
    assert first == pytest.approx(0.64)
    assert first < companion < second <= 2
    found = Predictor(str(tiny_model)).segment(image, ["blob"], zoom=first)
    assert found.zooms == (first,)
    mask[5:95, 5:95] = True
    assert predicted_zooms(mask, 64) == (first,)  # large enough at once


def test_lessons(rng: np.random.Generator) -> None:
    words = ("blob", "rim")
    corrections = [correction("a", "blob", words=words), correction("b", *words, words=words)]
    lesson = Lessons(corrections, words, 64, rng).draw(200, 32)
    assert lesson.images.shape == (200, 3, 32, 32)
    assert lesson.masks.shape == lesson.valid.shape == (200, 32, 32)
    assert set(lesson.words) == set(words)
    shown = lesson.masks.flatten(1).any(1)
    assert 0.6 < float(shown.float().mean()) < 0.95  # absent words are asked too
    assert not bool(lesson.valid.all())  # nobody vouches for the lowest rows
    assert bool(lesson.valid.flatten(1).any(1).all())
    views = [Lessons(corrections, words, 64, rng).view(0, "blob", 32) for _ in range(8)]
    part = [view for view in views if not view.mask("blob").all()]
    view = max(part, key=lambda each: int(each.mask("blob").sum()))  # the others are blurred
    pixels, mask = view.pixels(), view.mask("blob")
    assert float(pixels[0][mask].mean()) > 0.7 > 0.4 > float(pixels[0][~mask].mean())


def test_earlier_lessons_are_repeated(rng: np.random.Generator) -> None:
    new = [correction("a", "blob", words=("blob", "rim"))]
    earlier = [correction("b", "rim", words=("rim",))]  # nothing is known of blobs there
    lessons = Lessons(new, ("blob", "rim"), 64, rng, earlier)
    words = lessons.draw(300, 32).words
    assert 0.1 < words.count("rim") / 300 - 0.6 * 0.2 < 0.6
    assert Lessons(new, ("blob", "rim"), 64, rng).draw(300, 32).words.count("rim") < 120
    assert lessons.word(1) == "rim"


def test_steps_after_a_checkpoint_are_those_that_would_have_followed(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clsclip.training.finetune_settings.REMEMBERED", 4)
    words = ("blob",)
    settings = FinetuneSettings(
        model=str(tiny_model), steps=4, batch_size=2, accumulate=2, device="cpu"
    )
    images = [correction(f"{n}", "blob") for n in range(3)]
    data = LessonData(words, images, (), (), Taught(), ())

    def train(name: str, *, until: int, resume: bool = False) -> dict[str, torch.Tensor]:
        training = WordTraining(settings, tiny_model, words, alone("cpu"))
        run = Run(tmp_path / name, settings, resume=resume)
        clock = training.load_state(run)
        training.train(run, clock, data, over=lambda at: at.step == until)
        assert clock.step == until
        return load_file(tmp_path / name / STATE_FILE)

    whole = train("whole", until=4)
    half = train("broken", until=2)
    broken = train("broken", until=4, resume=True)
    assert any(not torch.equal(half[name], whole[name]) for name in whole)
    assert all(torch.equal(broken[name], whole[name]) for name in whole)


def test_scenes_show_what_the_older_model_says_and_new_words_nowhere(
    tiny_model: Path, rng: np.random.Generator
) -> None:
    model = load_model(tiny_model)
    memory = Memory(model, ("blob", "nucleus"), count=24, size=48, rng=rng)
    recalled = memory.draw(64, rng)
    with torch.no_grad():
        logits = model.decode(recalled.encoded(model), recalled.text)
    absent = recalled.answers.flatten(1).amax(1) == 0  # asked for the new word
    assert 8 < int(absent.sum()) < 56
    answers = recalled.answers[~absent].float()
    torch.testing.assert_close(logits[~absent].sigmoid(), answers, atol=2e-3, rtol=0)
    assert float(recall_loss(logits[~absent], answers)) == pytest.approx(0, abs=1e-4)
    assert float(recall_loss(logits, recalled.answers)) > 0.05
    tokens = Prompts(model)(["blob"] * 200, rng).unique(dim=0)
    asked = recalled.text[absent][:, None]
    assert bool((asked - tokens).abs().amax(-1).amin(1).lt(1e-4).all())


def test_what_the_older_model_knows_of_the_learnt_words_is_asked(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor(str(tiny_model))
    monkeypatch.setattr("clsclip.training.holdout.PROBES", 1)
    monkeypatch.setattr("clsclip.training.holdout.QUESTIONS", 2)
    monkeypatch.setattr("clsclip.training.holdout.KNOWN", 0.0)
    questions = known_questions(predictor, ("cell", "filament", "blob"), 64)
    asked = [question.word for question in questions]
    assert set(asked) == {"cell", "filament"} < set(biology.WORDS)
    assert asked.count("cell") == 2
    assert all(question.example.masks[question.word].any() for question in questions)
    monkeypatch.setattr("clsclip.training.holdout.KNOWN", 1.01)
    assert known_questions(predictor, ("cell",), 64) == []


def test_memory_grows_with_views_and_size(tiny_model: Path) -> None:
    model = load_model(tiny_model)
    assert step_bytes(model, 2, 64) < step_bytes(model, 4, 64) < step_bytes(model, 4, 128)


def test_class_ids_and_single_objects(tmp_path: Path) -> None:
    assert read_classes(tmp_path) is None
    table = tmp_path / "classes.csv"
    table.write_text("id,name\n1,Nuclei\n2,rim\n")
    classes = read_classes(tmp_path)
    assert classes == {1: "nucleus", 2: "rim"}
    file = tmp_path / "a.tif"
    labels = np.array([[0, 1, 2]])
    assert word_labels(file, labels, "rim", classes).tolist() == [[0, 0, 2]]
    with (tmp_path / "a.features.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("label", "class"), (1, "rim"), (2, "rim"), (3, "nucleus")])
    assert word_labels(file, labels, "rim", classes).tolist() == [[0, 1, 2]]
    for text in ("id,name\n0,a\n", "id,name\n1,a\n1,b\n", "id,name\nx,a\n", "id,name\n"):
        table.write_text(text)
        with pytest.raises(FileError, match=r"classes\.csv"):
            read_classes(tmp_path)


def test_evaluation_reads_class_ids(tiny_model: Path, tmp_path: Path) -> None:
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    Image.new("RGB", (80, 64)).save(tmp_path / "images" / "a.png")
    labels = np.zeros((64, 80), np.uint8)
    labels[:20], labels[20:40] = 1, 2
    imwrite(tmp_path / "labels" / "a.tif", labels)
    (tmp_path / "labels" / "classes.csv").write_text("id,name\n1,blob\n2,rim\n")
    settings = EvaluateSettings(
        images=str(tmp_path / "images"), labels=str(tmp_path / "labels"), word="rim",
        model=str(tiny_model), threshold=0.001,
    )  # fmt: skip
    found = evaluate(settings)
    assert found.foreground == 1.0
    assert found.miou == pytest.approx(20 / 64)
    with pytest.raises(InvalidConfigError, match="one word is measured at a time"):
        evaluate(settings.model_copy(update={"word": "rim, blob"}))


def test_state_of_a_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert read_state(run) is None
    with locked(run):
        write_state(run, "running", seconds=3)
        found = read_state(run)
        assert found is not None
        assert (found.state, found.seconds) == ("running", 3)
    found = read_state(run)
    assert found is not None
    assert found.state == "interrupted"
    (run / OUTCOME_FILE).write_text("{}")
    with pytest.raises(CheckpointError, match="state"):
        read_state(run)
