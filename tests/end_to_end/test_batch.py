"""A folder through the Batch tab: labelled by a real process, corrected by mouse, accepted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from napari import Viewer
from PIL import Image
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt

from canvas_mouse import drag
from clsclip.store.store import AnnotationStore
from napari_clsclip import _backend_watch
from napari_clsclip._batch_files import NAME
from napari_clsclip._batch_tab import BatchTab
from napari_clsclip._supervisor import BackendState
from napari_clsclip._widget import ClsClipWidget

MILLISECONDS = 240_000
IMAGES = 6
SHAPE = (90, 120)

Dock = Callable[..., tuple[Viewer, ClsClipWidget]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images with noise, and a file that is none."""
    images = tmp_path / "images"
    images.mkdir()
    rng = np.random.default_rng(3)
    for number in range(IMAGES):
        pixels = rng.integers(0, 255, (*SHAPE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"cell {number}.png")
    (images / "broken.png").write_text("no image")
    return images


def wait(qtbot: QtBot, condition: Callable[[], object]) -> None:
    qtbot.waitUntil(lambda: bool(condition()), timeout=MILLISECONDS)


def state(tab: BatchTab) -> str:
    return "" if tab.watch.shown is None else tab.watch.shown.state


@pytest.mark.slow
def test_start_pause_resume_correct_accept_and_run_again(
    dock: Dock, folder: Path, tmp_path: Path, store_folder: Path, tiny_model: Path, qtbot: QtBot,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(_backend_watch, "RUNNING_MILLISECONDS", 200)
    viewer, widget = dock(show=True)
    own = viewer.add_image(np.zeros(SHAPE), name="own")
    widget.tabs.setCurrentWidget(widget.batch_tab)
    tab: BatchTab = widget.batch_tab
    form, output = tab.form, tmp_path / "labels"
    wait(qtbot, lambda: tab.watch.status.state is BackendState.READY and tab.watch.batches == ())
    form.inputs.add([str(folder)])
    form.words.setText("nucleus, cell")
    form.model.setCurrentText(str(tiny_model))
    form.zoom.setValue(1.0)
    form.output.text.setText(str(output))
    form.formats["png"].setChecked(True)
    form.preview_button.click()
    wait(qtbot, lambda: f"{IMAGES + 1} files" in form.preview_text.text())

    form.start_button.click()
    wait(qtbot, lambda: state(tab) == "running" and tab.panel.pause_button.isEnabled())
    tab.panel.pause_button.click()  # long before it is through, for it must first load the model
    wait(qtbot, lambda: state(tab) == "paused")
    assert tab.watch.shown.done < IMAGES
    tab.panel.resume_button.click()
    wait(qtbot, lambda: state(tab) == "done")
    assert tab.panel.counts.text().startswith(f"{IMAGES} of {IMAGES + 1} done, 1 failed")
    model = tab.files.model
    wait(qtbot, lambda: model.file(0) is not None and model.file(0).status == "failed")
    assert Path(model.file(0).file) == folder / "broken.png"
    assert model.file(0).error

    # the list may be older than the state of its batch
    wait(qtbot, lambda: model.file(2) is not None and model.file(2).labels)
    tab.files.table.clicked.emit(model.index(2, NAME))
    wait(qtbot, lambda: tab.review.file is not None and not tab.review.busy)
    layer, file = tab.review.labels, Path(tab.review.file.labels)
    assert Path(tab.review.file.file).name == "cell 1.png"
    np.testing.assert_array_equal(layer.data, tifffile.imread(file))
    wait(qtbot, lambda: model.index(2, 0).data(Qt.ItemDataRole.DecorationRole) is not None)
    tab.review_row.teach.setChecked(True)
    before = layer.data.copy()
    layer.mode, layer.brush_size = "paint", 9
    layer.selected_label = 2 if (before == 1).sum() > (before == 2).sum() else 1
    drag(viewer, qtbot, [(40, 30), (40, 90)])
    assert not np.array_equal(layer.data, before)
    qtbot.keyClick(viewer.window._qt_viewer.canvas.native, Qt.Key.Key_A)
    wait(qtbot, lambda: tab.review.file.accepted and not tab.review.busy)
    assert tab.review.file.corrected
    np.testing.assert_array_equal(tifffile.imread(file), layer.data)
    with Image.open(output / "png" / "cell 1.png") as exported:
        np.testing.assert_array_equal(np.asarray(exported), layer.data)
    wait(qtbot, lambda: not tab.review.teaching.busy)
    with AnnotationStore(store_folder) as store:
        kept = store.list(limit=1)[0]
        np.testing.assert_array_equal(store.read(kept).labels, layer.data)
        assert kept.words == ("nucleus", "cell")

    accepted, other = file.read_bytes(), file.with_name("cell 2.tif")
    times = file.stat().st_mtime_ns, other.stat().st_mtime_ns
    form.overwrite.setChecked(True)
    first = tab.watch.shown.name
    form.start_button.click()
    wait(qtbot, lambda: tab.watch.shown.name != first and state(tab) == "done")
    assert file.read_bytes() == accepted
    assert file.stat().st_mtime_ns == times[0]
    assert other.stat().st_mtime_ns > times[1]
    wait(qtbot, lambda: model.index(2, 2).data() == "corrected")
    assert own in viewer.layers
