"""Region proposals of any word by a zero-shot detector of transformers (ours).

OWL-ViT, OWLv2, Grounding DINO and their kin. The weights are large and not part of this project:
they are used where they are on this machine, and fetched only when a person asks for them.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from clsclip.errors import CheckpointError, ModelUnavailableError
from clsclip.model.device import choose_device
from clsclip.regions.region import Checkpoint, Region, go_on
from clsclip.regions.suppression import DEFAULT_IOU, suppress

DEFAULT_OPEN_VOCABULARY: Final = "google/owlv2-base-patch16-ensemble"

OPEN_VOCABULARY_CONFIDENCE: Final = 0.1
"""Score from which a box is reported: the default of transformers for OWLv2."""

_CONFIG: Final = "config.json"
_PROCESSOR: Final = ("preprocessor_config.json", "processor_config.json")
_WEIGHTS: Final = ("model.safetensors", "model.safetensors.index.json")


class OpenVocabularyDetector:
    """A zero-shot detector, a :class:`clsclip.regions.region.RegionGenerator` for any word.

    Nothing is read before :meth:`load` or the first :meth:`propose`.

    Parameters
    ----------
    source : str or Path
        Folder as ``save_pretrained`` of a model and its processor writes it, or a name on the
        Hugging Face hub. Weights must be safetensors.
    device : str
        As :func:`clsclip.model.device.choose_device` takes it.
    confidence : float
        Smallest score of a proposed region.
    """

    def __init__(
        self,
        source: str | Path = DEFAULT_OPEN_VOCABULARY,
        *,
        device: str = "auto",
        confidence: float = OPEN_VOCABULARY_CONFIDENCE,
    ) -> None:
        self.name = f"open-vocabulary detector '{source}'"
        self._source, self._device, self._confidence = str(source), device, confidence
        self._loaded: tuple[Any, Any] | None = None
        self._lock = threading.Lock()

    def available(self) -> bool:
        """Whether its files are on this machine. Never asks the network, nor opens them."""
        return all(
            any(_on_this_machine(self._source, name) for name in names)
            for names in ((_CONFIG,), _PROCESSOR, _WEIGHTS)
        )

    def load(self) -> None:
        """Read the model, or fetch it from the hub if it is not on this machine.

        Raises
        ------
        ModelUnavailableError
            If the weights are not here and the hub did not give them.
        CheckpointError
            If they are here and cannot be read, or tensors are missing or misshapen.
        DeviceError
        """
        with self._lock:
            self._ready()

    def knows(self, word: str) -> bool:
        """True: it reads any word, though not every word means something to it."""
        return True

    def propose(
        self, rgb: NDArray[np.float32], word: str, checkpoint: Checkpoint = go_on
    ) -> list[Region]:
        """Regions of a word, as :class:`clsclip.regions.region.RegionGenerator` says.

        Parameters
        ----------
        rgb : ndarray of float32, shape (H, W, 3)
            RGB in [0, 1].
        word : str
        checkpoint : callable
            Not called: there is one look at most.

        Raises
        ------
        ModelUnavailableError, CheckpointError, DeviceError
            As :meth:`load`.
        """
        rows, columns = rgb.shape[:2]
        picture = Image.fromarray(np.round(rgb * 255).astype(np.uint8))
        with self._lock, torch.inference_mode():
            model, processor = self._ready()
            inputs = processor(
                images=picture, text=[word], truncation=True, return_tensors="pt",
                max_length=model.config.text_config.max_position_embeddings,
            ).to(model.device)  # fmt: skip
            found = processor.post_process_grounded_object_detection(
                model(**inputs), threshold=self._confidence, target_sizes=[(rows, columns)]
            )[0]
        across = found["boxes"].double().cpu().numpy()  # left, top, right, bottom
        boxes = np.clip(across[:, [1, 0, 3, 2]], 0, [rows, columns, rows, columns])
        regions = [
            Region(word, score, (top, left, bottom, right), "open vocabulary")
            for score, (top, left, bottom, right) in zip(
                found["scores"].tolist(), boxes.tolist(), strict=True
            )
            if bottom > top and right > left
        ]
        return suppress(regions, DEFAULT_IOU)

    def _ready(self) -> tuple[Any, Any]:
        """Model and processor."""
        if self._loaded is None:
            device = choose_device(self._device)
            model, processor = _read(self._source, local=self.available())
            self._loaded = model.to(device).eval(), processor
        return self._loaded


def _on_this_machine(source: str, file: str) -> bool:
    """Whether a file of a folder or of a hub model can be read without the network."""
    if Path(source).is_dir():
        return (Path(source) / file).is_file()
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(source, file), str)
    except HFValidationError:  # a path at which there is nothing
        return False


def _read(source: str, *, local: bool) -> tuple[Any, Any]:
    """Model in float32, and processor."""
    from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

    here = local or Path(source).is_dir()
    options: dict[str, Any] = {"local_files_only": here, "trust_remote_code": False}
    try:
        model, report = AutoModelForZeroShotObjectDetection.from_pretrained(
            source, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **options
        )
        processor = AutoProcessor.from_pretrained(source, **options)  # type: ignore[no-untyped-call]
    except Exception as error:
        if here:
            raise CheckpointError(
                f"'{source}' does not hold a readable zero-shot detector "
                f"({type(error).__name__}: {error}). It needs config.json, model.safetensors and "
                "the processor's files, as save_pretrained of transformers writes them."
            ) from error
        if isinstance(error, OSError):
            raise ModelUnavailableError(
                f"The open-vocabulary detector '{source}' could not be had: it is not on this "
                "machine and the Hugging Face hub did not answer or has no such model. Connect "
                "to the network once, or copy the model's folder to this machine and give its "
                f"path, or use tiles. ({error})"
            ) from error
        raise
    # superfluous tensors are let pass: published OWL-ViT files hold buffers of older versions
    faults = {key: sorted(map(str, report[key])) for key in report if report[key]}
    faults.pop("unexpected_keys", None)
    if faults:
        raise CheckpointError(
            f"The weights of '{source}' do not fit their configuration: {faults}. Get the "
            "complete model again."
        )
    return model, processor
