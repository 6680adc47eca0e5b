"""Images read part by part: zarr, OME-Zarr, TIFF, and files that have no parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from PIL import Image
from tifffile import TiffWriter, imwrite

from clsclip.errors import FileError, InvalidConfigError, InvalidImageError
from clsclip.image_files import read_image
from clsclip.image_sources import ImageSource, is_zarr, open_source

PART = (slice(1000, 1100), slice(1010, 1190))


def save_ome(
    path: Path, levels: list[NDArray[np.generic]], axes: str, version: str = "0.5"
) -> Path:
    group = zarr.open_group(path, mode="w", zarr_format=3 if version == "0.5" else 2)
    for number, level in enumerate(levels):
        array = group.create_array(str(number), shape=level.shape, dtype=level.dtype)
        array[...] = level
    multiscales = [
        {
            "axes": [{"name": axis} for axis in axes],
            "datasets": [{"path": str(number)} for number in range(len(levels))],
        }
    ]
    content = {"multiscales": multiscales}
    group.attrs.update({"ome": content} if version == "0.5" else content)
    return path


@pytest.fixture(scope="module")
def grey() -> NDArray[np.uint16]:
    return np.random.default_rng(0).integers(0, 60000, (2100, 2200), dtype=np.uint16)


@pytest.fixture(scope="module")
def colour() -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 9, (1300, 1200, 3), dtype=np.uint8)


def plain_zarr(path: Path, image: NDArray[np.generic], **options: object) -> Path:
    array = zarr.create_array(
        path, shape=image.shape, dtype=image.dtype,
        chunks=tuple(min(length, 500) for length in image.shape), **options,
    )  # fmt: skip
    array[...] = image
    return path


@pytest.mark.parametrize(
    "save",
    [
        lambda path, image: plain_zarr(path / "a.zarr", image),
        lambda path, image: plain_zarr(path / "a.zarr", image, zarr_format=2),
        lambda path, image: save_ome(path / "a.zarr", [image, image[::2, ::2]], "yxc"),
        lambda path, image: save_ome(path / "a.zarr", [image[None]], "tyxc", "0.4"),
        lambda path, image: save_ome(path / "a.zarr", [image.transpose(2, 0, 1)], "cyx"),
        lambda path, image: save_tiff(path / "a.tif", image),
        lambda path, image: save_tiff(path / "a.tif", image, tile=(256, 256), compression="zlib"),
        lambda path, image: save_tiff(path / "a.tif", image, compression="zlib", rowsperstrip=64),
        lambda path, image: save_tiff(path / "a.tif", image, compression="zlib", rowsperstrip=1300),
        lambda path, image: save_tiff(path / "a.tif", image, byteorder=">"),
        lambda path, image: save_png(path / "a.png", image),
    ],
)
def test_parts_of_every_format(
    tmp_path: Path, colour: NDArray[np.uint8], save: Callable[..., Path]
) -> None:
    with open_source(save(tmp_path, colour)) as source:
        assert source.shape == colour.shape[:2]
        assert (source.channels, source.dtype) == (3, np.uint8)
        np.testing.assert_array_equal(source.read(PART), colour[PART])
        np.testing.assert_array_equal(source.read_near(PART), colour[PART])
        np.testing.assert_array_equal(source.overview(100), colour[::13, ::13])
        np.testing.assert_array_equal(source.read(), colour)


def save_tiff(path: Path, image: NDArray[np.generic], **options: object) -> Path:
    imwrite(path, image, photometric="rgb", **options)
    return path


def save_png(path: Path, image: NDArray[np.generic]) -> Path:
    Image.fromarray(image).save(path)
    return path


def test_grey_images_of_16_bits(tmp_path: Path, grey: NDArray[np.uint16]) -> None:
    plain_zarr(tmp_path / "a.zarr", grey)
    plain_zarr(tmp_path / "named.zarr", grey[None], dimension_names=("c", "y", "x"))
    imwrite(tmp_path / "a.tif", grey, tile=(128, 128))
    imwrite(tmp_path / "b.tif", grey)
    for name in ("a.zarr", "named.zarr", "a.tif", "b.tif"):
        with open_source(tmp_path / name) as source:
            assert (source.channels, source.dtype) == (None, np.uint16)
            np.testing.assert_array_equal(source.read_near(PART), grey[PART])
    with open_source(tmp_path / "a.zarr") as one, open_source(tmp_path / "b.tif") as other:
        assert one.fingerprint() == other.fingerprint()
    changed = grey.copy()
    changed[0, 0] ^= 1
    with open_source(plain_zarr(tmp_path / "other.zarr", changed)) as source:
        assert source.fingerprint() != one.fingerprint()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16"])
def test_files_without_parts_are_what_they_were(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(np.arange(63, dtype=np.uint8).reshape(7, 9) * 4)
    (image.convert("I").convert(mode) if mode == "I;16" else image.convert(mode)).save(
        tmp_path / "a.png"
    )
    expected = read_image(tmp_path / "a.png")
    with open_source(tmp_path / "a.png") as source:
        assert source.dtype == expected.dtype
        np.testing.assert_array_equal(source.read(), expected)


def test_reading_does_not_hold_the_image(tmp_path: Path) -> None:
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=(1024, 10**5), dtype="f8", chunks=(1024, 4096), fill_value=0.5
    )
    array[:, 10**5 - 1] = 7.0
    with open_source(tmp_path / "a.zarr") as source:
        for start in range(0, 10**5, 10**4):
            part = source.read_near((slice(0, 10), slice(start, start + 10**4)))
            assert (part[:, :-1] == 0.5).all()
            assert sum(tile.nbytes for tile in source._tiles.values()) <= 128 * 2**20
        assert (part[:, -1] == 7.0).all()


def test_levels(tmp_path: Path, grey: NDArray[np.uint16]) -> None:
    half = grey[::2, ::2]
    save_ome(tmp_path / "a.zarr", [grey, half], "yx")
    with TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(grey, tile=(128, 128), subifds=1)
        writer.write(half, tile=(128, 128), subfiletype=1)
    for name in ("a.zarr", "a.tif"):
        with open_source(tmp_path / name, level=1) as source:
            np.testing.assert_array_equal(source.read(), half)
        with pytest.raises(InvalidConfigError, match=r"levels 0 to 1"):
            open_source(tmp_path / name, level=2)
    with pytest.raises(InvalidConfigError, match="one resolution only"):
        open_source(save_png(tmp_path / "a.png", np.zeros((4, 4), np.uint8)), level=1)


@pytest.mark.parametrize(
    ("axes", "shape", "message"),
    [
        ("zcyx", (2, 5, 8, 8), "has 5 channels; expected 1, 3 or 4"),
        ("cyx", (2, 8, 8), "has 2 channels; expected 1, 3 or 4"),
        ("tc", (2, 3), r"axes t \(2\), c \(3\); expected"),
        ("zyx", (0, 8, 8), r"no pixels: its axes are z \(0\)"),
    ],
)
def test_axes_that_are_no_planes_are_refused_by_name(
    tmp_path: Path, axes: str, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(InvalidImageError, match=message):
        open_source(save_ome(tmp_path / "a.zarr", [np.zeros(shape, np.uint8)], axes))


@pytest.mark.parametrize(
    "save",
    [
        lambda path, image: save_ome(path / "a.zarr", [image.transpose(0, 3, 1, 2)], "zcyx"),
        lambda path, image: save_ome(path / "a.zarr", [image.transpose(3, 0, 1, 2)], "czyx"),
        lambda path, image: save_stack(path / "a.tif", image),
        lambda path, image: save_stack(path / "a.tif", image, compression="zlib"),
        lambda path, image: save_stack(path / "a.tif", image, tile=(32, 32), compression="zlib"),
    ],
)
def test_channels_that_are_chosen(tmp_path: Path, save: Callable[..., Path]) -> None:
    stack = np.random.default_rng(3).integers(0, 60000, (3, 90, 70, 5), dtype=np.uint16)
    path, part = save(tmp_path, stack), (slice(10, 60), slice(20, 70))
    with open_source(path, channels=(4,)) as source:
        assert (source.planes, source.shape, source.channels) == (3, (90, 70), None)
        np.testing.assert_array_equal(source.read(plane=2), stack[2, ..., 4])
        np.testing.assert_array_equal(source.read_near(part, plane=1), stack[1, 10:60, 20:70, 4])
        looks_like = source.fingerprint()
    with open_source(path, channels=(3, 0, 4)) as coloured:
        assert (coloured.planes, coloured.channels) == (3, 3)
        expected = stack[1][..., [3, 0, 4]]
        np.testing.assert_array_equal(coloured.read(plane=1), expected)
        np.testing.assert_array_equal(coloured.read_near(part, plane=1), expected[part])
        np.testing.assert_array_equal(coloured.overview(10, plane=1), expected[::9, ::9])
        assert coloured.fingerprint() != looks_like
    for wrong in ((5,), (0, 1, 7)):
        with pytest.raises(InvalidImageError, match=rf"no channel {wrong[-1]}; it has 5, counted"):
            open_source(path, channels=wrong)
    with pytest.raises(InvalidImageError, match="Choose one or three of them"):
        open_source(path)


def save_stack(path: Path, image: NDArray[np.generic], **options: object) -> Path:
    """An OME-TIFF of planes of channels."""
    axes = {"axes": "ZCYX"}
    imwrite(path, image.transpose(0, 3, 1, 2), ome=True, metadata=axes, **options)
    return path


def test_channels_of_colours_and_of_grey_images(tmp_path: Path, colour: NDArray[np.uint8]) -> None:
    small = colour[:40, :30]
    with open_source(save_png(tmp_path / "a.png", small), channels=(1,)) as green:
        np.testing.assert_array_equal(green.read(), small[..., 1])
    with open_source(save_png(tmp_path / "b.png", small[..., 0]), channels=(0,)) as grey:
        np.testing.assert_array_equal(grey.read(), small[..., 0])
    with open_source(tmp_path / "b.png", channels=(0, 0, 0)) as grey:
        np.testing.assert_array_equal(grey.read(), small[..., [0, 0, 0]])
    Image.new("LA", (4, 5), (7, 255)).save(tmp_path / "c.png")
    with open_source(tmp_path / "c.png", channels=(0,)) as grey:
        np.testing.assert_array_equal(grey.read(), np.full((5, 4), 7))


def test_what_is_no_image(tmp_path: Path) -> None:
    plain_zarr(tmp_path / "first.zarr", np.zeros((1, 1, 1, 1, 20, 20), np.uint8))
    with pytest.raises(InvalidImageError, match="axes have no names"):
        open_source(tmp_path / "first.zarr")
    group = zarr.open_group(tmp_path / "group.zarr", mode="w")
    group.create_array("labels", shape=(4, 4), dtype="u1")
    with pytest.raises(InvalidImageError, match=r"without OME multiscales.*labels"):
        open_source(tmp_path / "group.zarr")
    with open_source(tmp_path / "group.zarr" / "labels") as source:
        assert source.shape == (4, 4)
    (tmp_path / "empty").mkdir()
    assert not is_zarr(tmp_path / "empty")
    assert is_zarr(tmp_path / "group.zarr")
    with pytest.raises(FileError, match="not a zarr"):
        open_source(tmp_path / "empty")
    (tmp_path / "broken.zarr").mkdir()
    (tmp_path / "broken.zarr" / "zarr.json").write_text("{")
    (tmp_path / "broken.tif").write_text("text")
    for name in ("broken.zarr", "broken.tif", "gone.png"):
        with pytest.raises(FileError, match="cannot be read"):
            open_source(tmp_path / name)


def test_grey_with_alpha_is_refused(tmp_path: Path) -> None:
    Image.new("LA", (4, 5)).save(tmp_path / "a.png")
    with pytest.raises(InvalidImageError, match="2 channels"):
        open_source(tmp_path / "a.png")


def test_a_damaged_chunk_is_an_error(tmp_path: Path, grey: NDArray[np.uint16]) -> None:
    plain_zarr(tmp_path / "a.zarr", grey)
    (tmp_path / "a.zarr" / "c" / "2" / "2").write_bytes(b"no zstd")
    with open_source(tmp_path / "a.zarr") as source, pytest.raises(FileError, match="cannot be"):
        source.read(PART)


def test_a_plane_must_have_rows_and_columns() -> None:
    plane = np.zeros((2, 3))
    source = ImageSource("a", lambda: plane, plane.shape, plane.dtype, "yx")
    assert source.pixels == 6
