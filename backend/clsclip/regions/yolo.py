"""Detector directories: an Ultralytics YOLO that this project trained, stored without pickle."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn

from clsclip.errors import CheckpointError, FileError
from clsclip.model.checkpoint import read_tensors
from clsclip.model.config import DETECTOR_FILE
from clsclip.model.device import choose_device
from clsclip.model.files import write_atomically
from clsclip.predict.transforms import resize, to_tensor
from clsclip.regions.closer import propose_closer
from clsclip.regions.detector_config import (
    Architecture,
    DetectorConfig,
    read_detector_config,
)
from clsclip.regions.region import Checkpoint, Region, go_on
from clsclip.regions.suppression import DEFAULT_IOU, MOST_REGIONS
from clsclip.regions.vocabulary import Vocabulary
from clsclip.regions.yolo_network import best_boxes, new_network

DETECTOR_WEIGHTS: Final = "detector.safetensors"

DEFAULT_CONFIDENCE: Final = 0.1
"""Score from which a box is reported: low, because ClsCLIP looks at every region again."""

GREY: Final = 0.5
"""Value of padding around images."""

_STRIDE: Final = 32
_NOT_STORED: Final = "num_batches_tracked"  # of batch normalisation; nothing reads it


class YoloDetector:
    """A trained detector, a :class:`clsclip.regions.region.RegionGenerator`.

    Parameters
    ----------
    folder : str or Path
        Detector directory: ``detector.json`` and ``detector.safetensors``.
    device : str
        As :func:`clsclip.model.device.choose_device` takes it.
    confidence : float
        Smallest score of a proposed region.

    Raises
    ------
    CheckpointError
        If a file is missing, truncated or foreign, or the weights are not those of the network.
    DeviceError
    """

    name: Final = "detector"

    def __init__(
        self,
        folder: str | Path,
        *,
        device: str = "auto",
        confidence: float = DEFAULT_CONFIDENCE,
    ) -> None:
        folder = Path(folder)
        self._device = choose_device(device)
        self.config = read_detector_config(folder)
        self._vocabulary = Vocabulary(self.config.words)
        self._confidence = confidence
        network = _read_network(folder, self.config)
        network.fuse(verbose=False)
        self._network = network.to(self._device).eval()
        # the head keeps its anchors for the image shape of the last call
        self._lock = threading.Lock()

    @property
    def words(self) -> tuple[str, ...]:
        """Class words that it knows."""
        return self.config.words

    def knows(self, word: str) -> bool:
        """Whether a typed word is one of its class words."""
        return word in self._vocabulary

    def propose(
        self, rgb: NDArray[np.float32], word: str, checkpoint: Checkpoint = go_on
    ) -> list[Region]:
        """Regions of a word, as :class:`clsclip.regions.region.RegionGenerator` says.

        Small objects of a large image are looked for closer, see :mod:`clsclip.regions.closer`.
        """
        index = self._vocabulary.index(word)
        return self._detect(rgb, self._confidence, DEFAULT_IOU, MOST_REGIONS, index, checkpoint)

    def detect(
        self,
        rgb: NDArray[np.float32],
        confidence: float = DEFAULT_CONFIDENCE,
        iou: float = DEFAULT_IOU,
        limit: int = 300,
        size: int | None = None,
    ) -> list[Region]:
        """Find objects.

        Parameters
        ----------
        rgb : ndarray of float32, shape (H, W, 3)
            RGB in [0, 1].
        confidence : float
            Smallest score.
        iou : float
            Of two boxes of one word that overlap by more than this intersection over union, the
            one with the higher score is kept.
        limit : int
            Most regions, those with the highest scores.
        size : int, optional
            Length in network pixels to which the longer side is brought, once. None: the size that
            the detector was trained for, and closer where objects are small there.

        Returns
        -------
        list of Region
            Highest score first; boxes lie inside the image.
        """
        if size is None:
            return self._detect(rgb, confidence, iou, limit, None, go_on)
        return self._look(rgb, confidence, iou, limit, size, None)

    def _detect(
        self, rgb: NDArray[np.float32], confidence: float, iou: float, limit: int,
        only: int | None, checkpoint: Checkpoint,
    ) -> list[Region]:  # fmt: skip
        """Objects of all class words, or of the one at place ``only``, also small ones."""
        size = self.config.image_size
        return propose_closer(
            rgb, lambda part: self._look(part, confidence, iou, limit, size, only), size,
            iou=iou, limit=limit, checkpoint=checkpoint,
        )  # fmt: skip

    def _look(
        self, rgb: NDArray[np.float32], confidence: float, iou: float, limit: int, size: int,
        only: int | None,
    ) -> list[Region]:  # fmt: skip
        """What one look at an image shows."""
        rows, columns = rgb.shape[:2]
        pixels, scale = _letterbox(rgb, size)
        with self._lock, torch.inference_mode():
            raw = self._network(pixels.to(self._device))[0]  # (1, 4 + words, anchors)
            found = best_boxes(raw, len(self.words), confidence, iou, limit, only=only)
        corners = found[:, :4] / np.tile(scale, 2)
        boxes = np.clip(corners, 0, np.array([rows, columns, rows, columns]))
        return [
            Region(self.words[int(row[5])], float(row[4]), (top, left, bottom, right))
            for row, (top, left, bottom, right) in zip(found, boxes.tolist(), strict=True)
            if bottom > top and right > left
        ]


def _letterbox(rgb: NDArray[np.float32], size: int) -> tuple[Tensor, NDArray[np.float64]]:
    """Bring the longer side to ``size``, and fill up to whole strides at the bottom and right.

    Returns
    -------
    pixels : Tensor of float32, shape (1, 3, rows, columns)
    scale : ndarray, shape (2,)
        Network pixels per image pixel along rows and columns.
    """
    shape = np.array(rgb.shape[:2])
    inside = np.maximum(np.round(shape * size / shape.max()), 1).astype(int)
    pixels = resize(to_tensor(rgb), (int(inside[0]), int(inside[1])))
    below, right = (-inside % _STRIDE).tolist()
    return F.pad(pixels, (0, right, 0, below), value=GREY), inside / shape


def save_detector(
    network: nn.Module,
    folder: Path,
    *,
    words: tuple[str, ...],
    image_size: int,
    architecture: Architecture,
    training: Mapping[str, Any],
) -> None:
    """Write a detector directory; weights of convolutions become float16.

    A crash between the two files leaves a pair that :class:`YoloDetector` refuses.

    Parameters
    ----------
    network : Module
        From :func:`new_network`.
    folder : Path
        Created if it does not exist; an older detector there is replaced.
    words : tuple of str
        Class words, in the order of the network's scores.
    image_size : int
        Longer side of an image in network pixels.
    architecture : Architecture
        Of the network.
    training : mapping
        JSON values that say what trained it.

    Raises
    ------
    FileError
    """
    # Batch normalisation stays float32: small in bytes, large in range.
    weights = save(
        {
            name: (tensor.half() if tensor.ndim > 1 else tensor.float()).cpu().contiguous()
            for name, tensor in network.state_dict().items()
            if not name.endswith(_NOT_STORED)
        }
    )
    config = DetectorConfig(
        words=words, image_size=image_size, architecture=architecture,
        weights_sha256=hashlib.sha256(weights).hexdigest(), training=dict(training),
    )  # fmt: skip
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / DETECTOR_WEIGHTS, weights)
        description = config.model_dump_json(indent=2) + "\n"
        write_atomically(folder / DETECTOR_FILE, description.encode())
    except OSError as error:
        raise FileError(f"The detector '{folder}' cannot be written ({error}).") from error


def _read_network(folder: Path, config: DetectorConfig) -> Any:
    """The network of a detector directory, in float32."""
    file = folder / DETECTOR_WEIGHTS
    state = read_tensors(file)
    if hashlib.sha256(file.read_bytes()).hexdigest() != config.weights_sha256:
        raise CheckpointError(
            f"'{file}' does not belong to the {DETECTOR_FILE} beside it (other SHA-256). Get the "
            "complete detector directory again."
        )
    try:
        network = new_network(config.architecture, len(config.words))
        counters = {k: v for k, v in network.state_dict().items() if k.endswith(_NOT_STORED)}
        network.load_state_dict({**{k: t.float() for k, t in state.items()}, **counters})
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"'{file}' does not fit the architecture in {DETECTOR_FILE}: {error}. Get the complete "
            "detector directory again."
        ) from error
    return network
