"""Measure a model on images with label images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydantic import Field

from clsclip.config import DeviceSettings, SegmentSettings, Settings, ThresholdSettings
from clsclip.errors import FileError
from clsclip.image_files import read_image
from clsclip.predict.predictor import Predictor
from clsclip.training.metrics import Scores
from clsclip.training.sources import pair_files, read_labels


class EvaluateSettings(SegmentSettings, ThresholdSettings, DeviceSettings):
    """What an evaluation is asked for."""

    images: str = Field(title="Images", description="Folder of images.")
    labels: str = Field(
        title="Labels", description="Folder of label images of the same names; nonzero = the word."
    )
    word: str = Field(title="Word", description="The class word to ask for.", min_length=1)


class Evaluation(Settings):
    """Figures of one model on one set of images; IoU in [0, 1]."""

    model: str
    model_version: str
    images: int
    miou: float
    fb_iou: float
    per_class: dict[str, float]
    image_mean: dict[str, float] = Field(description="Mean over images of the IoU of each.")
    foreground: float = Field(description="Part of all pixels that was labelled, in [0, 1].")
    seconds: float = Field(description="Time in the predictor, all images together.")


def evaluate(
    settings: EvaluateSettings, tell: Callable[[str], None] = lambda _: None
) -> Evaluation:
    """Segment every image and compare with its label image.

    Raises
    ------
    FileError
        If files are missing, unreadable, or an image and its labels differ in size.
    """
    pairs = pair_files(Path(settings.images).expanduser(), Path(settings.labels).expanduser())
    predictor = Predictor(settings.model, device=settings.device)
    scores = Scores()
    seconds, marked, pixels = 0.0, 0, 0
    for image_file, label_file in pairs:
        image, truth = read_image(image_file), read_labels(label_file) > 0
        if image.shape[:2] != truth.shape:
            raise FileError(
                f"'{label_file}' is {truth.shape} pixels, its image {image.shape[:2]}. They must "
                "be of one size."
            )
        result = predictor.segment(
            image, [settings.word], zoom=settings.zoom, templates=settings.templates
        )
        predicted = result.labels(settings.threshold) > 0
        scores.add(settings.word, predicted, truth)
        seconds += result.seconds
        marked, pixels = marked + int(predicted.sum()), pixels + predicted.size
        tell(f"{image_file.name}: IoU {scores.images[settings.word][-1]:.3f}")
    return Evaluation(
        model=settings.model, model_version=predictor.version, images=len(pairs),
        miou=scores.miou, fb_iou=scores.fb_iou, per_class=scores.per_class,
        image_mean=scores.image_mean, foreground=marked / pixels, seconds=seconds,
    )  # fmt: skip
