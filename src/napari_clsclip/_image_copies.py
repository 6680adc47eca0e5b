"""Copies of images that the backend cannot read: OME-TIFF files in a folder of the output folder.

The name of a copy tells of which state of the file it is, so that one that is there need not be
made again. Nothing here imports Qt; not for the Qt thread.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
import tifffile
from napari.layers import Image
from numpy.typing import NDArray

from clsclip.errors import ClsClipError, FileError, InvalidImageError
from napari_clsclip._image_reading import unreadable

_STEM: Final = 40
"""Letters of the file's name in that of its copy, at most."""

_MICROMETRE: Final = "µm"
_TIME: Final = ("t", "time")


def copy_of(folder: Path, file: Path, reader: str, channels: tuple[int, ...] = ()) -> Path:
    """Where the copy of a file is, as it is now and as a reader reads it.

    Path, channels that were chosen, size, time and the name of the reader are in the name of the
    copy.

    Raises
    ------
    InvalidImageError
        If it is not there.
    """
    try:
        now = file.stat()
    except OSError as error:
        raise InvalidImageError(f"'{file}' cannot be read ({error}).") from error
    read = os.fsencode(file) + "".join(f"\0{channel}" for channel in channels).encode()
    path = hashlib.blake2b(read, digest_size=6).hexdigest()
    by = hashlib.blake2b(reader.encode(), digest_size=3).hexdigest()
    stem = os.fsencode(file.stem)[:_STEM].decode(errors="ignore")
    return folder / f"{stem}-{path}-{now.st_size:x}.{by}-{now.st_mtime_ns:x}.ome.tif"


def copies_there(folder: Path) -> dict[str, list[Path]]:
    """Copies in a folder by the file that they are of, see :func:`file_part`."""
    found: dict[str, list[Path]] = {}
    for copy in folder.glob("*.ome.tif"):
        found.setdefault(file_part(copy), []).append(copy)
    return found


def remove_drafts(folder: Path) -> None:
    """Remove what a writing left that was ended from outside; nobody else may write now."""
    for draft in folder.glob(".*.ome.tif.new"):
        draft.unlink(missing_ok=True)


def file_part(copy: Path) -> str:
    """The part of the name that the copies of all states of a file, or a channel, share."""
    return copy.name.rsplit("-", 2)[0]


def write_copy(
    layer: Image, file: Path, target: Path, progress: Callable[[int, int], object]
) -> None:
    """Write the image that a reader made of a file, plane by plane, at once or not at all.

    Axes before rows and columns become Z, or T if their name says so, or T and Z; of more than two,
    all but the last become T. The size of a pixel is written where the layer has a unit of length.

    Parameters
    ----------
    layer : Image
        Lazy data are read plane by plane; of a pyramid, the finest level.
    file : Path
        Names the image in messages.
    target : Path
        See :func:`copy_of`.
    progress : callable
        Told before each plane its number, from 0, and how many there are. What it raises ends the
        writing.

    Raises
    ------
    InvalidImageError
        If the reader fails, or has made no image of numbers.
    FileError
        If the copy cannot be written, as on a full disk.
    """
    try:
        content = _Content.of(layer, file)
    except ClsClipError:
        raise
    except Exception as error:  # readers are other people's code
        raise unreadable(file, error) from error
    draft = target.with_name(f".{target.name}.new")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        content.require_memory()
        free = shutil.disk_usage(target.parent).free
        if content.bytes > free:
            raise FileError(
                f"There is no room for '{target}', the copy of '{file}': it takes "
                f"{content.bytes / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free. Free space, or "
                "choose another output folder."
            )
        try:
            tifffile.imwrite(
                draft,
                content.planes(progress),
                shape=content.shape,
                dtype=content.dtype,
                ome=True,
                bigtiff=True,  # it cannot see how much comes
                photometric="rgb" if content.colours else "minisblack",
                metadata=content.metadata,
            )
            with draft.open("rb") as written:
                os.fsync(written.fileno())  # what has its name is whole, also after a power cut
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:  # numpy's has no number, and only counts what was written
        why = f"{error}" if error.errno else f"the disk is full: {error}"
        raise FileError(
            f"'{target}', the copy of '{file}', cannot be written ({why}). Free space there, or "
            "choose another output folder."
        ) from error


