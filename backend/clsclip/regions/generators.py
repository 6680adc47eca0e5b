"""The generators that one model can ask for regions, and what they propose for a word."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clsclip.config import RegionMode
from clsclip.errors import InvalidConfigError
from clsclip.model.config import DETECTOR_FOLDER
from clsclip.predict.regions import Box
from clsclip.regions.automatic import Choice, choose, open_detector
from clsclip.regions.drawn import DrawnBoxes
from clsclip.regions.open_vocabulary import DEFAULT_OPEN_VOCABULARY, OpenVocabularyDetector
from clsclip.regions.region import Checkpoint, Region, RegionGenerator, go_on
from clsclip.regions.tiles import Tiles
from clsclip.regions.vocabulary import Vocabulary
from clsclip.regions.yolo import YoloDetector
from clsclip.regions.yolo_file import YoloFile
from clsclip.segmentation import RegionUsed

_JUDGED: Final = ("detector", "open vocabulary")
"""Origins whose scores mean something."""

_OPEN_DETECTORS: Final = 2
"""Detectors kept in memory beside each other; the least recently used one makes room."""


SURE: Final = 0.5
"""Score from which a detector's box parts objects where a watershed could do it (ours)."""


@dataclass(frozen=True)
class Proposals:
    """Where to look for a word in an image.

    Attributes
    ----------
    regions : tuple of Region
        Highest score first. Empty: a detector knows the word and sees none of it.
    reason : str
        What was chosen and why, and what it means that there are no regions; for the user.
    tiled : bool
        Regions are the windows in which the whole image is looked at, at a zoom that the look
        chooses; ``regions`` is empty.
    around : bool
        The whole image is to be looked at too: alone for what lies outside of the regions, and
        inside them beside the zoomed look.
    """

    regions: tuple[Region, ...]
    reason: str
    tiled: bool = False
    around: bool = False

    @property
    def boxes(self) -> list[Box]:
        """Boxes of the regions, in their order."""
        return [region.box for region in self.regions]

    @property
    def used(self) -> tuple[RegionUsed, ...]:
        """What the user is told of the regions, in their order."""
        return tuple(
            RegionUsed(r.box, r.score if r.origin in _JUDGED else None, r.origin)
            for r in self.regions
        )

    @property
    def owning(self) -> int:
        """How many of the regions, the first ones, part objects from each other.

        All, unless the whole image is looked at too: then a watershed can part them, and does so
        better than boxes of which the detector is not sure.
        """
        return sum(not self.around or r.score >= SURE for r in self.regions)

    @property
    def drawn(self) -> bool:
        """Whether a person drew the regions."""
        return any(region.origin == "drawn" for region in self.regions)


