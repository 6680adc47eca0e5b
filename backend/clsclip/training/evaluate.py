"""Measure a model on annotated images: of folders, of a fold of a benchmark, or drawn ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from clsclip.config import RegionMode, Settings
from clsclip.errors import InvalidConfigError
from clsclip.instances import InstanceOptions
from clsclip.predict.predictor import Predictor
from clsclip.predict.regions import Box, inside
from clsclip.predict.regions_used import regions_given
from clsclip.segmentation import RegionUsed
from clsclip.training.disturb import disturb, disturb_mask
from clsclip.training.evaluate_objects import ObjectEvaluation, ObjectFigures, require_objects
from clsclip.training.evaluate_settings import (
    ANNOTATED,
    MOST_IMAGES,
    EvaluateSettings,
    plain,
    require_consistent,
)
from clsclip.training.examples import Example, Source
from clsclip.training.folds import fold_source
from clsclip.training.formats import LabelFolder
from clsclip.training.looks import look
from clsclip.training.methods import Method, method_name, method_of
from clsclip.training.metrics import Scores
from clsclip.training.paper_figures import beside_the_paper
from clsclip.training.scenes import Scenes
from clsclip.training.sources import SCENES, find_sources
from clsclip.words import canonical, withheld, word_list

SCENE_SEED: Final = 2**31
"""Seed of the scenes to measure with, which no training run uses."""


class Figures(Settings):
    """Figures of a part of the questions; IoU in [0, 1]."""

    images: int = Field(description="Number of (image, word) pairs.")
    classes: int
    miou: float
    fb_iou: float
    image_mean: float = Field(description="Mean IoU of the single pairs.")


class Evaluation(Settings):
    """Figures of one model on one set of images; IoU in [0, 1]."""

    method: Method
    model: str
    model_version: str
    images: int
    miou: float
    fb_iou: float
    per_class: dict[str, float]
    image_mean: dict[str, float] = Field(description="Mean over images of the IoU of each.")
    foreground: float = Field(description="Part of all asked pixels that was labelled, in [0, 1].")
    parts: dict[str, Figures] = Field(
        description="By look of the image, seen and unseen words, and boxes taken as masks."
    )
    objects: dict[str, ObjectFigures] = Field(
        description="With --instances: of the objects found, beside connected components, of a "
        "single look at the whole image, and of the true mask parted again."
    )
    seconds: float = Field(description="Time in the predictor, all images together.")


@dataclass(frozen=True)
class _Question:
    """One word asked of one image, and the mask that would be right."""

    example: Example
    asked: str
    word: str
    truth: NDArray[np.bool_]
    boxes: tuple[Box, ...]


def evaluate(
    settings: EvaluateSettings, tell: Callable[[str], None] = lambda _: None
) -> Evaluation:
    """Segment every image and compare with its annotation.

    Raises
    ------
    InvalidConfigError
        If the settings do not fit together.
    FileError
        If files are missing, unreadable, or an image and its labels differ in size.
    UnknownModelError, ModelUnavailableError, CheckpointError, DeviceError
    """
    settings = plain(settings)
    require_consistent(settings)
    method = method_of(settings.model, settings.method)
    predictor = Predictor(settings.model, device=settings.device)
    parts: dict[str, Scores] = {}
    objects = ObjectEvaluation(InstanceOptions.of(settings))
    scores, seconds, marked, pixels, images = Scores(), 0.0, 0, 0, 0
    unseen = word_list(settings.unseen)
    for questions in _questions(settings):
        images += 1
        for question in questions:
            example = question.example
            image = disturb(example.image, settings.change)
            started = time.perf_counter()
            if method == "boxes":
                regions = _proposals(predictor, image, question, settings)
                predicted = _filled(regions, image.shape)
            else:
                result = predictor.segment(
                    image, [question.asked], zoom=_zoom(settings, predictor, image),
                    templates=settings.templates,
                    regions=_regions(settings, question), detector=settings.detector,
                    vouched=settings.regions == "manual",
                )  # fmt: skip
                regions = result.proposals[0] if result.proposals else ()
                predicted = result.labels(settings.threshold) > 0
            seconds += time.perf_counter() - started
            truth = disturb_mask(question.truth, settings.change)
            ignore = example.ignore
            if ignore is not None:
                ignore = disturb_mask(ignore, settings.change)
            names = [""]
            if example.diameter is not None:
                names.append(look(example.image))
            if unseen:
                names.append("unseen" if withheld([question.word], unseen) else "seen")
            for name in names:
                part = parts.setdefault(name, Scores()) if name else scores
                part.add(question.word, predicted, truth, ignore)
            proposed = method != "boxes" and settings.regions not in ("none", "tiles")
            if proposed and not _tiled(regions):
                boxes = parts.setdefault("boxes as masks", Scores())
                boxes.add(question.word, _filled(regions, truth.shape), truth, ignore)
            if settings.instances:
                shape = (predicted.shape[0], predicted.shape[1])
                whole = predictor.segment(
                    image, [question.asked],
                    zoom=predictor.whole_image_zoom(shape), templates=settings.templates,
                )  # fmt: skip
                objects.add(result, whole, settings.threshold, example.objects.get(question.word))
            marked, pixels = marked + int(predicted.sum()), pixels + predicted.size
            tell(f"{images}: {question.asked}: IoU {scores.images[question.word][-1]:.3f}")
    if settings.dataset:
        name = method_name(method, settings.model, settings.regions)
        tell(beside_the_paper(settings.dataset, settings.fold, scores.miou, scores.fb_iou, name))
    return Evaluation(
        method=method, model=settings.model, model_version=predictor.version, images=images,
        miou=scores.miou, fb_iou=scores.fb_iou, per_class=scores.per_class,
        image_mean=scores.image_mean,
        foreground=marked / max(pixels, 1), seconds=seconds,
        parts={name: _figures(part) for name, part in parts.items()},
        objects=objects.figures() if settings.instances else {},
    )  # fmt: skip


def _regions(
    settings: EvaluateSettings, question: _Question
) -> Mapping[str, Sequence[Box]] | RegionMode:
    """What the predictor takes for regions."""
    if settings.regions in ANNOTATED:
        return {question.asked: question.boxes}
    return cast(RegionMode, settings.regions)


def _proposals(
    predictor: Predictor, image: NDArray[Any], question: _Question, settings: EvaluateSettings
) -> tuple[RegionUsed, ...]:
    """Regions that are taken as masks."""
    if settings.regions in ANNOTATED:
        return regions_given(question.boxes)
    mode = cast(RegionMode, settings.regions)
    return predictor.propose(image, [question.asked], mode, detector=settings.detector)[0]


def _zoom(settings: EvaluateSettings, predictor: Predictor, image: NDArray[Any]) -> float | None:
    """What the predictor takes for the zoom."""
    if not settings.whole:
        return settings.zoom
    return predictor.whole_image_zoom((image.shape[0], image.shape[1]))


def _questions(settings: EvaluateSettings) -> Iterator[list[_Question]]:
    """What is asked of each image."""
    rng = np.random.default_rng(0)
    if not settings.data:
        folder = LabelFolder(
            Path(settings.images).expanduser(), Path(settings.labels).expanduser(), settings.word
        )
        if settings.instances:
            require_objects(folder, settings.labels)
        every = np.arange(len(folder))
        chosen = every if settings.limit is None else rng.permutation(every)[: settings.limit]
        for index in chosen:
            yield [_question(folder[int(index)], settings.word, settings)]
        return
    source = _source(settings)
    if settings.instances:
        require_objects(source, settings.data)
    most = settings.limit or (len(source) if settings.dataset else MOST_IMAGES)
    for index in rng.permutation(len(source))[:most] if len(source) else ():
        example = source[int(index)]
        if settings.word:
            asked = [] if canonical(settings.word) in example.present else [settings.word]
            yield [_question(example, word, settings) for word in asked]
            continue
        words = sorted(word for word in example.masks if example.masks[word].any())
        if settings.data == SCENES:
            words = _mixed(words, settings, rng)
        yield [
            _question(example, word, settings, _other(word, example, source, rng)) for word in words
        ]


def _source(settings: EvaluateSettings) -> Source:
    if settings.dataset:
        return fold_source(
            settings.dataset, settings.fold, settings.data, "val", download=settings.download
        )
    if settings.data == SCENES:
        return Scenes(SCENE_SEED, count=settings.limit or MOST_IMAGES)
    sources = find_sources(Path(settings.data).expanduser(), val=True)
    if len(sources) > 1:
        raise InvalidConfigError(
            f"'{settings.data}' holds several data folders ({', '.join(sources)}); give one."
        )
    return next(iter(sources.values()))


def _mixed(words: list[str], settings: EvaluateSettings, rng: np.random.Generator) -> list[str]:
    """Some words of a scene, half of them unseen where there are such."""
    unseen = withheld(words, word_list(settings.unseen))
    order = [str(word) for word in rng.permutation(words)]
    first = [word for word in order if word in unseen][: settings.pairs // 2]
    return (first + [word for word in order if word not in unseen])[: settings.pairs]


def _other(word: str, example: Example, source: Source, rng: np.random.Generator) -> str:
    """Another word of the source, which is not in the image."""
    words = [other for other in source.words if other not in example.present] or [word]
    return words[int(rng.integers(len(words)))]


def _question(
    example: Example, word: str, settings: EvaluateSettings, other: str = ""
) -> _Question:
    truth = example.masks.get(word)
    boxes: tuple[Box, ...] = ()
    if settings.regions in ANNOTATED:
        rows = example.boxes.get(word, np.zeros((0, 4), np.float32))
        boxes = tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in rows)
    return _Question(
        example, other if settings.shuffled and other else word, word,
        np.zeros(example.image.shape[:2], bool) if truth is None else np.asarray(truth), boxes,
    )  # fmt: skip


def _tiled(regions: Sequence[RegionUsed]) -> bool:
    """Whether the regions are tiles, which are no proposals of objects."""
    return any(region.origin == "tile" for region in regions)


def _filled(regions: Sequence[RegionUsed], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    mask = np.zeros(shape[:2], dtype=bool)
    for region in regions:
        mask[inside(region.box, (shape[0], shape[1]))] = True
    return mask


def _figures(scores: Scores) -> Figures:
    values = [value for word in scores.images.values() for value in word]
    return Figures(
        images=len(values), classes=len(scores.per_class), miou=scores.miou,
        fb_iou=scores.fb_iou, image_mean=float(np.mean(values)),
    )  # fmt: skip