def open_copy(copy: Path) -> tuple[NDArray[Any], dict[str, Any]] | None:
    """A copy as napari shows it, read from disk as it is looked at.

    Returns
    -------
    data : ndarray, shape (H, W) or (planes, H, W), with colours (..., 3 or 4)
    arguments : dict
        Of an Image layer that shows it.
    None
        If it is gone or damaged.
    """
    with suppress(OSError, ValueError, KeyError, tifffile.TiffFileError):
        with tifffile.TiffFile(copy) as opened:
            series = opened.series[0]
            axes, about = series.axes, tifffile.xml2dict(opened.ome_metadata or "")
        data: NDArray[Any] = tifffile.memmap(copy, mode="r")
        last = 3 if axes.endswith("S") else 2
        planes = int(np.prod(data.shape[:-last]))
        data = data.reshape((planes, *data.shape[-last:]) if planes > 1 else data.shape[-last:])
        arguments: dict[str, Any] = {"rgb": last == 3}
        pixels = about["OME"]["Image"]["Pixels"]
        if "PhysicalSizeX" in pixels:
            names = "ZYX" if planes > 1 else "YX"
            sizes = [float(pixels.get(f"PhysicalSize{axis}", 1.0)) for axis in names]
            arguments |= {"scale": sizes, "units": ["micrometer"] * len(sizes)}
        return data, arguments
    return None


@dataclass(frozen=True)
class _Content:
    """What is written of a layer."""

    data: Any
    file: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    colours: bool
    metadata: dict[str, Any]

    @classmethod
    def of(cls, layer: Image, file: Path) -> _Content:
        data = layer.data[0] if layer.multiscale else layer.data
        shape = tuple(map(int, data.shape))
        last = 3 if layer.rgb else 2
        if len(shape) < last or 0 in shape:
            raise InvalidImageError(f"'{file}' holds no plane: its shape is {shape}.")
        stack = shape[:-last]
        if len(stack) > 2:
            stack = (int(np.prod(stack[:-1])), stack[-1])
        named_time = len(stack) == 1 and str(layer.axis_labels[0]).lower() in _TIME
        axes = ("", "T" if named_time else "Z", "TZ")[len(stack)] + "YXS"[:last]
        metadata = {"axes": axes, "Creator": "napari-clsclip", **_pixel_sizes(layer, axes)}
        dtype = _stored(np.dtype(data.dtype), file)
        return cls(data, file, (*stack, *shape[-last:]), dtype, bool(layer.rgb), metadata)

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def require_memory(self) -> None:
        """Refuse planes that do not fit into memory, before the system ends napari for them."""
        plane = self.bytes // int(np.prod(self.shape[: -3 if self.colours else -2]))
        free = psutil.virtual_memory().available
        if plane > free:
            raise InvalidImageError(
                f"A plane of '{self.file}' takes {plane / 1e9:,.1f} GB of memory, and only "
                f"{free / 1e9:,.1f} GB are free. Convert it to OME-Zarr or a tiled TIFF, which are "
                "read in parts."
            )

    def planes(self, progress: Callable[[int, int], object]) -> Iterator[NDArray[Any]]:
        """One plane after the other; what the reader raises is about the image, not the copy."""
        stack = self.data.shape[: -3 if self.colours else -2]
        count = int(np.prod(stack))
        for number, place in enumerate(np.ndindex(*stack)):
            progress(number, count)
            try:
                plane = np.asarray(self.data[place])
                if plane.shape != self.data.shape[len(place) :]:
                    raise InvalidImageError(
                        f"'{self.file}' cannot be read: its plane {number + 1} of {count} has the "
                        f"shape {plane.shape}; expected {self.data.shape[len(place) :]}."
                    )
                if plane.dtype == bool:
                    plane = plane * np.uint8(255)  # white, as a boolean image is shown
                plane = plane.astype(self.dtype, copy=False)
            except ClsClipError:
                raise
            except Exception as error:  # readers are other people's code
                raise unreadable(self.file, error) from error
            yield plane


def _stored(dtype: np.dtype[Any], file: Path) -> np.dtype[Any]:
    """The type in which an OME-TIFF holds such numbers."""
    if dtype.kind not in "buif":
        raise InvalidImageError(f"'{file}' holds {dtype}; expected integers or real numbers.")
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind == "f":
        return np.dtype(np.float32 if dtype.itemsize <= 4 else np.float64)
    return np.dtype(np.float64) if dtype.itemsize > 4 else dtype.newbyteorder("=")


def _pixel_sizes(layer: Image, axes: str) -> dict[str, Any]:
    """Sizes of a pixel as OME names them; empty where the layer has no unit of length."""
    sizes: dict[str, Any] = {}
    names = [axis for axis in axes if axis != "S"]
    for axis, scale, unit in zip(
        reversed(names), reversed(layer.scale), reversed(layer.units), strict=False
    ):
        size = 1 * unit
        if axis != "T" and size.check("[length]"):
            length = float(scale) * float(size.to("micrometer").magnitude)
            sizes |= {f"PhysicalSize{axis}": length, f"PhysicalSize{axis}Unit": _MICROMETRE}
    both = {"PhysicalSizeY", "PhysicalSizeX"} <= sizes.keys()
    return sizes if both else {}
