"""How the images of a batch are labelled: the same for all of them, in whichever process."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import clsclip
from clsclip.batch.large import settings_of
from clsclip.config import DEFAULT_THRESHOLD, LabelFormat, LargeImageSettings, RegionMode
from clsclip.errors import CheckpointError
from clsclip.instances import InstanceOptions
from clsclip.predict.predictor import Predictor


@dataclass(frozen=True)
class LabelTask:
    """What to label with, how, and where to. Can be sent to other processes.

    Attributes
    ----------
    output : Path
        Folder for the labels.
    words : tuple of str
        Word ``k`` has class id ``k + 1``.
    model, device : str
        See :class:`clsclip.predict.predictor.Predictor`.
    model_version : str
        Hash of the weights; no others are used.
    threshold, zoom, templates, regions, detector
        See :meth:`clsclip.predict.predictor.Predictor.segment`.
    instances : InstanceOptions or None
        Whether and how single objects are told apart.
    large : LargeImageSettings
        Which images are labelled block by block; see :mod:`clsclip.batch.large`.
    channels : tuple of int
        Which channels of the images are looked at; see :class:`clsclip.config.ChannelSettings`.
    formats : tuple of LabelFormat
        "tiff" need not be among them.
    resumed : bool
        Whether the run goes on with an earlier one.
    """

    output: Path
    words: tuple[str, ...]
    model: str
    model_version: str
    device: str = "auto"
    threshold: float = DEFAULT_THRESHOLD
    zoom: float | None = None
    templates: bool = True
    regions: RegionMode = "none"
    detector: str = ""
    instances: InstanceOptions | None = None
    large: LargeImageSettings = field(default_factory=LargeImageSettings)
    channels: tuple[int, ...] = ()
    formats: tuple[LabelFormat, ...] = ("tiff",)
    resumed: bool = False

    def image_settings(self) -> dict[str, Any]:
        """What the labels of an image depend on, as JSON values."""
        chosen = {"channels": list(self.channels)} if self.channels else {}
        return {
            "words": list(self.words), "threshold": self.threshold, "zoom": self.zoom,
            "templates": self.templates, "regions": self.regions, "detector": self.detector,
            "instances": settings_of(self.instances), "level": self.large.level,
            "chunk": self.large.chunk, "model": self.model,
            "model_version": self.model_version, "version": clsclip.__version__,
            **chosen,
        }  # fmt: skip

    def settings(self) -> dict[str, Any]:
        """What the labels of a folder depend on, as JSON values."""
        return {**self.image_settings(), "large_from": self.large.large_from}

    def load_predictor(self) -> Predictor:
        """The model.

        Raises
        ------
        CheckpointError
            If it has other weights than the batch was begun with.
        UnknownModelError, ModelUnavailableError, DeviceError
        """
        predictor = Predictor(self.model, device=self.device)
        if predictor.version != self.model_version:
            raise CheckpointError(
                f"The model '{self.model}' has the weights {predictor.version}, but the batch was "
                f"begun with {self.model_version}. All workers must see the same model."
            )
        return predictor
