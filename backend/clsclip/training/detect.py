"""Train a YOLO for region proposals from scratch, on the boxes of the masked data folders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from clsclip.errors import FileError, InvalidConfigError
from clsclip.model.config import DETECTOR_FOLDER
from clsclip.model.device import choose_device, fast_dtype
from clsclip.regions.detector_config import small_architecture
from clsclip.regions.yolo import YoloDetector, save_detector
from clsclip.regions.yolo_network import DetectionLoss, new_network
from clsclip.training.detection_crops import (
    BoxedCrop,
    exact_words,
    has_boxes,
    random_boxed_crop,
)
from clsclip.training.detection_quality import DetectionQuality, evaluate_detector
from clsclip.training.examples import Source
from clsclip.training.loop import cosine_rate, decayed_adamw, train
from clsclip.training.prefetch import prefetch
from clsclip.training.run import Run, TrainingSettings
from clsclip.training.sources import find_sources, shares
from clsclip.words import withheld, word_list

_AHEAD: Final = 4
"""Batches prepared while the network computes."""


class DetectSettings(TrainingSettings):
    """What a detector training run is asked for."""

    image_size: int = Field(
        320,
        title="Image size",
        description="Side of the crops, and longer side of images to detect in: a multiple of 32.",
        ge=32,
        le=4096,
        multiple_of=32,
    )
    batch_size: int = Field(16, title="Batch size", description="Images per step.", ge=2)
    width: float = Field(
        1.0, title="Width", description="Factor of all numbers of channels.", gt=0, le=4
    )
    description: str = Field("", title="Description", description="One line about the detector.")


@dataclass(frozen=True)
class DetectionBatch:
    """Crops and their objects.

    Attributes
    ----------
    images : Tensor of float32, shape (B, 3, S, S)
        RGB in [0, 1].
    image, word : Tensor of int64, shape (n,)
        Place in the batch (ascending), and place of the word in the vocabulary, of every object.
    boxes : Tensor of float32, shape (n, 4)
        Top, left, bottom, right as parts (0 to 1) of the sides of the crop.
    """

    images: Tensor
    image: Tensor
    word: Tensor
    boxes: Tensor


class DetectionSampler:
    """Draws batches of crops with boxes from several sources.

    Parameters
    ----------
    sources : sequence of Source
    weights : sequence of float
        Share of each source in the batches.
    words : sequence of str
        Vocabulary; boxes of other words are left out.
    size : int
        Side of the crops in pixels.
    batch_size : int
        Images per batch.
    seed : int or sequence of int
    """

    def __init__(
        self,
        sources: Sequence[Source],
        weights: Sequence[float],
        words: Sequence[str],
        *,
        size: int,
        batch_size: int,
        seed: int | Sequence[int],
    ) -> None:
        self._sources = sources
        self._weights = np.asarray(weights, dtype=float) / sum(weights)
        self._places = {word: place for place, word in enumerate(words)}
        self._size, self._batch_size = size, batch_size
        self._rng = np.random.default_rng(seed)

    def __iter__(self) -> Iterator[DetectionBatch]:
        """Endless batches, prepared ahead by one thread."""
        return prefetch(self.batch, _AHEAD)

    def batch(self) -> DetectionBatch:
        """One batch, drawn now."""
        chosen = self._rng.choice(len(self._sources), self._batch_size, p=self._weights)
        crops = [self._crop(self._sources[index]) for index in chosen]
        known = [
            (index, self._places[word], box / self._size)
            for index, crop in enumerate(crops)
            for word, box in zip(crop.words, crop.boxes, strict=True)
            if word in self._places
        ]
        boxes = np.array([box for _, _, box in known], dtype=np.float32).reshape(-1, 4)
        return DetectionBatch(
            torch.stack([crop.image for crop in crops]),
            torch.tensor([index for index, _, _ in known], dtype=torch.int64),
            torch.tensor([place for _, place, _ in known], dtype=torch.int64),
            torch.from_numpy(boxes),
        )

    def _crop(self, source: Source) -> BoxedCrop:
        return random_boxed_crop(source.draw(self._rng), self._size, self._rng)


def detection_words(
    sources: Sequence[Source], unseen: frozenset[str] = frozenset()
) -> tuple[str, ...]:
    """Words of all objects with boxes, each once; no word that only sums up others.

    Parameters
    ----------
    sources : sequence of Source
    unseen : frozenset of str
        Words whose boxes are withheld, see :func:`clsclip.words.withheld`.

    Raises
    ------
    InvalidConfigError
        If no word is left.
    """
    words = dict.fromkeys(word for source in sources for word in exact_words(source.words))
    hidden = withheld(words, unseen)
    if hidden.issuperset(words):
        raise InvalidConfigError("Every word that has boxes is in --unseen: nothing is left.")
    return tuple(word for word in words if word not in hidden)


def train_detector(
    settings: DetectSettings,
    output: Path,
    *,
    resume: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Path:
    """Train a detector and write it as a detector directory.

    Parameters
    ----------
    settings : DetectSettings
    output : Path
        Run directory; the detector goes into its folder ``detector``.
    resume : bool
        Go on with the run that is there.
    tell : callable
        Takes a line of progress now and then.

    Returns
    -------
    Path
        The detector directory, as :class:`clsclip.regions.yolo.YoloDetector` reads it.

    Raises
    ------
    FileError
        If no data folder has boxes.
    InvalidConfigError
        If all folders with boxes have the share 0, or all their words are unseen.
    """
    device = choose_device(settings.device)
    sources, weights = _boxed_sources(settings)
    words = detection_words(sources, word_list(settings.unseen))
    run = Run(output, settings, resume=resume)
    architecture = small_architecture(settings.width)
    torch.manual_seed(settings.seed)
    network = new_network(architecture, len(words)).to(device)
    optimizer = decayed_adamw(network.parameters(), settings.learning_rate, (0.9, 0.999))
    clock = run.load_state({"network": network}, optimizer)
    sampler = DetectionSampler(
        sources, weights, words, size=settings.image_size, batch_size=settings.batch_size,
        seed=(settings.seed, clock.step),
    )  # fmt: skip
    train(
        run, {"network": network}, optimizer, clock, sampler, _Step(network, device),
        settings=settings, rate=lambda part: cosine_rate(part, warm_up=0.03), tell=tell,
    )  # fmt: skip
    folder = output / DETECTOR_FOLDER
    save_detector(
        network, folder, words=words, image_size=settings.image_size, architecture=architecture,
        training={**settings.model_dump(mode="json"), "steps": clock.step},
    )  # fmt: skip
    _measure(Path(settings.data).expanduser(), folder, settings.device, run, tell)
    return folder


def _measure(data: Path, folder: Path, device: str, run: Run, tell: Callable[[str], None]) -> None:
    """Report recall and precision on the validation parts of the data that have boxes."""
    try:
        sources = find_sources(data, val=True)
    except FileError:
        return  # the data has no validation part
    detector = YoloDetector(folder, device=device)
    for name, source in sources.items():
        if not has_boxes(source):
            continue
        by_word = evaluate_detector(detector, source)
        objects, reported, right = (
            sum(getattr(quality, kind) for quality in by_word.values())
            for kind in ("objects", "reported", "right")
        )
        together = DetectionQuality(objects, reported, right)
        run.report(data=name, recall=together.recall, precision=together.precision)
        tell(f"{name}: recall {together.recall:.3f}  precision {together.precision:.3f}")


def _boxed_sources(settings: DetectSettings) -> tuple[list[Source], list[float]]:
    """Sources with boxes, and their shares."""
    found = find_sources(Path(settings.data).expanduser())
    given = dict(zip(found, shares(found, settings.share), strict=True))
    boxed = {name: source for name, source in found.items() if has_boxes(source)}
    if not boxed:
        raise FileError(
            f"No data folder in '{settings.data}' tells objects apart: a detector needs label "
            "images, COCO or Pascal VOC. docs/training.md lists the formats."
        )
    drawn = [name for name in boxed if given[name] > 0]
    if not drawn:
        raise InvalidConfigError(
            f"Every folder with boxes ({', '.join(boxed)}) has the share 0. Give one a --share "
            "above 0."
        )
    return [boxed[name] for name in drawn], [given[name] for name in drawn]


class _Step:
    """The losses of one batch."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._network, self._device = network, device
        self._loss = DetectionLoss(network)

    def __call__(self, batch: DetectionBatch) -> dict[str, Tensor]:
        """Losses ``box``, ``cls`` and ``dfl``."""
        device, dtype = self._device, fast_dtype(self._device)
        images = batch.images.to(device, memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            output: dict[str, Any] = self._network(images)
        return self._loss(
            output, batch.image.to(device), batch.word.to(device), batch.boxes.to(device)
        )
