"""Which files of folders are images, and the key of each.

The backend looks so for what it labels, and the plugin for what napari has to read for it: both
find the same. No image is opened, and nothing here imports torch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from clsclip.errors import FileError
from clsclip.image_files import has_image_ending, is_zarr


def files_below(
    folder: Path, *, pattern: str, recursive: bool, output: Path | None,
    wanted: Callable[[Path], bool] = has_image_ending,
) -> list[tuple[Path, str]]:  # fmt: skip
    """Images of a folder and their keys, by path.

    Parameters
    ----------
    folder : Path
    pattern : str
        Shell pattern of their name (``*.tif``), or of the end of their path (``plate1/*.tif``).
    recursive : bool
        Look in folders of folders, too. Links to folders are followed, but no folder is searched
        twice, so that links in a circle do no harm.
    output : Path or None
        A folder that is not searched.
    wanted : callable
        Whether a file is an image. Zarr folders always are, hidden files never.

    Raises
    ------
    FileError
        If a folder cannot be listed.
    ValueError
        If the pattern is none.
    """
    found = []
    for file in sorted(_images_below(folder, recursive, output, wanted)):
        inside = PurePosixPath(file.relative_to(folder).as_posix())
        if inside.match(pattern):
            found.append((file, str(inside.with_suffix("")) if recursive else inside.stem))
    return found


def is_searched(path: Path) -> bool:
    """Whether it is a folder of images, and no image itself."""
    return _is_folder(path) and not is_zarr(path)


def _images_below(
    folder: Path, recursive: bool, output: Path | None, wanted: Callable[[Path], bool]
) -> Iterator[Path]:
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
                if wanted(entry):
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
