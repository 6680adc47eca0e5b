"""Which images a batch labels, and the key of each in the output folder.

Nothing here imports torch, and no image is opened.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from clsclip.errors import FileError
from clsclip.image_files import IMAGE_ENDINGS
from clsclip.image_sources import is_zarr


@dataclass(frozen=True)
class InputImage:
    """One image to label.

    Attributes
    ----------
    file : Path
        Image file or zarr folder.
    key : str
        Names its outputs, as a path without an ending: "stem", or "folder/stem" where folders in
        folders are searched.
    thumbnail : Path or None
        Where a small picture of it with its labels is to be written.
    """

    file: Path
    key: str
    thumbnail: Path | None = None


def find_images(
    inputs: Sequence[Path], *, pattern: str = "*", recursive: bool = False,
    output: Path | None = None,
) -> list[InputImage]:  # fmt: skip
    """Files and zarr folders as given, and those in other folders, in order and each once.

    Hidden files of folders are left out.

    Parameters
    ----------
    inputs : sequence of Path
        Image files, zarr folders, or folders of these.
    pattern : str
        Shell pattern of the images of folders: of their name (``*.tif``), or of the end of their
        path (``plate1/*.tif``).
    recursive : bool
        Look in folders of folders, too. Links to folders are followed, but no folder is searched
        twice, so that links in a circle do no harm.
    output : Path, optional
        A folder that is not searched.

    Raises
    ------
    FileError
        If an input does not exist, a folder cannot be listed or holds no such image, or two
        images have one key.
    """
    images: dict[Path, InputImage] = {}
    keys: dict[str, Path] = {}
    for given in inputs:
        if not os.path.lexists(given):
            raise FileError(f"'{given}' does not exist.")
        if _is_folder(given) and not is_zarr(given):
            found = [InputImage(file, key) for file, key in _matching(
                given, pattern, recursive, output
            )]  # fmt: skip
        else:
            found = [InputImage(given, given.stem)]
        for image in found:
            if image.file in images:
                continue
            other = keys.setdefault(image.key, image.file)
            if other != image.file:
                raise FileError(
                    f"'{other}' and '{image.file}' would both be labelled in '{image.key}.tif'. "
                    "Label them into different folders, or rename one."
                )
            images[image.file] = image
    return list(images.values())


def _matching(
    folder: Path, pattern: str, recursive: bool, output: Path | None
) -> list[tuple[Path, str]]:
    """Images of a folder and their keys, by path."""
    found = []
    for file in sorted(_images_below(folder, recursive, output)):
        inside = PurePosixPath(file.relative_to(folder).as_posix())
        if inside.match(pattern):
            found.append((file, str(inside.with_suffix("")) if recursive else inside.stem))
    if not found:
        named = "" if pattern == "*" else f" that match '{pattern}'"
        deeper = "" if recursive else " Folders in it are searched with --recursive."
        raise FileError(
            f"'{folder}' holds no image files{named} ({', '.join(IMAGE_ENDINGS)}, .zarr).{deeper}"
        )
    return found


def _images_below(folder: Path, recursive: bool, output: Path | None) -> Iterator[Path]:
    """Image files and zarr folders, in no order; links are followed last."""
    searched = set() if output is None or _same(folder, output) else {output.resolve()}
    folders, links = deque([folder]), deque[Path]()
    while folders or links:
        present = (folders or links).popleft()
        real = present.resolve()
        if real in searched:
            continue
        searched.add(real)
        try:
            entries = sorted(present.iterdir())
        except OSError as error:
            raise FileError(f"The folder '{present}' cannot be listed ({error}).") from error
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if not _is_folder(entry):
                if entry.suffix.lower() in IMAGE_ENDINGS:
                    yield entry
            elif entry.suffix.lower() == ".zarr" and is_zarr(entry):
                yield entry
            elif recursive:
                (links if entry.is_symlink() else folders).append(entry)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a link to itself, or no right to look: reading it will say so
        return False


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()
