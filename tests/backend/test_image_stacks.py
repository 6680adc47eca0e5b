"""Stacks of planes read plane by plane, and what files say about the size of a pixel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from PIL import Image
from tifffile import TiffFile, TiffWriter, imwrite

from clsclip import Predictor
from clsclip.errors import FileError, InvalidConfigError, InvalidImageError
from clsclip.image_files import read_image
from clsclip.image_sources import open_source

SHAPE = (6, 40, 50)
MICROMETRES = (0.5, 0.25)


@pytest.fixture(scope="module")
def stack() -> NDArray[np.uint16]:
    return np.random.default_rng(0).integers(0, 60000, SHAPE, dtype=np.uint16)


def save_zarr(path: Path, array: NDArray[Any], **options: Any) -> Path:
    stored = zarr.create_array(
        path, shape=array.shape, dtype=array.dtype,
        chunks=(*(1,) * (array.ndim - 2), *array.shape[-2:]), **options,
    )  # fmt: skip
    stored[...] = array
    return path


def save_ome_zarr(
    path: Path,
    array: NDArray[Any],
    axes: str,
    *,
    unit: str | None = None,
    scales: tuple[list[float], ...] = (),
    version: str = "0.5",
) -> Path:
    """Two levels; ``scales`` are those of each level and, perhaps, of both."""
    group = zarr.open_group(path, mode="w", zarr_format=3 if version == "0.5" else 2)
    for number, level in enumerate((array, array[..., ::2, ::2])):
        group.create_array(str(number), shape=level.shape, dtype=level.dtype)[...] = level
    steps = [[{"type": "scale", "scale": scale}] for scale in scales]
    image: dict[str, Any] = {
        "axes": [
            {"name": axis} | ({"unit": unit} if unit and axis in "yx" else {}) for axis in axes
        ],
        "datasets": [
            {"path": str(number)} | ({"coordinateTransformations": steps[number]} if steps else {})
            for number in range(2)
        ],
    }  # fmt: skip
    if len(steps) > 2:
        image["coordinateTransformations"] = steps[2]
    content = {"multiscales": [image]}
    group.attrs.update({"ome": content} if version == "0.5" else content)
    return path


def save_pages(path: Path, array: NDArray[Any], **options: Any) -> Path:
    """As Pillow saves pages: without a word about what they are together."""
    first, *more = [Image.fromarray(plane) for plane in array]
    first.save(path, save_all=True, append_images=more, **options)
    return path


def save_tiff(path: Path, array: NDArray[Any], **options: Any) -> Path:
    imwrite(path, array, photometric="minisblack", **options)
    return path


SAVES: dict[str, Callable[[Path, NDArray[Any]], Path]] = {
    "pages": lambda path, array: save_pages(path / "a.tif", array),
    "deflated pages": lambda path, array: save_pages(
        path / "a.tif", array, compression="tiff_adobe_deflate"
    ),
    "tifffile": lambda path, array: save_tiff(path / "a.tif", array),
    "big endian": lambda path, array: save_tiff(path / "a.tif", array, byteorder=">"),
    "zlib": lambda path, array: save_tiff(path / "a.tif", array, compression="zlib"),
    "tiles": lambda path, array: save_tiff(
        path / "a.tif", array, compression="zlib", tile=(16, 16)
    ),
    "ome": lambda path, array: save_tiff(
        path / "a.tif", array, ome=True, compression="zlib", metadata={"axes": "TYX"}
    ),
    "ome with channels": lambda path, array: save_tiff(
        path / "a.tif", array[:, None], ome=True, metadata={"axes": "ZCYX"}
    ),
    "imagej": lambda path, array: save_tiff(
        path / "a.tif", array, imagej=True, metadata={"axes": "ZYX"}
    ),
    "imagej z and t": lambda path, array: save_tiff(
        path / "a.tif", array.reshape(2, 3, *SHAPE[1:]), imagej=True, metadata={"axes": "TZYX"}
    ),
    "zarr": lambda path, array: save_zarr(path / "a.zarr", array),
    "zarr of four axes": lambda path, array: save_zarr(
        path / "a.zarr", array.reshape(3, 2, *SHAPE[1:])
    ),
    "zarr of names": lambda path, array: save_zarr(
        path / "a.zarr", array.transpose(1, 2, 0), dimension_names=("y", "x", "z")
    ),
    "ome-zarr": lambda path, array: save_ome_zarr(
        path / "a.zarr", array.reshape(2, 1, 3, *SHAPE[1:]), "tczyx"
    ),
    "ome-zarr 0.4": lambda path, array: save_ome_zarr(path / "a.zarr", array, "zyx", version="0.4"),
}


@pytest.mark.parametrize("name", SAVES)
def test_stacks_of_every_format(tmp_path: Path, stack: NDArray[Any], name: str) -> None:
    part = (slice(3, 20), slice(11, 49))
    with open_source(SAVES[name](tmp_path, stack)) as source:
        assert (source.planes, source.shape, source.channels) == (6, SHAPE[1:], None)
        assert source.dtype == np.uint16
        assert source.pixels == 2000
        for plane in (4, 0, 5, 5):
            np.testing.assert_array_equal(source.read(plane=plane), stack[plane])
            np.testing.assert_array_equal(source.read(part, plane=plane), stack[plane][part])
            np.testing.assert_array_equal(source.read_near(part, plane=plane), stack[plane][part])
            np.testing.assert_array_equal(source.overview(25, plane=plane), stack[plane, ::2, ::2])
        for plane in (-1, 6):
            with pytest.raises(InvalidConfigError, match=f"no plane {plane}; it has 6, counted"):
                source.read(plane=plane)
        for read in (source.read, lambda: source.read_near(part), lambda: source.overview(10)):
            with pytest.raises(InvalidConfigError, match="a stack of 6 planes"):
                read()


def test_stacks_in_colour(tmp_path: Path) -> None:
    colour = np.random.default_rng(1).integers(0, 60000, (3, 20, 30, 3), dtype=np.uint16)
    imwrite(tmp_path / "a.tif", colour, photometric="rgb", compression="zlib")
    imwrite(tmp_path / "planar.tif", colour.transpose(0, 3, 1, 2), photometric="rgb",
            planarconfig="separate")  # fmt: skip
    imwrite(tmp_path / "channels.tif", colour.transpose(0, 3, 1, 2), imagej=True,
            metadata={"axes": "ZCYX"})  # fmt: skip
    save_zarr(tmp_path / "a.zarr", colour)
    for name in ("a.tif", "planar.tif", "channels.tif", "a.zarr"):
        with open_source(tmp_path / name) as source:
            assert (source.planes, source.shape, source.channels) == (3, (20, 30), 3)
            np.testing.assert_array_equal(source.read(plane=2), colour[2])
    imwrite(tmp_path / "two.tif", colour.transpose(0, 3, 1, 2)[:, :2], imagej=True,
            metadata={"axes": "ZCYX"})  # fmt: skip
    with pytest.raises(InvalidImageError, match="2 channels"):
        open_source(tmp_path / "two.tif")


@pytest.mark.parametrize("name", ["zlib", "tiles", "zarr"])
def test_other_planes_are_not_read(tmp_path: Path, stack: NDArray[Any], name: str) -> None:
    path = SAVES[name](tmp_path, stack)
    if path.is_dir():
        (path / "c" / "3" / "0" / "0").write_bytes(b"no zstd")
    else:
        with TiffFile(path) as file:
            offsets, counts = file.pages[3].dataoffsets, file.pages[3].databytecounts
        with path.open("r+b") as stream:
            for offset, count in zip(offsets, counts, strict=True):
                stream.seek(offset)
                stream.write(b"\xff" * count)
    with open_source(path) as source:
        for plane in (0, 2, 4, 5):
            np.testing.assert_array_equal(source.read(plane=plane), stack[plane])
        with pytest.raises(FileError, match="cannot be read as an image"):
            source.read(plane=3)


def test_a_plane_is_decoded_once_for_all_its_parts(tmp_path: Path, stack: NDArray[Any]) -> None:
    path = save_tiff(tmp_path / "a.tif", stack, compression="zlib", rowsperstrip=40)
    with open_source(path) as source:
        before = source.read((slice(0, 5), slice(0, 5)), plane=1)
        path.write_bytes(b"gone")  # what was decoded is held
        np.testing.assert_array_equal(before, stack[1, :5, :5])
        np.testing.assert_array_equal(source.read(plane=1), stack[1])
        with pytest.raises(FileError):
            source.read(plane=2)


def test_fingerprints_of_stacks(tmp_path: Path, stack: NDArray[Any]) -> None:
    changed = stack.copy()
    changed[-1, 0, 0] ^= 1
    prints = set()
    for name, array in (("a", stack), ("b", stack), ("c", changed), ("d", stack[:-1])):
        with open_source(save_tiff(tmp_path / f"{name}.tif", array)) as source:
            prints.add(source.fingerprint())
    assert len(prints) == 3


# 16 bits per colour


@pytest.mark.parametrize("channels", [3, 4])
def test_png_of_16_bits_per_colour_keeps_them(tmp_path: Path, channels: int) -> None:
    import cv2

    deep = np.random.default_rng(2).integers(0, 4000, (21, 30, channels), dtype=np.uint16)
    path = tmp_path / "größe.png"
    path.write_bytes(cv2.imencode(".png", deep[..., [2, 1, 0, 3][:channels]])[1].tobytes())
    np.testing.assert_array_equal(read_image(path), deep)
    with open_source(path) as source:
        assert (source.dtype, source.channels) == (np.uint16, channels)
        np.testing.assert_array_equal(source.read(), deep)
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(FileError, match="truncated"):
        read_image(path)


def test_colours_of_16_bits_are_segmented(tmp_path: Path, tiny_model: Path) -> None:
    deep = np.random.default_rng(3).integers(0, 4000, (40, 50, 3), dtype=np.uint16)
    imwrite(tmp_path / "a.tif", deep, photometric="rgb")
    with open_source(tmp_path / "a.tif") as source:
        result = Predictor(str(tiny_model)).segment(source.read(), ["cell"])
    assert result.probabilities.shape == (1, 40, 50)


# the size of a pixel


def per(micrometres: float, unit: float) -> float:
    return unit / micrometres


TIFF_SIZES: dict[str, tuple[dict[str, Any], tuple[float, float] | None]] = {
    "nothing": ({}, None),
    "ome": ({"ome": True, "metadata": {"PhysicalSizeY": 0.5, "PhysicalSizeX": 0.25}}, MICROMETRES),
    "ome in nm": (
        {"ome": True, "metadata": {"PhysicalSizeY": 500, "PhysicalSizeYUnit": "nm",
                                   "PhysicalSizeX": 0.00025, "PhysicalSizeXUnit": "mm"}},
        MICROMETRES,
    ),
    "ome without": ({"ome": True, "resolution": (2e4, 4e4), "resolutionunit": 3}, None),
    "ome in pixels": (
        {"ome": True, "metadata": {"PhysicalSizeY": 1, "PhysicalSizeYUnit": "pixel",
                                   "PhysicalSizeX": 1, "PhysicalSizeXUnit": "pixel"}},
        None,
    ),
    "imagej": (
        {"imagej": True, "resolution": (4, 2), "metadata": {"unit": "micron"}}, MICROMETRES,
    ),
    "imagej µm": ({"imagej": True, "resolution": (4, 2), "metadata": {"unit": "\\u00B5m"}},
                  MICROMETRES),
    "imagej mm": ({"imagej": True, "resolution": (4, 2), "metadata": {"unit": "mm"}}, (500, 250)),
    "imagej in pixels": ({"imagej": True, "resolution": (1, 1), "metadata": {"unit": "pixel"}},
                         None),
    "imagej without": ({"imagej": True}, None),
    "centimetres": ({"resolution": (per(0.25, 1e4), per(0.5, 1e4)), "resolutionunit": 3},
                    MICROMETRES),
    "inches": ({"resolution": (per(0.25, 25400), per(0.5, 25400)), "resolutionunit": 2},
               MICROMETRES),
    "no unit": ({"resolution": (40000, 20000), "resolutionunit": 1}, None),
    "screen": ({"resolution": (96, 96), "resolutionunit": 2}, None),
    "printer": ({"resolution": (2400, 2400), "resolutionunit": 2}, None),
    "nought": ({"resolution": (0, 0), "resolutionunit": 3}, None),
}  # fmt: skip


@pytest.mark.parametrize("name", TIFF_SIZES)
def test_pixel_size_of_tiff(tmp_path: Path, stack: NDArray[Any], name: str) -> None:
    options, expected = TIFF_SIZES[name]
    for axes, image in (("YX", stack[0]), ("ZYX", stack)):
        named = {"metadata": {"axes": axes, **options.get("metadata", {})}} if options else {}
        save_tiff(tmp_path / "a.tif", image, **{**options, **named})
        with open_source(tmp_path / "a.tif") as source:
            if expected is None:
                assert source.pixel_size is None
            else:
                assert source.pixel_size == pytest.approx(expected, rel=1e-6)


def test_pixel_size_of_a_pyramid(tmp_path: Path) -> None:
    grey = np.zeros((512, 768), np.uint8)
    with TiffWriter(tmp_path / "a.tif") as writer:
        scale = {"resolution": (4e4, 2e4), "resolutionunit": 3}
        writer.write(grey, tile=(16, 16), subifds=1, metadata=None, **scale)
        writer.write(grey[::2, ::2], tile=(16, 16), subfiletype=1, metadata=None)
    for level, expected in enumerate((MICROMETRES, (1.0, 0.5))):
        with open_source(tmp_path / "a.tif", level=level) as source:
            assert source.pixel_size == expected


@pytest.mark.parametrize(
    ("unit", "scales", "expected"),
    [
        ("micrometer", ([2.0, 0.5, 0.25], [2.0, 1.0, 0.5]), (MICROMETRES, (1.0, 0.5))),
        ("nanometer", ([2.0, 500, 250], [2.0, 1000, 500]), (MICROMETRES, (1.0, 0.5))),
        ("micrometer", ([1.0, 1, 1], [1.0, 2, 2], [9.0, 0.5, 0.25]), (MICROMETRES, (1.0, 0.5))),
        (None, ([2.0, 0.5, 0.25], [2.0, 1.0, 0.5]), (None, None)),
        ("second", ([2.0, 0.5, 0.25], [2.0, 1.0, 0.5]), (None, None)),
    ],
)
def test_pixel_size_of_ome_zarr(
    tmp_path: Path, stack: NDArray[Any], unit: str | None, scales: Any, expected: Any
) -> None:
    path = save_ome_zarr(tmp_path / "a.zarr", stack, "zyx", unit=unit, scales=scales)
    for level in range(2):
        with open_source(path, level=level) as source:
            assert source.pixel_size == expected[level]


def test_files_that_tell_no_size(tmp_path: Path, stack: NDArray[Any]) -> None:
    save_zarr(tmp_path / "a.zarr", stack)
    Image.fromarray(stack[0]).save(tmp_path / "a.png", dpi=(25400, 25400))
    save_ome_zarr(tmp_path / "b.zarr", stack, "zyx", unit="micrometer", scales=())
    for name in ("a.zarr", "a.png"):
        with open_source(tmp_path / name) as source:
            assert source.pixel_size is None