class Generators:
    """The generators of one model; each is opened when it is first needed, and kept.

    Parameters
    ----------
    model : Path
        Model directory. Its folder ``detector``, if there is one, is the detector that the model
        brings.
    device : str
        As :func:`clsclip.model.device.choose_device` takes it.
    open_vocabulary : str or Path
        What ``auto`` takes for words that no detector knows, if it is on this machine.
    """

    def __init__(
        self,
        model: Path,
        *,
        device: str,
        open_vocabulary: str | Path = DEFAULT_OPEN_VOCABULARY,
    ) -> None:
        self._bundled = model / DETECTOR_FOLDER
        self._default_source = str(open_vocabulary)
        self._detector = functools.lru_cache(_OPEN_DETECTORS)(
            functools.partial(open_detector, device=device)
        )
        self._open_vocabulary = functools.lru_cache(_OPEN_DETECTORS)(
            functools.partial(OpenVocabularyDetector, device=device)
        )

    def check(
        self, mode: RegionMode, words: Sequence[str], *, detector: str = "", drawn: bool = False
    ) -> None:
        """Raise what :meth:`propose` would raise for any image.

        Parameters
        ----------
        mode, detector
            As :meth:`propose` takes them.
        words : sequence of str
        drawn : bool
            Whether there are drawn boxes.

        Raises
        ------
        InvalidConfigError
            If a detector or boxes are given that the mode does not use, or the mode asks for a
            detector and there is none.
        InvalidWordError
            If the mode asks for a detector that does not know a word.
        CheckpointError, ModelUnavailableError, DeviceError
            If a detector that is asked for cannot be opened.
        """
        if drawn and mode != "auto":
            raise InvalidConfigError(
                f"There are drawn boxes, which regions '{mode}' does not use. Choose regions "
                "'auto', or leave the boxes out."
            )
        if detector and mode in ("none", "tiles"):
            raise InvalidConfigError(
                f"The detector '{detector}' is named, which regions '{mode}' does not use. Choose "
                "regions 'auto' or 'detector', or leave the detector out."
            )
        if mode == "open-vocabulary":
            self._open_vocabulary(detector or self._default_source).load()
        elif mode == "detector":
            vocabulary = Vocabulary(self._asked_for(detector).words)
            for word in words:
                vocabulary.index(word)  # raises if it does not know the word
        elif detector:
            self._detector(detector)

    def propose(
        self,
        rgb: NDArray[np.float32],
        word: str,
        mode: RegionMode,
        *,
        detector: str = "",
        drawn: DrawnBoxes | None = None,
        checkpoint: Checkpoint = go_on,
    ) -> Proposals:
        """Where to look for a word, once :meth:`check` has let the settings pass.

        Parameters
        ----------
        rgb : ndarray of float32, shape (H, W, 3)
            RGB in [0, 1].
        word : str
            As the user typed it.
        mode : str
            One of :data:`clsclip.config.RegionMode` but ``none``. ``auto`` passes over a broken
            detector of the model, but not over one that ``detector`` names.
        detector : str
            See :class:`clsclip.config.DetectorSettings`.
        drawn : DrawnBoxes, optional
            Boxes on this image, for ``auto``.
        checkpoint : callable
            See :class:`clsclip.regions.region.RegionGenerator`.

        Raises
        ------
        InvalidConfigError, InvalidWordError, CheckpointError, ModelUnavailableError, DeviceError
            As :meth:`check`.
        """
        choice = self._choose(word, mode, detector, drawn)
        if isinstance(choice.generator, Tiles):
            return Proposals((), choice.reason, tiled=True)
        regions = tuple(choice.generator.propose(rgb, word, checkpoint))
        around = mode == "auto" and any(region.origin in _JUDGED for region in regions)
        if around:
            reason = f"{choice.reason} The whole image was looked at too."
            return Proposals(regions, reason, around=True)
        if regions:
            return Proposals(regions, choice.reason)
        return Proposals((), f"{choice.reason} It found none: the whole image was looked at.")

    def _choose(
        self, word: str, mode: RegionMode, detector: str, drawn: DrawnBoxes | None
    ) -> Choice:
        if mode == "tiles":
            return Choice(Tiles(), "Regions are overlapping tiles and the whole image.")
        if mode == "open-vocabulary":
            chosen = self._open_vocabulary(detector or self._default_source)
            return Choice(chosen, f"Regions come from the {chosen.name}.")
        if mode == "detector":
            asked = self._asked_for(detector)
            return Choice(asked, f"Regions come from the {asked.name}, which knows '{word}'.")
        detectors: list[Callable[[], RegionGenerator]] = []
        if detector:
            named = self._detector(detector)  # raises: a person named it
            detectors.append(lambda: named)
        if self._bundled.is_dir():
            detectors.append(functools.partial(self._detector, str(self._bundled)))
        return choose(
            word, drawn=drawn, detectors=detectors,
            open_vocabulary=self._open_vocabulary(self._default_source),
        )  # fmt: skip

    def _asked_for(self, detector: str) -> YoloDetector | YoloFile:
        """The detector that is named, else the one that the model brings."""
        if not detector and not self._bundled.is_dir():
            raise InvalidConfigError(
                "There is no detector: none is named, and the model brings none. Name a detector "
                "directory or an exported YOLO (.onnx), or choose regions 'auto' or 'tiles'."
            )
        return self._detector(detector or str(self._bundled))
