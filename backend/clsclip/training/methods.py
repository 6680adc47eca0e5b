"""The methods that an evaluation can measure, and what they are called beside the paper."""

from __future__ import annotations

from typing import Final, Literal

from clsclip.errors import InvalidConfigError
from clsclip.model.config import is_clipseg
from clsclip.model.registry import find_model

Method = Literal["clsclip", "clipseg", "boxes"]

NO_BOXES: Final = ("none", "auto", "tiles")
"""Regions that leave some or all of an image to the network, so that they are no masks."""

_WHOLE: Final = ("none", "tiles")
"""Regions that show the whole image."""


def method_of(model: str, asked: Method | None) -> Method:
    """The method that a model stands for, or the one that is asked for.

    Parameters
    ----------
    model : str
        Name or path.
    asked : Method, optional
        "boxes" goes with any model: it may bring the detector.

    Raises
    ------
    UnknownModelError, ModelUnavailableError
    InvalidConfigError
        If the model is of another kind.
    """
    if asked == "boxes":
        return asked
    found: Method = "clipseg" if is_clipseg(find_model(model)) else "clsclip"
    if asked is not None and asked != found:
        raise InvalidConfigError(
            f"--method {asked} does not go with the model '{model}', which is a "
            f"{_NAMES[found]}. Name another --model, or leave --method out."
        )
    return found


def method_name(method: Method, model: str, regions: str) -> str:
    """What a method is called in a table: ``ClsCLIP+ (mini, detector)``.

    Parameters
    ----------
    method : Method
    model : str
        Name or path.
    regions : str
        Who proposes them; "none": the whole image is looked at.
    """
    if method == "boxes":
        return f"{_NAMES[method]} ({regions})"
    plus = "+" if method == "clsclip" and regions not in _WHOLE else ""
    looked = "" if regions == "none" else f", {regions}"
    return f"{_NAMES[method]}{plus} ({model}{looked})"


_NAMES: Final[dict[Method, str]] = {
    "clsclip": "ClsCLIP", "clipseg": "CLIPSeg", "boxes": "region proposals as masks"
}  # fmt: skip
