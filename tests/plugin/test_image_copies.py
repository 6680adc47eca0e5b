"""Files that only a reader plugin can read: which they are, and the copies of them."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.array as da
import npe2
import numpy as np
import pytest
import tifffile
from dask import delayed
from filelock import FileLock
from PIL import Image

from clsclip.batch.inputs import InputImage
from clsclip.errors import BusyError, CancelledError, FileError
from clsclip.image_sources import open_source
from clsclip.wire_batch import BatchRequest, ImageCopy
from invented_reader import InventedReader, invented_reader, write_invented
from napari_clsclip import _reading
from napari_clsclip._foreign_files import ForeignFile, foreign_files
from napari_clsclip._image_copies import open_copy
from napari_clsclip._image_reading import claiming_reader
from napari_clsclip._reading import Reading
from small_disk import mounted


@pytest.fixture
def reader() -> Iterator[InventedReader]:
    npe2.PluginManager.instance().discover()  # as napari does when it starts
    with invented_reader() as reader:
        yield reader


def copy_of(file: Path, folder: Path, reading: Reading | None = None) -> ImageCopy:
    folder.mkdir(exist_ok=True)
    reading = reading or Reading(threading.Event())
    (copy,) = reading.read([ForeignFile(file, "invented")], folder)
    assert copy.file == str(file)
    return copy


def request(*inputs: Path, output: Path, **how: Any) -> BatchRequest:
    return BatchRequest(inputs=tuple(map(str, inputs)), words=("cell",), output=str(output), **how)


def test_which_files_a_plugin_has_to_read(
    reader: InventedReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("b.inv", "a.INV", "c.npy", "d.gif", "c.tif", "e.txt", "f.mp4", "g.unknown", ".h.inv",
             "below/b.inv", "out/z.inv", "noend")  # fmt: skip
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"")
    folder, output = tmp_path / "in", tmp_path / "in" / "out"

    def found(*inputs: Path, **how: Any) -> tuple[list[str], list[str]]:
        files = foreign_files(request(*inputs, output=output, **how))
        return (
            [f"{file.file.relative_to(folder)} {file.reader}" for file in files.files],
            [file.name for file in files.left_out],
        )  # fmt: skip

    flat = ["a.INV invented", "b.inv invented", "d.gif napari"]
    assert found(folder) == (flat, ["c.npy"])  # c.tif is labelled
    assert found(folder, recursive=True)[0] == [*flat[:2], "below/b.inv invented", flat[2]]
    assert found(folder, pattern="b.*", recursive=True) == (
        ["b.inv invented", "below/b.inv invented"], [],
    )  # fmt: skip
    assert found(folder / "c.npy", folder / "e.txt", folder / "gone", folder / "gone.inv") == (
        ["c.npy napari"], [],
    )  # fmt: skip
    both = found(folder, folder / "below")  # of two of the same key, the backend tells
    assert both[0] == [*flat, "below/b.inv invented"]
    assert reader.files == []
    np.save(folder / "cells_seg.npy", {"masks": 1}, allow_pickle=True)  # type: ignore[arg-type]
    np.save(folder / "numbers.npy", np.zeros((3, 4)))
    assert found(folder)[0] == [*flat, "numbers.npy napari"]
    (folder / "numbers.npy").unlink()
    (folder / os.fsdecode(b"\xff.inv")).touch()  # which no message can tell the backend
    with invented_reader("*", "*.*", name="greedy"):  # nobody asks a plugin that takes anything
        assert found(folder)[0] == flat
    with invented_reader("*.npy", name="other"):
        assert claiming_reader(folder / "c.npy") == "other"
        monkeypatch.setattr("napari.plugins.utils.get_preferred_reader", lambda path: "napari")
        assert claiming_reader(folder / "c.npy") == "napari"


@pytest.mark.parametrize(
    ("shape", "dtype", "about", "axes", "kept"),
    [
        ((20, 30), "uint16", {}, "YX", (20, 30)),
        ((20, 30), "bool", {}, "YX", (20, 30)),
        ((20, 30), ">f4", {}, "YX", (20, 30)),
        ((20, 30, 3), "uint8", {"rgb": True}, "YXS", (20, 30, 3)),
        ((4, 20, 30), "int64", {"axis_labels": ("time", "y", "x")}, "TYX", (4, 20, 30)),
        ((2, 3, 20, 30), "uint8", {}, "TZYX", (6, 20, 30)),
        ((2, 2, 2, 20, 30), "float16", {}, "TZYX", (8, 20, 30)),
        ((5, 20, 30, 4), "uint8", {"rgb": True}, "ZYXS", (5, 20, 30, 4)),
        ((2, 3, 20, 30), "uint8", {"channel_axis": 1}, "ZYX", (2, 20, 30)),
    ],
)
def test_a_copy_has_the_pixels_of_the_first_image(
    reader: InventedReader, tmp_path: Path, rng: np.random.Generator, shape: tuple[int, ...],
    dtype: str, about: dict[str, Any], axes: str, kept: tuple[int, ...],
) -> None:  # fmt: skip
    pixels = rng.integers(0, 2 if dtype == "bool" else 100, shape).astype(dtype)
    file = write_invented(tmp_path / "größe 1.inv", pixels, about=about)
    copy = copy_of(file, tmp_path / "copies")
    assert copy.error == ""
    first = pixels[:, 0] if "channel_axis" in about else pixels
    if dtype == "bool":
        first = pixels * np.uint8(255)  # true is white
    with tifffile.TiffFile(copy.copied_to) as opened:
        assert opened.is_ome
        assert opened.series[0].axes == axes
        np.testing.assert_array_equal(opened.asarray().reshape(first.shape), first)
    with open_source(Path(copy.copied_to)) as source:  # as the backend does
        assert source.planes == (kept[0] if len(axes.rstrip("S")) > 2 else 1)
        assert source.pixel_size is None  # napari does not know its unit
    shown = open_copy(Path(copy.copied_to))
    assert shown is not None
    np.testing.assert_array_equal(shown[0], first.reshape(kept))
    assert shown[1] == {"rgb": axes.endswith("S")}
    assert [each.name for each in (tmp_path / "copies").glob("*.tif*")] == [
        Path(copy.copied_to).name
    ]


def test_a_copy_has_the_channel_that_is_chosen(
    reader: InventedReader, tmp_path: Path, rng: np.random.Generator
) -> None:
    pixels = rng.integers(0, 100, (2, 3, 20, 30)).astype(np.uint8)
    file = write_invented(tmp_path / "in" / "a.inv", pixels, about={"channel_axis": 1})
    flat = write_invented(tmp_path / "in" / "b.inv", pixels[0, 0])
    made, folder = {}, tmp_path / "copies"
    folder.mkdir()
    for channels in ("", "2", "3", "0,1,2"):
        asked = request(tmp_path / "in", output=tmp_path / "out", channels=channels)
        made[channels] = Reading(threading.Event()).read(foreign_files(asked).files, folder)
    for channels, number in (("", 0), ("2", 2)):
        copy = made[channels][0]
        image = InputImage(file, "a", copied_to=Path(copy.copied_to))
        chosen = request(file, output=tmp_path, channels=channels).channel_numbers
        with image.open(channels=chosen) as source:  # as the backend does
            np.testing.assert_array_equal(source.read(plane=1), pixels[1, number])
    assert len(list(folder.glob("*.tif"))) == 3  # one channel's copy does not replace another's
    assert made[""][1].error == ""
    assert f"'{flat}' has no channel 2" in made["2"][1].error
    assert "no channel 3: as its plugin reads it, it has 3" in made["3"][0].error
    assert "Choose one" in made["0,1,2"][0].error
    file = write_invented(tmp_path / "c.inv", pixels[0].transpose(1, 2, 0), about={"rgb": True})
    (coloured,) = Reading(threading.Event()).read([ForeignFile(file, "invented", (0,))], folder)
    assert "reads it as colours" in coloured.error


def test_lazy_pixels_are_read_plane_by_plane_with_their_size(
    reader: InventedReader, tmp_path: Path, rng: np.random.Generator
) -> None:
    pixels = rng.integers(0, 9, (6, 20, 30), dtype=np.uint16)
    about = {"scale": (2000, 0.25, 500), "units": ("nm", "um", "nm"), "contrast_limits": (0, 9)}
    file = write_invented(tmp_path / "a.inv", pixels, lazy=True, about=about)
    copy = copy_of(file, tmp_path / "copies")
    assert reader.planes == [0, *range(6)]  # each once, after the one that napari looks at
    with open_source(Path(copy.copied_to)) as source:
        assert source.pixel_size == (0.25, 0.5)
        np.testing.assert_array_equal(source.read(plane=4), pixels[4])
    shown = open_copy(Path(copy.copied_to))
    assert shown is not None
    assert isinstance(shown[0], np.memmap)
    assert shown[1] == {"rgb": False, "scale": [2.0, 0.25, 0.5], "units": ["micrometer"] * 3}

    assert copy_of(file, tmp_path / "copies") == copy  # nothing is read again
    assert (len(reader.files), len(reader.planes)) == (1, 7)
    os.utime(file, ns=(1, 1))
    again = copy_of(file, tmp_path / "copies")
    assert again.copied_to != copy.copied_to
    assert [str(each) for each in (tmp_path / "copies").glob("*.tif*")] == [again.copied_to]
    assert open_copy(Path(copy.copied_to)) is None


def test_planes_of_another_shape_than_promised_fail_alone(
    reader: InventedReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_invented(tmp_path / "a.inv", np.zeros((4, 20, 30), np.uint8), lazy=True)
    promised = da.from_delayed(delayed(np.zeros)((9, 30)), (20, 30), np.uint8)
    monkeypatch.setattr(reader, "_lazy", lambda pixels, broken: da.stack([promised] * 4))
    copy = copy_of(file, tmp_path / "copies")
    assert copy.copied_to == ""
    assert "plane 1 of 4 has the shape (9, 30); expected (20, 30)" in copy.error
    assert not list((tmp_path / "copies").glob("*.tif*"))


def test_another_plugin_reads_a_file_anew(reader: InventedReader, tmp_path: Path) -> None:
    file, folder = write_invented(tmp_path / "a.inv", np.zeros((20, 30), np.uint8)), tmp_path / "c"
    first = copy_of(file, folder)
    (folder / ".a.ome.tif.new").touch()  # left by a window that was killed
    with invented_reader("*.inv", name="other") as other:
        (second,) = Reading(threading.Event()).read([ForeignFile(file, "other")], folder)
        assert other.files == ["a.inv"]
    assert second.copied_to != first.copied_to
    assert [str(each) for each in folder.glob("*.tif*")] == [second.copied_to]
    assert not list(folder.glob(".*.new"))


def test_what_cannot_be_read_has_a_reason_and_leaves_nothing(
    reader: InventedReader, tmp_path: Path
) -> None:
    folder, plane = tmp_path / "copies", np.zeros((20, 30), np.uint8)
    files = {
        "good.inv": write_invented(tmp_path / "good.inv", plane),
        "plane 2 is damaged": write_invented(
            tmp_path / "broken.inv", np.zeros((4, 20, 30), np.uint8), lazy=True, broken=2,
            about={"contrast_limits": (0, 1)},
        ),
        "cannot be read (NotImplementedError)": write_invented(
            tmp_path / "complex.inv", plane.astype(np.complex64), about={"contrast_limits": (0, 1)}
        ),
        "JSONDecodeError": tmp_path / "text.inv",
        "No such file": tmp_path / "gone.inv",
    }  # fmt: skip
    files["JSONDecodeError"].write_text("no image")
    foreign = [ForeignFile(file, "invented") for file in files.values()]
    foreign.append(ForeignFile(files["good.inv"], "invented"))
    copies = Reading(threading.Event()).read(foreign, folder)
    assert copies[0].error == ""
    for copy, said in zip(copies[1:5], list(files)[1:], strict=True):
        assert said in copy.error
        assert Path(copy.file).name in copy.error
        assert copy.copied_to == ""
    assert copies[5].copied_to == copies[0].copied_to  # there is a copy already
    assert [str(each) for each in folder.glob("*.tif*")] == [copies[0].copied_to]


def test_cancelled_between_two_planes(reader: InventedReader, tmp_path: Path) -> None:
    pixels = np.zeros((6, 20, 30), np.uint8)
    file = write_invented(tmp_path / "a.inv", pixels, lazy=True, about={"contrast_limits": (0, 1)})
    reading = Reading(threading.Event())
    tell = reading._tell

    def look(plane: int, planes: int) -> None:
        if plane == 2:
            reading.cancel()
        tell(plane, planes)

    reading._tell = look  # type: ignore[method-assign]
    with pytest.raises(CancelledError, match="What was read is kept"):
        copy_of(file, tmp_path / "copies", reading)
    assert reader.planes == [0, 0, 1]
    assert list((tmp_path / "copies").glob("*.tif*")) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte."""
    with mounted(tmp_path / "disk", megabytes=1) as folder:
        yield folder


