"""Files that only a reader plugin opens, in the Batch tab: read, labelled, reviewed."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from napari import Viewer
from PIL import Image
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt

from invented_reader import InventedReader, invented_reader, write_invented
from napari_clsclip import _backend_watch
from napari_clsclip._batch_files import NAME
from napari_clsclip._batch_tab import BatchTab
from napari_clsclip._supervisor import BackendState
from napari_clsclip._widget import ClsClipWidget
from ticking import Ticks

MILLISECONDS = 240_000
SHAPE = (60, 80)

Dock = Callable[..., tuple[Viewer, ClsClipWidget]]


@pytest.fixture
def reader() -> Iterator[InventedReader]:
    with invented_reader() as reader:
        yield reader


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A picture, a lazy stack, a plane with its size, and one that breaks off."""
    images = tmp_path / "images"
    images.mkdir()
    pixels = rng.integers(0, 255, (3, *SHAPE), dtype=np.uint8)
    Image.fromarray(pixels[0]).save(images / "a picture.png")
    write_invented(images / "b stack.inv", pixels, lazy=True)
    about = {"scale": (0.5, 0.25), "units": ("um", "um")}
    write_invented(images / "plate" / "c plane.inv", pixels[1], about=about)
    write_invented(images / "d broken.inv", pixels, lazy=True, broken=1)
    (images / "notes.txt").write_text("no image")
    return images


def wait(qtbot: QtBot, condition: Callable[[], object]) -> None:
    qtbot.waitUntil(lambda: bool(condition()), timeout=MILLISECONDS)


def state(tab: BatchTab) -> str:
    return "" if tab.watch.shown is None else tab.watch.shown.state


def rows(output: Path) -> dict[str, dict[str, str]]:
    with (output / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        return {Path(row["file"]).name: row for row in csv.DictReader(stream)}


def open_row(tab: BatchTab, row: int, qtbot: QtBot) -> None:
    file = tab.files.model.file  # the list may be older than the state of its batch
    wait(qtbot, lambda: (listed := file(row)) is not None and listed.labels)
    tab.files.table.clicked.emit(tab.files.model.index(row, NAME))
    wait(qtbot, lambda: tab.review.file is not None and tab.review.file.number == row)
    wait(qtbot, lambda: not tab.review.busy)


@pytest.mark.slow
def test_read_labelled_and_reviewed(
    dock: Dock, folder: Path, tmp_path: Path, tiny_model: Path, reader: InventedReader,
    qtbot: QtBot, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(_backend_watch, "RUNNING_MILLISECONDS", 200)
    viewer, widget = dock(show=True)
    widget.tabs.setCurrentWidget(widget.batch_tab)
    tab: BatchTab = widget.batch_tab
    form, output = tab.form, tmp_path / "labels"
    wait(qtbot, lambda: tab.watch.status.state is BackendState.READY)
    wait(qtbot, lambda: tab.watch.batches is not None)
    form.inputs.add([str(folder)])
    form.recursive.setChecked(True)
    form.words.setText("nucleus, cell")
    form.model.setCurrentText(str(tiny_model))
    form.zoom.setValue(1.0)
    form.output.text.setText(str(output))
    form.formats["coco"].setChecked(True)
    form.preview_button.click()
    wait(qtbot, lambda: "4 files" in form.preview_text.text())
    assert "3 files (.inv) are read by napari first" in form.preview_text.text()
    assert "time unknown" not in form.preview_text.text()
    assert not output.exists()
    assert len(reader.files) == 1  # of those of which it was to read one

    reader.files.clear()
    ticks = Ticks()
    ticks.start()
    form.start_button.click()
    # other tests may have left batches of theirs
    wait(qtbot, lambda: tab.watch.shown and tab.watch.shown.request.output == str(output))
    wait(qtbot, lambda: state(tab) == "done")
    ticks.stop()
    assert np.percentile(ticks.work, 95) < 0.05
    assert tab.message.text() == ""
    assert tab.panel.counts.text().startswith("3 of 4 done, 1 failed")
    assert sorted(reader.files) == ["b stack.inv", "c plane.inv", "d broken.inv"]
    told = rows(output)
    assert list(told) == ["a picture.png", "b stack.inv", "d broken.inv", "c plane.inv"]
    assert "plane 1 is damaged" in told["d broken.inv"]["error"]
    labels = tifffile.imread(output / "b stack.tif")
    assert labels.shape == (3, *SHAPE)
    with tifffile.TiffFile(output / "plate" / "c plane.tif") as opened:
        assert 'PhysicalSizeX="0.25"' in (opened.ome_metadata or "")
    assert '"file_name": "plate/c plane.inv"' in (output / "coco.json").read_text()

    # the review shows what was labelled, without the plugin
    model = tab.files.model
    wait(qtbot, lambda: model.file(1) is not None and model.file(1).copied_to)
    assert model.index(1, NAME).data() == "b stack.inv"
    wait(qtbot, lambda: model.index(1, 0).data(Qt.ItemDataRole.DecorationRole) is not None)
    open_row(tab, 1, qtbot)
    image = viewer.layers["b stack"]
    assert image.source.path == str(folder / "b stack.inv")
    assert image.data.shape == tab.review.labels.data.shape == (3, *SHAPE)
    np.testing.assert_array_equal(tab.review.labels.data, labels)
    open_row(tab, 3, qtbot)
    np.testing.assert_array_equal(tab.review.labels.scale, (0.5, 0.25))
    assert len(reader.files) == 3
    shutil.rmtree(output / ".read")  # the plugin is asked where there are no copies any more
    open_row(tab, 1, qtbot)
    assert reader.files[3:] == ["b stack.inv"]
    np.testing.assert_array_equal(tab.review.labels.data, labels)
