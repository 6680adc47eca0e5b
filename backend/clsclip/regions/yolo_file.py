"""Any YOLO of Ultralytics that was exported to a format without pickle.

A ``.pt`` file is a pickle, which runs whatever code is in it when it is read; nothing is loaded
that way here, and the names of Ultralytics' hub (``yolo11n``) stand for such files. Ultralytics'
own command turns one into a graph that a runtime reads as data.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clsclip.errors import CheckpointError
from clsclip.model.device import choose_device
from clsclip.regions.closer import propose_closer
from clsclip.regions.region import Checkpoint, Region, go_on
from clsclip.regions.suppression import DEFAULT_IOU, MOST_REGIONS
from clsclip.regions.vocabulary import Vocabulary
from clsclip.regions.yolo import DEFAULT_CONFIDENCE
from clsclip.regions.yolo_network import ExportedNetwork

_PICKLED: Final = (".pt", ".pth", ".torchscript", "")


class YoloFile:
    """A detector from outside, a :class:`clsclip.regions.region.RegionGenerator`.

    Parameters
    ----------
    file : str or Path
        What ``yolo export`` wrote: an ``.onnx`` file, or another of
        :data:`clsclip.regions.yolo_network.EXPORTED`.
    device : str
        As :func:`clsclip.model.device.choose_device` takes it.
    confidence : float
        Smallest score of a proposed region.

    Raises
    ------
    CheckpointError
        If the file is missing, broken, a pickle, or no detector of Ultralytics.
    ModelUnavailableError
        If the runtime for its format is not installed.
    DeviceError
    """

    def __init__(
        self,
        file: str | Path,
        *,
        device: str = "auto",
        confidence: float = DEFAULT_CONFIDENCE,
    ) -> None:
        path = Path(file).expanduser()
        _refuse_pickles(path)
        self.name = f"detector '{path.name}'"
        self._confidence = confidence
        self._network = ExportedNetwork(path, choose_device(device))
        self._vocabulary = Vocabulary(self._network.words)
        self._lock = threading.Lock()  # runtimes on a GPU write to the same memory each time

    @property
    def words(self) -> tuple[str, ...]:
        """Class words that it knows."""
        return self._vocabulary.words

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
        return propose_closer(
            rgb, lambda part: self._propose(part, index), self._network.side,
            checkpoint=checkpoint,
        )  # fmt: skip

    def _propose(self, rgb: NDArray[np.float32], index: int) -> list[Region]:
        pixels = np.round(rgb * 255).astype(np.uint8)
        with self._lock:
            found = self._network(pixels, self._confidence, DEFAULT_IOU, MOST_REGIONS, index)
        return [
            Region(self.words[index], score, (top, left, bottom, right))
            for top, left, bottom, right, score, _ in found.tolist()
            if bottom > top and right > left
        ]


def _refuse_pickles(path: Path) -> None:
    """Raise for pickles and names of hub models, and for files that are not there."""
    nowhere = not path.suffix and len(path.parts) > 1 and not path.exists()  # and no hub name
    if path.suffix.lower() in _PICKLED and not path.is_dir() and not nowhere:
        model = path if path.suffix else path.with_suffix(".pt")
        raise CheckpointError(
            f"The YOLO '{path}' is not read, because a file of that kind is a pickle or a program "
            f"and could run any code. Export it once, where you trust it, with 'yolo export "
            f"model={model} format=onnx' (a command of the package ultralytics), and give the "
            f"path of '{model.with_suffix('.onnx').name}'."
        )
    if not path.exists():
        raise CheckpointError(
            f"There is no detector at '{path}'. Give the path of an exported YOLO (.onnx), or of "
            "a detector directory, on the machine where the backend runs."
        )
