"""Which images a batch finds in folders, and their keys."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from tifffile import imwrite

from clsclip.batch.inputs import find_images
from clsclip.errors import FileError
from clsclip.wire_batch import ImageCopy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files that are listed, never opened."""
    root = tmp_path / "in"
    for name in ("b.png", "a.TIF", "notes.txt", "._a.png", "deep/b.jpg", "deep/er/a.b.tif"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    zarr.create_array(root / "deep" / "scan.zarr", shape=(4, 4), dtype="u1")
    return root


def keys(*inputs: Path, **how: object) -> list[str]:
    return [image.key for image in find_images(inputs, **how)]


def test_folders_in_folders_count_where_they_are_asked_for(folder: Path) -> None:
    assert keys(folder) == ["a", "b"]
    every = ["a", "b", "deep/b", "deep/er/a.b", "deep/scan"]
    assert keys(folder, recursive=True) == every
    assert [image.file for image in find_images([folder], recursive=True)][-2:] == [
        folder / "deep/er/a.b.tif", folder / "deep/scan.zarr",
    ]  # fmt: skip
    assert keys(folder / "deep/er/a.b.tif", folder / "deep") == ["a.b", "b", "scan"]
    assert keys(folder, folder / "b.png", folder) == ["a", "b"]
    assert keys(folder, recursive=True, output=folder / "deep" / "er") == [
        "a", "b", "deep/b", "deep/scan",
    ]  # fmt: skip


def test_patterns_pick_by_name_or_by_path(folder: Path) -> None:
    assert keys(folder, recursive=True, pattern="*.tif") == ["deep/er/a.b"]
    assert keys(folder, recursive=True, pattern="deep/*") == ["deep/b", "deep/scan"]
    assert keys(folder / "b.png", pattern="*.tif") == ["b"]  # was named itself
    with pytest.raises(FileError, match=r"no image files that match '\*\.bmp'.*--recursive"):
        keys(folder, pattern="*.bmp")


def test_links_in_a_circle_are_followed_once(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "c.png").touch()
    (folder / "deep" / "up").symlink_to(folder)
    (outside / "back").symlink_to(folder / "deep")
    (folder / "aside").symlink_to(outside)
    (folder / "itself.png").symlink_to(folder / "itself.png")
    assert keys(folder, recursive=True) == [
        "a", "aside/c", "b", "deep/b", "deep/er/a.b", "deep/scan", "itself",
    ]  # fmt: skip


def test_two_images_of_one_key_and_what_is_not_there_are_refused(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(FileError, match=r"would both be labelled in .b\.tif"):
        keys(folder, folder / "deep")
    with pytest.raises(FileError, match="does not exist"):
        keys(folder / "c.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match="holds no image files"):
        keys(tmp_path / "empty", recursive=True)


def test_files_that_only_napari_reads(tmp_path: Path) -> None:
    folder, copy = tmp_path / "in", tmp_path / "copy.ome.tif"
    folder.mkdir()
    for name in ("a.czi", "b.czi", "c.czi", "d.czi"):
        (folder / name).write_bytes(b"of another format")
    way = r"labelled from the Batch tab in napari.*or convert them to OME-TIFF"
    with pytest.raises(FileError, match=f"holds no image files.*{way}"):
        find_images([folder])
    (given,) = find_images([folder / "a.czi"])
    with pytest.raises(FileError, match=rf"a\.czi' cannot be read as an image.*{way}"):
        given.open()

    pixels = np.zeros((3, 20, 30), np.uint8)
    imwrite(copy, pixels, photometric="minisblack", metadata={"axes": "ZYX"})
    copies = [
        ImageCopy(file=str(folder / "a.czi"), copied_to=str(copy)),
        ImageCopy(file=str(folder / "b.czi"), error="It is encrypted."),
        ImageCopy(file=str(folder / "c.czi")),
        ImageCopy(file=str(folder / "gone.czi"), copied_to=str(copy)),
    ]
    found = find_images([folder], copies=copies)
    assert [image.file.name for image in found] == ["a.czi", "b.czi", "c.czi"]
    with found[0].open() as source:
        assert (source.planes, source.name) == (3, str(folder / "a.czi"))
    for image, said in zip(found[1:], ("It is encrypted.", "has not been read"), strict=True):
        with pytest.raises(FileError, match=said):
            image.open()
    copy.unlink()
    with pytest.raises(FileError, match=r"copy of '.*a\.czi' that napari made.*is gone"):
        found[0].open()
    assert found[0].with_copy(copies[1]).fault == "It is encrypted."
