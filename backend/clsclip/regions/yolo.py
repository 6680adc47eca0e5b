"""Region proposals by an Ultralytics YOLO, stored without pickle.

The only module that imports ultralytics. Ultralytics is licensed under AGPL-3.0, unlike this
project: whoever passes on, or serves over a network, a program that includes it has to heed that
licence. It is imported when a network is first built, so that everything else starts without it.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn

from clsclip.errors import CheckpointError, FileError
from clsclip.model.checkpoint import read_tensors, write_atomically
from clsclip.model.device import choose_device
from clsclip.predict.transforms import resize, to_tensor
from clsclip.regions.detector_config import (
    DETECTOR_FILE,
    Architecture,
    DetectorConfig,
    read_detector_config,
)
from clsclip.regions.region import Region

DETECTOR_WEIGHTS: Final = "detector.safetensors"

DEFAULT_CONFIDENCE: Final = 0.1
"""Score from which a box is reported: low, because ClsCLIP looks at every region again."""

GREY: Final = 0.5
"""Value of padding around images."""

_STRIDE: Final = 32
_GAINS: Final = SimpleNamespace(box=7.5, cls=0.5, dfl=1.5)  # the defaults of Ultralytics
_NOT_STORED: Final = "num_batches_tracked"  # of batch normalisation; nothing reads it


class YoloDetector:
    """A trained detector.

    Parameters
    ----------
    folder : str or Path
        Detector directory: ``detector.json`` and ``detector.safetensors``.
    device : str
        As :func:`clsclip.model.device.choose_device` takes it.

    Raises
    ------
    CheckpointError
        If a file is missing, truncated or foreign, or the weights are not those of the network.
    DeviceError
    """

    def __init__(self, folder: str | Path, *, device: str = "auto") -> None:
        folder = Path(folder)
        self._device = choose_device(device)
        self.config = read_detector_config(folder)
        network = _read_network(folder, self.config)
        network.fuse(verbose=False)
        self._network = network.to(self._device).eval()
        # the head keeps its anchors for the image shape of the last call
        self._lock = threading.Lock()

    @property
    def words(self) -> tuple[str, ...]:
        """Class words that it knows."""
        return self.config.words

    def detect(
        self,
        rgb: NDArray[np.float32],
        confidence: float = DEFAULT_CONFIDENCE,
        iou: float = 0.6,
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
            Length in network pixels to which the longer side is brought; None: the size that the
            detector was trained for.

        Returns
        -------
        list of Region
            Highest score first; boxes lie inside the image.
        """
        from ultralytics.utils.nms import non_max_suppression

        rows, columns = rgb.shape[:2]
        pixels, scale = _letterbox(rgb, size or self.config.image_size)
        with self._lock, torch.inference_mode():
            raw = self._network(pixels.to(self._device))[0]  # (1, 4 + words, anchors)
            found = non_max_suppression(raw, confidence, iou, max_det=limit)[0].cpu().numpy()
        corners = found[:, [1, 0, 3, 2]] / np.tile(scale, 2)
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


def new_network(architecture: Architecture, classes: int) -> nn.Module:
    """An untrained network; its weights are drawn from torch's global generator.

    Parameters
    ----------
    architecture : Architecture
    classes : int

    Returns
    -------
    Module
        In training mode. Takes images of shape (B, 3, H, W) in [0, 1] whose sides are multiples
        of 32.
    """
    with _private_import():
        from ultralytics.nn.tasks import DetectionModel
    return cast(nn.Module, DetectionModel(architecture.to_yaml(classes), ch=3, verbose=False))


class DetectionLoss:
    """The losses of YOLOv8 (task-aligned assignment).

    Parameters
    ----------
    network : Module
        From :func:`new_network`, on its device.
    """

    def __init__(self, network: nn.Module) -> None:
        from ultralytics.utils.loss import v8DetectionLoss

        network.args = _GAINS  # type: ignore[assignment]
        self._loss = v8DetectionLoss(network)

    def __call__(
        self, output: Mapping[str, Any], image: Tensor, word: Tensor, boxes: Tensor
    ) -> dict[str, Tensor]:
        """Weighted losses of a batch: ``box`` (CIoU), ``cls`` and ``dfl`` (sides of boxes).

        Parameters
        ----------
        output : mapping
            What the network returns in training mode.
        image, word : Tensor of int64, shape (n,)
            Place in the batch (ascending), and class, of every object.
        boxes : Tensor of float32, shape (n, 4)
            Top, left, bottom, right as parts (0 to 1) of the image's sides.
        """
        preds: dict[str, Any] = {name: output[name].float() for name in ("boxes", "scores")}
        # Only shape and format of the features are read; anchors must not be bfloat16.
        preds["feats"] = [
            f.new_empty(1, dtype=torch.float32).expand(f.shape) for f in output["feats"]
        ]
        top, left, bottom, right = boxes.unbind(1)
        centred = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
        targets = {"batch_idx": image, "cls": word, "bboxes": torch.stack(centred, dim=1)}
        losses = self._loss(preds, targets)[0] / len(preds["scores"])
        return dict(zip(("box", "cls", "dfl"), losses, strict=True))


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


@contextmanager
def _private_import() -> Iterator[None]:
    """Keep what importing ultralytics does to itself.

    It would look for the network, write settings into the user's home, print a greeting, set
    environment variables that child processes (and Qt) inherit, and change how numpy prints.
    """
    before, printing = dict(os.environ), np.get_printoptions()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(YOLO_OFFLINE="1", YOLO_VERBOSE="0", YOLO_CONFIG_DIR=folder)
        try:
            yield
        finally:
            for name in set(os.environ) - set(before):
                del os.environ[name]
            os.environ.update(before)
            np.set_printoptions(**printing)
