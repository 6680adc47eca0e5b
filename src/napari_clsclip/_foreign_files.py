"""Files of a batch that only a reader plugin of the user's napari can open.

Nothing here imports Qt. Folders are listed: not for the Qt thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from clsclip.errors import FileError
from clsclip.image_files import has_image_ending, is_zarr
from clsclip.image_search import files_below, is_searched
from clsclip.wire_batch import BatchRequest
from napari_clsclip._image_reading import BUILTIN, claiming_reader


@dataclass(frozen=True)
class ForeignFile:
    """An image that napari has to read.

    Attributes
    ----------
    file : Path
    reader : str
        Name of the plugin that does so.
    channels : tuple of int
        See :func:`napari_clsclip._image_reading.read_image_layer`.
    """

    file: Path
    reader: str
    channels: tuple[int, ...] = ()


@dataclass(frozen=True)
class ForeignFiles:
    """Those among the images of a batch.

    Attributes
    ----------
    files : tuple of ForeignFile
    left_out : tuple of Path
        Further ones, beside which an image that the backend reads would be labelled in a file of
        the same name: that one is.
    """

    files: tuple[ForeignFile, ...]
    left_out: tuple[Path, ...]


def foreign_files(request: BatchRequest) -> ForeignFiles:
    """Images of a request that the backend cannot read, and a plugin claims.

    The same are found as by the backend. What this machine does not see, or what is wrong about it,
    is for the backend to say.
    """
    reader_of = cache(foreign_reader)
    found: dict[Path, str] = {}
    for file, key in _images(request, lambda file: reader_of(file) is not None):
        found.setdefault(file, key)
    foreign = {file: reader for file in found if (reader := reader_of(file)) is not None}
    taken = {key for file, key in found.items() if file not in foreign}
    files, left_out = [], []
    for file, reader in foreign.items():
        if found[file] in taken:
            left_out.append(file)
        else:
            files.append(ForeignFile(file, reader, request.channel_numbers))
    return ForeignFiles(tuple(files), tuple(left_out))


def foreign_reader(file: Path) -> str | None:
    """The plugin that has to read a file for the backend; None: the backend can, or none can.

    A name that is not UTF-8 cannot be told to the backend.
    """
    try:
        str(file).encode()
    except UnicodeEncodeError:
        return None
    return None if has_image_ending(file) or is_zarr(file) else claiming_reader(file)


def opening_reader(file: Path) -> str:
    """The plugin with which the viewer opens a file: what the backend can read, napari can."""
    return foreign_reader(file) or BUILTIN


def _images(request: BatchRequest, claimed: Callable[[Path], bool]) -> Iterator[tuple[Path, str]]:
    """Images and their keys."""
    output = _whole(request.output)
    for text in request.inputs:
        given = _whole(text)
        if given is None:
            continue
        if not is_searched(given):
            if os.path.lexists(given):
                yield given, given.stem
            continue
        try:
            yield from files_below(
                given,
                pattern=request.pattern,
                recursive=request.recursive,
                output=output,
                wanted=lambda file: has_image_ending(file) or claimed(file),
            )
        except (FileError, ValueError):  # no right to look, or no pattern: the backend says so
            continue


def _whole(text: str) -> Path | None:
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:  # no such user
        return None