def test_a_disk_without_room(
    reader: InventedReader, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_invented(tmp_path / "a.inv", np.zeros((6, 400, 500), np.uint16))
    with pytest.raises(FileError, match=r"no room.*a\.inv.*2 MB, and 1 MB are free\. Free space"):
        copy_of(file, small_disk)
    plenty = shutil.disk_usage(tmp_path)  # others fill it meanwhile
    monkeypatch.setattr(shutil, "disk_usage", lambda path: plenty)
    with pytest.raises(FileError, match=r"a\.inv.*(disk is full|No space left).*Free space there"):
        copy_of(file, small_disk)
    assert [each.name for each in small_disk.iterdir()] == [".lock"]


def test_two_windows_exclude_each_other(
    reader: InventedReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_invented(tmp_path / "a.inv", np.zeros((20, 30), np.uint16))
    monkeypatch.setattr(_reading, "LOCK_SECONDS", 0.1)
    with FileLock(tmp_path / ".lock"), pytest.raises(BusyError, match="Another napari window"):
        copy_of(file, tmp_path)
    assert reader.files == []
    (tmp_path / ".a.new").touch()  # a window that was killed
    assert copy_of(file, tmp_path).error == ""


def test_napari_reads_arrays_by_itself(reader: InventedReader, tmp_path: Path) -> None:
    pixels = np.arange(600, dtype=np.uint16).reshape(20, 30)
    np.save(tmp_path / "a.npy", pixels)
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "b.pgm")
    files = foreign_files(request(tmp_path, output=tmp_path / "out")).files
    assert [file.reader for file in files] == ["napari", "napari"]
    copies = Reading(threading.Event()).read(files, tmp_path / "copies")
    for copy, expected in zip(copies, (pixels, pixels.astype(np.uint8)), strict=True):
        np.testing.assert_array_equal(tifffile.imread(copy.copied_to), expected)
