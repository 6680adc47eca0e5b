"""Networks, losses and exported files of Ultralytics.

The only module that imports ultralytics. Ultralytics is licensed under AGPL-3.0, unlike this
project: whoever passes on, or serves over a network, a program that includes it has to heed that
licence. It is imported when a network is first built, so that everything else starts without it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clsclip.errors import CheckpointError, ModelUnavailableError
from clsclip.regions.detector_config import Architecture

EXPORTED: Final = ("onnx", "openvino", "ncnn", "litert", "coreml")
"""Formats of Ultralytics that a runtime reads as data: no pickle, no program."""

_TASKS: Final = ("detect", "segment", "pose")  # those whose networks put out upright boxes
_GAINS: Final = SimpleNamespace(box=7.5, cls=0.5, dfl=1.5)  # the defaults of Ultralytics


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


def best_boxes(
    raw: Any,
    words: int,
    confidence: float,
    iou: float,
    limit: int,
    *,
    only: int | None = None,
    final: bool = False,
) -> NDArray[np.float64]:
    """Boxes of one image from what a network puts out, without duplicates of one word.

    Parameters
    ----------
    raw : Tensor of shape (1, 4 + words + other, anchors), or a sequence that begins with it
    words : int
        Number of class words.
    confidence, iou, limit
        As :meth:`clsclip.regions.yolo.YoloDetector.detect` takes them.
    only : int, optional
        The class word to which to keep.
    final : bool
        The network has suppressed duplicates by itself; ``raw`` is (1, boxes, 6 + other).

    Returns
    -------
    ndarray, shape (n, 6)
        Top, left, bottom, right in network pixels, score, class. Highest score first.
    """
    from ultralytics.utils.nms import non_max_suppression

    found = non_max_suppression(
        raw, confidence, iou, None if only is None else [only], max_det=limit, nc=words,
        end2end=final,
    )[0]  # fmt: skip
    boxes: NDArray[np.float64] = found[:, [1, 0, 3, 2, 4, 5]].cpu().double().numpy()
    return boxes


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


class ExportedNetwork:
    """A YOLO that Ultralytics exported, run by the runtime of its format.

    Parameters
    ----------
    file : Path
        File or folder in one of the formats :data:`EXPORTED`, as ``yolo export`` writes it.
    device : torch.device
        Runtimes that cannot use it take the CPU.

    Raises
    ------
    CheckpointError
        If the file is broken, has another format, or was not exported by Ultralytics for a task
        with boxes.
    ModelUnavailableError
        If the runtime is not installed.
    """

    def __init__(self, file: Path, device: torch.device) -> None:
        with _private_import():
            from ultralytics.data.augment import LetterBox
            from ultralytics.nn.autobackend import AutoBackend

            if AutoBackend._model_type(str(file)) not in EXPORTED:
                raise CheckpointError(
                    f"'{file}' is in no format that is read here ({', '.join(EXPORTED)}). "
                    "Export the YOLO with 'yolo export model=... format=onnx'."
                )
            try:
                backend = AutoBackend(str(file), device=device, verbose=False)
            except ImportError as error:
                package = (error.name or "onnxruntime").partition(".")[0].replace("_", "-")
                raise ModelUnavailableError(
                    f"The detector '{file}' needs the package '{package}', which is not "
                    f"installed. Install it where the backend runs: pip install {package}"
                ) from error
            except Exception as error:  # every runtime has errors of its own
                raise CheckpointError(
                    f"'{file}' cannot be read as a YOLO ({type(error).__name__}: {error}). "
                    "Export it again."
                ) from error
        task = backend.metadata.get("task")
        if task not in _TASKS:
            raise CheckpointError(
                f"'{file}' is no detector that Ultralytics exported (its task is {task!r}). "
                f"Export a YOLO for one of: {', '.join(_TASKS)}."
            )
        self.words = tuple(str(backend.names[index]) for index in sorted(backend.names))
        rows, columns = backend.imgsz
        self._fit = LetterBox((rows, columns), auto=bool(backend.dynamic), stride=backend.stride)
        self._size = (rows, columns)
        self._backend = backend

    @property
    def side(self) -> int:
        """The shorter side of its input in pixels."""
        return int(min(self._size))

    def __call__(
        self,
        rgb: NDArray[np.uint8],
        confidence: float,
        iou: float,
        limit: int,
        only: int | None = None,
    ) -> NDArray[np.float64]:
        """Boxes of one image.

        Parameters
        ----------
        rgb : ndarray of uint8, shape (H, W, 3)
        confidence, iou, limit, only
            As :func:`best_boxes` takes them.

        Returns
        -------
        ndarray, shape (n, 6)
            Top, left, bottom, right in image pixels, inside the image; score; class. Highest
            score first.
        """
        from ultralytics.utils.ops import scale_boxes

        shape = rgb.shape[:2]
        zoom = min(size / length for size, length in zip(self._size, shape, strict=True))
        if round(min(shape) * zoom) < 1:
            return np.empty((0, 6))  # thinner than a pixel of the network
        fitted = torch.from_numpy(self._fit(image=rgb).transpose(2, 0, 1)[None].copy())
        with torch.inference_mode():
            raw = self._backend(fitted.to(self._backend.device).float() / 255)
            found = best_boxes(
                raw, len(self.words), confidence, iou, limit, only=only,
                final=self._backend.end2end,
            )  # fmt: skip
        across = torch.from_numpy(found[:, [1, 0, 3, 2]].copy())
        corners = scale_boxes(fitted.shape[2:], across, shape).numpy()
        return np.concatenate([corners[:, [1, 0, 3, 2]], found[:, 4:]], axis=1)


@contextmanager
def _private_import() -> Iterator[None]:
    """Keep what importing ultralytics does to itself.

    It would look for the network, write settings into the user's home, print a greeting, set
    environment variables that child processes (and Qt) inherit, install packages that it misses,
    and change how numpy prints.
    """
    before, printing = dict(os.environ), np.get_printoptions()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(
            YOLO_OFFLINE="1", YOLO_VERBOSE="0", YOLO_AUTOINSTALL="0", YOLO_CONFIG_DIR=folder,
            ULTRALYTICS_SKIP_REQUIREMENTS_CHECKS="1",
        )  # fmt: skip
        try:
            yield
        except ImportError as error:
            raise ModelUnavailableError(
                f"Detectors need the package 'ultralytics', which cannot be imported ({error}). "
                "Install it where the backend runs: pip install ultralytics"
            ) from error
        finally:
            for name in set(os.environ) - set(before):
                del os.environ[name]
            os.environ.update(before)
            np.set_printoptions(**printing)
