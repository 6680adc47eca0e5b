"""npe2 must find the manifest in every kind of install, and all that it names must exist."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path

import pytest
from npe2 import PluginManifest

ROOT = Path(__file__).parents[2]


def test_installed_copy_is_the_root_file() -> None:
    (entry_point,) = distribution("napari-clsclip").entry_points.select(group="napari.manifest")
    package, _, name = entry_point.value.partition(":")
    installed = files(package).joinpath(name).read_text(encoding="utf-8")
    assert installed == (ROOT / "napari.yaml").read_text(encoding="utf-8"), (
        "the installed manifest is stale: install the project again"
    )


def test_manifest_is_valid_and_its_python_names_exist() -> None:
    manifest = PluginManifest.from_distribution("napari-clsclip")
    manifest.validate_imports()
    assert manifest.display_name == "ClsCLIP"


def test_every_command_is_used_and_every_use_is_a_command() -> None:
    contributions = PluginManifest.from_distribution("napari-clsclip").contributions
    commands = {command.id for command in contributions.commands or []}
    used = {widget.command for widget in contributions.widgets or []}
    used |= {sample.command for sample in contributions.sample_data or []}
    assert commands == used
    (item,) = contributions.menus["napari/layers/segment"]
    assert item.command == "napari-clsclip.widget"


@pytest.mark.slow
def test_wheel_holds_the_manifest_and_both_packages(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation"]
    subprocess.run(
        [*command, "-o", str(tmp_path), str(ROOT)], check=True, capture_output=True, timeout=300
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        manifest = archive.read("napari_clsclip_manifest/napari.yaml")
        (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
        declared = archive.read(entry_points).decode()
    assert manifest == (ROOT / "napari.yaml").read_bytes()
    assert "napari_clsclip_manifest:napari.yaml" in declared
    assert {"napari_clsclip/_widget.py", "napari_clsclip/py.typed", "clsclip/wire.py"} <= names
