"""What the files beside CLIPSeg's weights say, as transformers and the hub write them.

Nothing here loads torch, so lists are quick.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clsclip.config import Settings
from clsclip.errors import CheckpointError
from clsclip.model.config import CONFIG_FILE, WEIGHTS_FILE
from clsclip.wire import describe_validation

CLIPSEG_DESCRIPTION: Final = "CLIPSeg: any word in photographs; cannot be taught"

_PROCESSOR_FILES: Final = ("preprocessor_config.json", "processor_config.json")
_UNSAFE_WEIGHTS_FILE: Final = "pytorch_model.bin"
_WEIGHTS_FILES: Final = (WEIGHTS_FILE, f"{WEIGHTS_FILE}.index.json", _UNSAFE_WEIGHTS_FILE)
_TOKENIZER_FILES: Final = ("tokenizer.json", "vocab.json")

Colour = tuple[float, float, float]
_Positive = Annotated[float, Field(gt=0)]


class ClipSegConfig(Settings):
    """How images become the input of a CLIPSeg.

    Attributes
    ----------
    image_size : int
        Side in pixels of the square that it was trained to read.
    mean, std : tuple of float
        Of each colour in [0, 1]: subtracted, and divided by.
    """

    image_size: int
    mean: Colour
    std: Colour


class _Size(BaseModel):
    """Newer files write a size as a table."""

    height: int
    width: int


class _ImageProcessor(BaseModel):
    """The part of an image processor's settings that matters here.

    The defaults are those of all published CLIPSeg.
    """

    model_config = ConfigDict(extra="ignore")

    size: Annotated[int, Field(gt=0)] | _Size = 352
    image_mean: Colour = (0.485, 0.456, 0.406)
    image_std: tuple[_Positive, _Positive, _Positive] = (0.229, 0.224, 0.225)
    do_normalize: bool = True


class _Processor(BaseModel):
    """A processor whose file has the image processor's settings inside."""

    model_config = ConfigDict(extra="ignore")

    image_processor: _ImageProcessor = _ImageProcessor()


def read_clipseg_config(folder: Path) -> ClipSegConfig:
    """Read how images become input; a folder without these files means the published values.

    Parameters
    ----------
    folder : Path
        As ``save_pretrained`` of transformers' model and processor write it, or as it lies in the
        hub's cache.

    Raises
    ------
    CheckpointError
        If a file cannot be read, or the input is not square.
    """
    found = _read_processor(folder)
    size = found.size
    if isinstance(size, _Size):
        if size.height != size.width or size.height <= 0:
            raise CheckpointError(
                f"The CLIPSeg in '{folder}' reads images of {size.height} x {size.width} pixels; "
                "only squares can be used here."
            )
        size = size.height
    if not found.do_normalize:
        return ClipSegConfig(image_size=size, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return ClipSegConfig(image_size=size, mean=found.image_mean, std=found.image_std)


def clipseg_fault(folder: Path) -> str | None:
    """Why a CLIPSeg folder cannot be used, as far as that shows without reading its weights."""
    for names in (_WEIGHTS_FILES, _TOKENIZER_FILES):
        if not any((folder / name).is_file() for name in names):
            return f"'{folder / names[0]}' is missing. Get the complete model again."
    try:
        read_clipseg_config(folder)
    except CheckpointError as error:
        return error.message
    return None


def clipseg_version(folder: Path) -> str:
    """Twelve hexadecimal digits that identify the weights and how images become input.

    Raises
    ------
    CheckpointError
    """
    digest = hashlib.sha256()
    try:
        weights = sorted(folder.glob("model*.safetensors")) or [folder / _UNSAFE_WEIGHTS_FILE]
        for file in (*(folder / name for name in (CONFIG_FILE, *_PROCESSOR_FILES)), *weights):
            if file.is_file():
                digest.update(file.name.encode())
                with file.open("rb") as stream:  # hundreds of megabytes are not held
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
    except OSError as error:
        raise CheckpointError(
            f"'{folder}' cannot be read ({error}). Get the complete model again."
        ) from error
    return digest.hexdigest()[:12]


def _read_processor(folder: Path) -> _ImageProcessor:
    for name in _PROCESSOR_FILES:
        file = folder / name
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise CheckpointError(
                f"'{file}' cannot be read ({error}). Get the complete model again."
            ) from error
        try:
            if name == "processor_config.json":
                return _Processor.model_validate_json(content).image_processor
            return _ImageProcessor.model_validate_json(content)
        except ValidationError as error:
            raise CheckpointError(
                f"'{file}' does not say how CLIPSeg reads images: {describe_validation(error)}"
            ) from error
    return _ImageProcessor()
