"""Held-out corrections, what a model makes of them, and whether a new version is better."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from clsclip.config import DEFAULT_THRESHOLD
from clsclip.model.report import Figures, WordFigures
from clsclip.predict.predictor import Predictor
from clsclip.training.corrections import Correction
from clsclip.training.examples import Example
from clsclip.training.metrics import Scores
from clsclip.training.scenes import biology, microscopy_scene

FEWEST: Final = 3
"""Images from which on some are held out."""

SCENE_SEED: Final = 2**31 + 1
"""Seed of the scenes to measure old words on, which no training draws."""

KNOWN: Final = 0.05
"""IoU on drawn scenes from which on the older model is said to know a word."""

PROBES: Final = 4
"""Scenes per word to find that out."""

QUESTIONS: Final = 12
"""Scenes per known word to measure what it loses."""


@dataclass(frozen=True)
class Question:
    """An old word to look for in an image that shows it.

    Attributes
    ----------
    word : str
        Canonical.
    example : Example
    zoom : float or None
        As the predictor takes it.
    """

    word: str
    example: Example
    zoom: float | None


def split(
    corrections: Sequence[Correction], holdout: float, seed: int
) -> tuple[tuple[Correction, ...], tuple[Correction, ...]]:
    """Part corrections by image into those to learn from and those held out.

    Which ones are held out depends on their names and the seed alone, so that an image that was
    held out hardly ever becomes one to learn from when further ones join. Images that show a word
    are held out first, but one of every word stays to learn from.

    Parameters
    ----------
    corrections : sequence of Correction
    holdout : float, 0 to 1
        Part that is held out; at least one image, unless it is 0 or there are less than
        :data:`FEWEST` images.
    seed : int

    Returns
    -------
    learnt, held_out : tuple of Correction
    """
    if holdout == 0 or len(corrections) < FEWEST:
        return tuple(corrections), ()
    wanted = max(1, round(holdout * len(corrections)))
    left = list(corrections)
    held: list[Correction] = []
    for correction in sorted(corrections, key=lambda c: (not c.shows, _rank(c.name, seed))):
        others = [other for other in left if other is not correction]
        shown = frozenset[str]().union(*(other.shows for other in others))
        if len(held) < wanted and others and correction.shows <= shown:
            held.append(correction)
            left = others
    return tuple(left), tuple(held)


def held_for_good(
    images: Mapping[str, frozenset[str]], holdout: float, seed: int
) -> frozenset[str]:
    """Images that are held out, for good: further ones that join change nothing for these.

    An image is held out because of its content alone (its name) and those that joined before it:
    about a part ``holdout`` of them, but the first ones are learnt from, the :data:`FEWEST`-th is
    held out if none was before it, and an image that shows a word which none before it shows is
    learnt from.

    Parameters
    ----------
    images : mapping of str to frozenset of str
        Names of the images in the order in which they joined, and the words that they show.
    holdout : float, 0 to 1
        Part that is held out; 0: none.
    seed : int

    Returns
    -------
    frozenset of str
        Names.
    """
    held: set[str] = set()
    known = frozenset[str]()
    for number, (name, shows) in enumerate(images.items(), start=1):
        drawn = int(_rank(name, seed), 16) < holdout * 16**64 and len(held) < 1 + holdout * number
        due = not held and number >= FEWEST
        if holdout and number >= FEWEST and (drawn or due) and shows and shows <= known:
            held.add(name)
        else:
            known |= shows
    return frozenset(held)


def _rank(name: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()


def known_questions(
    predictor: Predictor,
    learnt: Sequence[str],
    image_size: int,
    check: Callable[[], None] = lambda: None,
) -> list[Question]:
    """Questions in drawn scenes about those words of microscopy that a model knows.

    Parameters
    ----------
    predictor : Predictor
        Of the older model.
    learnt : sequence of str
        Words that are learnt now, and so not asked.
    image_size : int
        Side in pixels of what the network reads at once, and of the scenes.
    check : callable
        Called before every image; may raise.
    """
    words = [word for word in biology.WORDS if word not in learnt]
    found = measure(predictor, (), {}, scene_questions(words, image_size, PROBES), check)
    known = [word for word, each in found.old_words.items() if (each.miou or 0.0) >= KNOWN]
    return scene_questions(known, image_size, QUESTIONS)


def scene_questions(words: Sequence[str], image_size: int, count: int) -> list[Question]:
    """About ``count`` questions per word in drawn scenes, the same ones every time."""
    missing = dict.fromkeys(words, count)
    questions: list[Question] = []
    for index in range(40 * count):
        if not any(missing.values()):
            break
        example = microscopy_scene(np.random.default_rng((SCENE_SEED, index)), image_size)
        for word in sorted(example.present):
            if missing.get(word, 0):
                missing[word] -= 1
                questions.append(Question(word, example, zoom=1.0))
    return questions


def measure(
    predictor: Predictor,
    held_out: Sequence[Correction],
    words: Mapping[str, str],
    questions: Sequence[Question],
    check: Callable[[], None] = lambda: None,
) -> Figures:
    """Segment held-out images and drawn scenes and compare with what is true.

    Parameters
    ----------
    predictor : Predictor
    held_out : sequence of Correction
    words : mapping of str to str
        Learnt words: canonical, and as they are typed and reported.
    questions : sequence of Question
        About old words.
    check : callable
        Called before every image; may raise.
    """
    scores, single = Scores(), {word: Scores() for word in words}
    for correction in held_out:
        check()
        example, asked = correction.example, correction.asked(words)
        found = predictor.segment(example.image, [words[word] for word in asked])
        for word, probability in zip(asked, found.probabilities, strict=True):
            predicted = probability >= round(255 * DEFAULT_THRESHOLD)
            for each in (scores, single[word]):
                each.add(word, predicted, np.asarray(example.masks[word]), example.ignore)
    old: dict[str, Scores] = {}
    for question in questions:
        check()
        word, example = question.word, question.example
        found = predictor.segment(example.image, [word], zoom=question.zoom)
        predicted = found.probabilities[0] >= round(255 * DEFAULT_THRESHOLD)
        truth = np.asarray(example.masks[word])
        old.setdefault(word, Scores()).add(word, predicted, truth, example.ignore)
    overall = _figures(scores)
    return Figures(
        miou=overall.miou, fb_iou=overall.fb_iou,
        per_word={words[word]: _figures(each) for word, each in single.items()},
        old_words={word: _figures(each) for word, each in sorted(old.items())},
    )  # fmt: skip


def _figures(scores: Scores) -> WordFigures:
    if not scores.images or math.isnan(scores.miou):
        return WordFigures(miou=None, fb_iou=None)
    return WordFigures(miou=round(scores.miou, 4), fb_iou=round(scores.fb_iou, 4))


def lost(before: Figures, after: Figures) -> tuple[float, str]:
    """Largest loss of IoU of an old word, and that word.

    Returns
    -------
    float
        0 or above; 0 where there is none.
    str
        Empty where nothing is lost.
    """
    losses = [
        ((before.old_words[word].miou or 0.0) - (after.old_words[word].miou or 0.0), word)
        for word in before.old_words
    ]
    worst = max(losses, default=(0.0, ""))
    return worst if worst[0] > 0 else (0.0, "")


def judge(before: Figures, after: Figures, most_lost: float) -> tuple[bool, str]:
    """Whether the new version is better, and why or why not.

    It is when its IoU on the held-out images rises and no old word loses more than ``most_lost``.
    """
    if before.miou is None or after.miou is None:
        return False, (
            "No image with the word was held out, so nobody knows whether the new version is "
            f"better. Correct at least {FEWEST} images, or choose it yourself."
        )
    change = f"IoU on held-out images {before.miou:.3f} -> {after.miou:.3f}"
    loss, word = lost(before, after)
    kept = f"old words lose {loss:.3f} at most" + (f" ('{word}')" if word else "")
    if after.miou <= before.miou:
        return False, f"Not better: {change}; {kept}."
    if loss > most_lost:
        return False, f"Old words suffer: {change}, but '{word}' loses {loss:.3f} on drawn scenes."
    return True, f"Better: {change}; {kept}."
