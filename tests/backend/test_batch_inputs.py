"""Which images a batch finds in folders, and their keys."""

from __future__ import annotations

from pathlib import Path

import pytest
import zarr

from clsclip.batch.inputs import find_images
from clsclip.errors import FileError


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
