"""What a model directory's ``config.json`` says. Nothing here loads torch, so lists are quick."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from clsclip.config import DEFAULT_MODEL, Settings
from clsclip.errors import CheckpointError, InvalidConfigError
from clsclip.wire import describe_validation

CONFIG_FILE: Final = "config.json"
WEIGHTS_FILE: Final = "model.safetensors"

DETECTOR_FOLDER: Final = "detector"
"""Folder of a run directory or of a model directory that holds a detector."""

DETECTOR_FILE: Final = "detector.json"

GuidanceKind = Literal["replace", "channel", "spatial", "prompts"]
"""How a word guides the image; see :mod:`clsclip.model.guidance` for all but "replace"."""

DEFAULT_TEMPLATES: Final = (
    "{}",
    "a photo of a {}.",
    "an image of {}.",
    "a microscopy image of {}.",
    "a picture with a {} in it.",
)


class HeadSettings(Settings):
    """Shape of the trained part of ClsCLIP."""

    guidance: GuidanceKind = Field(
        "replace",
        title="Guidance",
        description="How the word guides the image. replace: its [CLS] takes the place of the "
        "visual one (the paper's choice). For comparison (Tables 1 and 2): channel, spatial: it "
        "weights channels or patches of the encoder's output; prompts: learnable tokens that "
        "carry it enter every layer.",
    )
    replaced_layers: tuple[int, ...] = Field(
        (2, 3, 4),
        title="Replaced layers",
        description="Layers of the visual encoder, counted from 0, whose [CLS] comes from the "
        "text (N1 <= i < N2 in Eq. 6; Table 3 compares other sets). None with another guidance.",
    )
    prompt_tokens: int = Field(
        50,
        title="Prompt tokens",
        description="Learnable tokens per layer with the guidance 'prompts'.",
        ge=1,
    )
    decoder_layers: int = Field(
        2, title="Decoder layers", description="Transformer layers of the decoder (K).", ge=1
    )
    decoder_width: int = Field(
        192, title="Decoder width", description="Channels of the decoder.", ge=8
    )
    decoder_heads: int = Field(
        6, title="Decoder heads", description="Attention heads of the decoder.", ge=1
    )
    detail_channels: int = Field(
        0,
        title="Detail channels",
        description="Channels of a shallow look at the image itself that sharpens the decoder's "
        "outlines; 0: none, as in the paper.",
        ge=0,
    )
    presence: bool = Field(
        False,
        title="Presence",
        description="Whether the head also judges from the whole view if the word is there at "
        "all, and lowers the mask where it is not; the paper does not.",
    )
    match: bool = Field(
        False,
        title="Match",
        description="Whether the head also compares every patch with the word, and lowers the "
        "mask where they do not fit; the paper does not.",
    )
    edge_radius: int = Field(
        0,
        title="Edge radius",
        description="Radius, in pixels of the network's input, of a guided filter by which masks "
        "follow the edges of the image (prediction only); 0: none, as in the paper.",
        ge=0,
        le=64,
    )
    image_size: int = Field(
        352,
        title="Image size",
        description="Side in pixels of the square that the network reads at once.",
        ge=16,
    )
    prompt_templates: tuple[str, ...] = Field(
        DEFAULT_TEMPLATES,
        title="Prompt templates",
        description="Sentences around the word: one is drawn per training pair, their mean is "
        "used for prediction.",
        min_length=1,
    )

    @field_validator("replaced_layers")
    @classmethod
    def _ascending(cls, layers: tuple[int, ...]) -> tuple[int, ...]:
        if any(index < 0 for index in layers) or list(layers) != sorted(set(layers)):
            raise ValueError("replaced layers must be ascending, distinct and not negative")
        return layers

    @field_validator("presence")
    @classmethod
    def _of_a_word(cls, presence: bool, info: ValidationInfo) -> bool:
        guidance = info.data.get("guidance")
        if presence and guidance in ("channel", "spatial"):
            raise ValueError(
                f"presence is judged by tokens that a word has guided, and with the guidance "
                f"'{guidance}' no word reaches the encoder; leave one of the two out"
            )
        return presence

    @field_validator("prompt_templates")
    @classmethod
    def _with_place(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        for template in templates:
            if template.count("{}") != 1:
                raise ValueError(f"the template {template!r} needs exactly one {{}}")
        return templates


class BaseWeights(Settings):
    """The CLIP weights that a head belongs to."""

    source: str = Field(
        description="Hub name, folder, or the name of a folder inside the model directory."
    )
    revision: str | None = None
    sha256: str = Field(description="ClipTowers.fingerprint() of the weights.")


class ModelConfig(Settings):
    """Content of a model directory's ``config.json``."""

    format: Literal[1] = 1
    kind: Literal["clsclip"] = "clsclip"
    description: str = ""
    base: BaseWeights
    head: HeadSettings
    words: tuple[str, ...] = Field(
        (),
        description="Canonical words that training read, if it is known: other spellings of them "
        "are read as these.",
    )
    word_heads: tuple[tuple[str, ...], ...] = Field(
        (),
        description="Canonical words of each further head of the same shape, which answers for "
        "them alone; see clsclip.model.word_heads.",
    )
    training: dict[str, Any] = Field(
        default_factory=dict, description="What trained it: command, data, figures, commit."
    )


def is_clipseg(folder: Path) -> bool:
    """Whether a folder is a CLIPSeg, as transformers writes it; False where that is not known."""
    try:
        content = json.loads((folder / CONFIG_FILE).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("model_type") == "clipseg"


def read_config(folder: Path) -> ModelConfig:
    """Read and check the ``config.json`` of a ClsCLIP model, such as can be taught.

    Raises
    ------
    CheckpointError
    InvalidConfigError
        If it is a CLIPSeg, of which :mod:`clsclip.model.description` knows.
    """
    file = folder / CONFIG_FILE
    if is_clipseg(folder):
        raise InvalidConfigError(
            f"'{folder}' is a CLIPSeg: it segments, but cannot be taught, gone on from or bundled. "
            f"A ClsCLIP can: choose '{DEFAULT_MODEL}', a version of it, or what "
            "'napari-clsclip-train fit' wrote."
        )
    try:
        return ModelConfig.model_validate_json(file.read_bytes())
    except OSError as error:
        raise CheckpointError(
            f"'{folder}' is not a model directory: {CONFIG_FILE} cannot be read ({error}). Give "
            "the folder that training wrote."
        ) from error
    except ValidationError as error:
        raise CheckpointError(
            f"'{file}' is not the configuration of a ClsCLIP model: {describe_validation(error)}"
        ) from error
