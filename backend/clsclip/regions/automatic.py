"""Which generator proposes regions for a word, and why: what ``auto`` means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clsclip.errors import CheckpointError, ModelUnavailableError
from clsclip.regions.detector_config import detector_folder
from clsclip.regions.drawn import DrawnBoxes
from clsclip.regions.open_vocabulary import OpenVocabularyDetector
from clsclip.regions.region import RegionGenerator
from clsclip.regions.tiles import Tiles
from clsclip.regions.yolo import YoloDetector
from clsclip.regions.yolo_file import YoloFile

_UNUSABLE = (CheckpointError, ModelUnavailableError)


@dataclass(frozen=True)
class Choice:
    """A generator that is ready, and the sentence that tells the user about it.

    Attributes
    ----------
    generator : RegionGenerator
    reason : str
        One sentence: "Regions come from the detector, which knows 'nucleus'."
    """

    generator: RegionGenerator
    reason: str


def open_detector(path: str | Path, *, device: str = "auto") -> YoloDetector | YoloFile:
    """The detector at a path.

    Parameters
    ----------
    path : str or Path
        Detector directory of this project, or a folder that holds one (the output of
        ``napari-clsclip-train detect``, or a model that brings its detector), or an exported
        YOLO.
    device : str
        As :func:`clsclip.model.device.choose_device` takes it.

    Raises
    ------
    CheckpointError, ModelUnavailableError, DeviceError
        As :class:`YoloDetector` and :class:`YoloFile`.
    """
    path = Path(path).expanduser()
    exported = path.name.lower().endswith(("_model", ".mlpackage"))  # formats that are folders
    if path.is_dir() and not exported:
        return YoloDetector(detector_folder(path), device=device)
    return YoloFile(path, device=device)


def choose(
    word: str,
    *,
    drawn: DrawnBoxes | None = None,
    detectors: Sequence[Callable[[], RegionGenerator]] = (),
    open_vocabulary: OpenVocabularyDetector | None = None,
    tiles: Tiles | None = None,
) -> Choice:
    """The generator to ask about a word.

    The first that can be used of: drawn boxes; a detector whose vocabulary has the word; an
    open-vocabulary detector whose weights are on this machine; tiles. What is missing or broken
    is passed over, and the reason says so.

    Parameters
    ----------
    word : str
        As the user typed it.
    drawn : DrawnBoxes, optional
        Of this word in this image.
    detectors : sequence of callable
        Each opens a detector, or hands out one that is open:
        ``functools.cache(functools.partial(open_detector, path))``.
    open_vocabulary : OpenVocabularyDetector, optional
        It is loaded if it is chosen.
    tiles : Tiles, optional
        Default: tiles at their default zoom.

    Returns
    -------
    Choice

    Raises
    ------
    DeviceError
        If the device that a detector was told to use is not there.
    """
    passed: list[str] = []
    if drawn is not None and drawn.boxes:
        return Choice(drawn, _about_drawn(drawn))
    if drawn is not None and drawn.dropped:
        passed.append(f"of the drawn boxes none can be used ({drawn.dropped_because})")
    for open_one in detectors:
        try:
            detector = open_one()
        except _UNUSABLE as error:
            passed.append(f"a detector cannot be used ({error.message.rstrip('.')})")
            continue
        if detector.knows(word):
            source = f"Regions come from the {detector.name}, which knows '{word}'"
            return Choice(detector, "; ".join([source, *passed]) + ".")
        passed.append(f"the {detector.name} does not know '{word}'")
    if not detectors:
        passed.append("there is no detector")
    obstacle = _obstacle(open_vocabulary)
    if open_vocabulary is not None and obstacle is None:
        source = f"Regions come from the {open_vocabulary.name}"
        return Choice(open_vocabulary, _because(source, passed))
    return Choice(
        tiles or Tiles(),
        _because("Regions are overlapping tiles and the whole image", [*passed, str(obstacle)]),
    )


def _obstacle(detector: OpenVocabularyDetector | None) -> str | None:
    """What keeps an open-vocabulary detector from being used; None: it is loaded now."""
    if detector is None:
        return "there is no open-vocabulary detector"
    if not detector.available():
        return f"the weights of the {detector.name} are not on this machine"
    try:
        detector.load()
    except _UNUSABLE as error:
        return f"the {detector.name} cannot be used ({error.message.rstrip('.')})"
    return None


def _about_drawn(drawn: DrawnBoxes) -> str:
    count = len(drawn.boxes)
    kept = "Region is the box" if count == 1 else f"Regions are the {count} boxes"
    left_out = f"; left out: {drawn.dropped_because}" if drawn.dropped else ""
    return f"{kept} that you drew{left_out}."


def _because(what: str, reasons: Sequence[str]) -> str:
    *first, last = reasons
    return f"{what}, because {', '.join(first)}{' and ' if first else ''}{last}."
