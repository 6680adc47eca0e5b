"""What is asked of a batch, checked before anything is started. Nothing here loads torch."""

from __future__ import annotations

import re
import tempfile
import unicodedata
from datetime import datetime
from pathlib import Path
from typing import Final

from clsclip.batch.inputs import InputImage, find_images
from clsclip.batch.outputs import check_outputs
from clsclip.errors import FileError, InvalidRequestError, InvalidWordError
from clsclip.image_sources import is_zarr
from clsclip.model.registry import find_model, list_models
from clsclip.typed_words import check_words
from clsclip.wire_batch import COPIES_FOLDER, BatchRequest

_LONGEST_NAME: Final = 40


def checked(request: BatchRequest) -> tuple[BatchRequest, list[InputImage]]:
    """A request with whole paths, and the images that it means.

    Parameters
    ----------
    request : BatchRequest

    Raises
    ------
    InvalidWordError
    InvalidRequestError
        If an input does not exist, nothing matches, or images would be labelled in one place.
    UnknownModelError
    """
    words = check_words(request.words)
    for word in words:
        if "," in word:
            raise InvalidWordError(f"The word '{word}' holds a comma, which parts words.")
    inputs = [_whole(path, "input") for path in request.inputs]
    output = _whole(request.output, "output")
    for path in inputs:
        if path.resolve() == output.resolve():
            raise InvalidRequestError(
                f"'{output}' is an input and the output. Choose another folder for the labels."
            )
    folder = find_model(request.model)
    known = any(model.name == request.model for model in list_models())
    try:
        images = find_images(
            inputs, pattern=request.pattern, recursive=request.recursive, output=output,
            copies=request.copies,
        )  # fmt: skip
    except (FileError, ValueError) as error:  # of a pattern
        raise InvalidRequestError(str(error)) from error
    whole = request.model_copy(
        update={
            "words": words,
            "inputs": tuple(map(str, inputs)),
            "output": str(output),
            "model": request.model if known else str(folder.absolute()),
        }
    )
    return whole, images


def check_output(request: BatchRequest, images: list[InputImage]) -> None:
    """Refuse an output folder that holds other labels.

    Raises
    ------
    InvalidRequestError
    """
    output = Path(request.output)
    try:
        if output.exists() and (not output.is_dir() or is_zarr(output)):
            raise InvalidRequestError(f"'{output}' is no folder for labels. Choose another output.")
        check_outputs(
            images, output, overwrite=request.overwrite, formats=request.formats,
            words=request.words,
        )  # fmt: skip
    except (FileError, OSError) as error:
        raise InvalidRequestError(str(error)) from error


def check_copies(request: BatchRequest, *, whole: bool) -> None:
    """Refuse copies of images that napari made where this machine does not see them.

    Parameters
    ----------
    request : BatchRequest
    whole : bool
        Whether the copies must be there, and not only the folder for them.

    Raises
    ------
    InvalidRequestError
    """
    folder = Path(request.output) / COPIES_FOLDER
    needed = [Path(copy.copied_to) for copy in request.copies if copy.copied_to] if whole else []
    for path in [*needed, *([] if whole or not request.copies else [folder])]:
        if not path.exists():
            raise InvalidRequestError(
                f"{len(request.copies)} of the files can be read by napari only, which puts copies "
                f"of them into '{folder}'; but the backend does not see '{path}'. It probably runs "
                "on another machine: choose an output folder that both see under the same path."
            )


def make_output(request: BatchRequest) -> None:
    """Make the output folder, and see that it can be written.

    Raises
    ------
    InvalidRequestError
    """
    try:
        Path(request.output).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=request.output):
            pass
    except OSError as error:
        raise InvalidRequestError(
            f"The output folder '{request.output}' cannot be written ({error}). Choose another one."
        ) from error


def new_folder(batches: Path, output: Path, started: datetime) -> Path:
    """Make the folder of a batch: named by its output folder and the date.

    Raises
    ------
    OSError
    """
    plain = unicodedata.normalize("NFKD", output.name).encode("ascii", "ignore").decode()
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", plain)[:_LONGEST_NAME].strip("._-") or "batch"
    name, number = f"{stem}-{started:%Y-%m-%d}", 1
    while True:
        folder = batches / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return folder


def _whole(text: str, what: str) -> Path:
    if not text.strip() or not text.isprintable():
        raise InvalidRequestError(f"The {what} {text[:80]!r} is no path of a file or folder.")
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:  # no such user
        raise InvalidRequestError(f"The {what} '{text}' cannot be found ({error}).") from error
