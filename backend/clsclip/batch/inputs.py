"""Which images a batch labels, and the key of each in the output folder.

Nothing here imports torch, and no image is opened.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from clsclip.errors import FileError
from clsclip.image_files import IMAGE_ENDINGS, OTHER_WAY, has_image_ending
from clsclip.image_search import files_below, is_searched
from clsclip.image_sources import ImageSource, open_source
from clsclip.wire_batch import ImageCopy

NOT_READ: Final = "'{file}' has not been read by napari. Start the batch from the Batch tab there."


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
    copied_to : Path or None
        The copy of its pixels that napari made, where only a reader plugin can read the file.
    fault : str
        Why there is no such copy, although one is needed.
    """

    file: Path
    key: str
    thumbnail: Path | None = None
    copied_to: Path | None = None
    fault: str = ""

    def open(self, *, level: int = 0, channels: tuple[int, ...] = ()) -> ImageSource:
        """Open its pixels, those of the copy where there is one; the name is that of the file.

        Parameters
        ----------
        level, channels
            See :func:`clsclip.image_sources.open_source`. A copy holds the channels that were
            chosen.

        Raises
        ------
        FileError
            If there should be a copy, and is none.
        ClsClipError
            See :func:`clsclip.image_sources.open_source`.
        """
        if self.fault:
            raise FileError(self.fault)
        if self.copied_to is None:
            return open_source(self.file, level=level, channels=channels)
        if not self.copied_to.exists():
            raise FileError(
                f"The copy of '{self.file}' that napari made, '{self.copied_to}', is gone. Retry "
                "from the Batch tab in napari, which reads the file again."
            )
        source = open_source(self.copied_to, level=level)
        source.name = str(self.file)
        return source

    def with_copy(self, copy: ImageCopy) -> InputImage:
        """The same image, and what came of reading it in napari."""
        if copy.copied_to:
            return replace(self, copied_to=Path(copy.copied_to), fault="")
        return replace(self, copied_to=None, fault=copy.error or NOT_READ.format(file=self.file))


def find_images(
    inputs: Sequence[Path], *, pattern: str = "*", recursive: bool = False,
    output: Path | None = None, copies: Sequence[ImageCopy] = (),
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
    copies : sequence of ImageCopy
        Further files that are images, and what came of reading them in napari.

    Raises
    ------
    FileError
        If an input does not exist, a folder cannot be listed or holds no such image, or two
        images have one key.
    """
    images: dict[Path, InputImage] = {}
    keys: dict[str, Path] = {}
    read = {Path(copy.file): copy for copy in copies}
    for given in inputs:
        if not os.path.lexists(given):
            raise FileError(f"'{given}' does not exist.")
        if is_searched(given):
            files = files_below(
                given, pattern=pattern, recursive=recursive, output=output,
                wanted=lambda file: has_image_ending(file) or file in read,
            )  # fmt: skip
            if not files:
                raise _nothing(given, pattern, recursive=recursive)
        else:
            files = [(given, given.stem)]
        for file, key in files:
            if file in images:
                continue
            other = keys.setdefault(key, file)
            if other != file:
                raise FileError(
                    f"'{other}' and '{file}' would both be labelled in '{key}.tif'. "
                    "Label them into different folders, or rename one."
                )
            image = InputImage(file, key)
            images[file] = image.with_copy(read[file]) if file in read else image
    return list(images.values())


def _nothing(folder: Path, pattern: str, *, recursive: bool) -> FileError:
    named = "" if pattern == "*" else f" that match '{pattern}'"
    option = "'Folders in folders' (--recursive on the command line)"
    deeper = "" if recursive else f" Folders in it are searched with {option}."
    return FileError(
        f"'{folder}' holds no image files{named} ({', '.join(IMAGE_ENDINGS)}, .zarr).{deeper} "
        f"{OTHER_WAY}"
    )
