"""A reader plugin for an invented file format: a line of JSON, then the pixels as raw bytes.

The JSON tells ``shape`` and ``dtype``, and may tell ``lazy`` (the pixels are dask, a chunk per
plane), ``about`` (attributes of the layer), ``broken`` (a plane that cannot be read).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
from dask import delayed
from npe2 import DynamicPlugin

PLUGIN = "invented"


class InventedReader:
    """Reads such files, and notes what was read.

    Attributes
    ----------
    files
        Names of the files that were opened.
    planes
        Numbers of the planes of lazy files that were read, in that order.
    """

    def __init__(self) -> None:
        self.files: list[str] = []
        self.planes: list[int] = []

    def read(self, path: str | list[str]) -> list[tuple[Any, dict[str, Any], str]]:
        file = Path(path if isinstance(path, str) else path[0])
        self.files.append(file.name)
        head, _, raw = file.read_bytes().partition(b"\n")
        told = json.loads(head)
        shape, dtype = tuple(told["shape"]), np.dtype(told["dtype"])
        pixels: Any = np.frombuffer(raw, dtype).reshape(shape)
        if told.get("lazy"):
            pixels = self._lazy(pixels, told.get("broken"))
        return [(pixels, told.get("about", {}), "image")]

    def _lazy(self, pixels: np.ndarray, broken: int | None) -> da.Array:
        def plane(number: int) -> np.ndarray:
            self.planes.append(number)
            if number == broken:
                raise OSError(f"plane {number} is damaged")
            return pixels[number]

        planes = [
            da.from_delayed(delayed(plane)(number), pixels.shape[1:], pixels.dtype)
            for number in range(len(pixels))
        ]
        return da.stack(planes)


@contextmanager
def invented_reader(*patterns: str, name: str = PLUGIN) -> Iterator[InventedReader]:
    """The plugin is installed meanwhile; by default for ``*.inv``."""
    reader = InventedReader()
    with DynamicPlugin(name) as plugin:

        @plugin.contribute.reader(filename_patterns=list(patterns or ("*.inv",)))
        def get_reader(path: str | list[str]) -> Any:
            return reader.read

        yield reader


def write_invented(file: Path, pixels: np.ndarray, **told: Any) -> Path:
    """Write a file of the format."""
    head = {"shape": pixels.shape, "dtype": str(pixels.dtype), **told}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(json.dumps(head).encode() + b"\n" + pixels.tobytes())
    return file
