"""The Batch tab while napari reads files, over a server that says what a backend would."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import npe2
import numpy as np
import pytest
from napari.components import ViewerModel
from pytestqt.qtbot import QtBot
from qtpy.QtWidgets import QWidget

from clsclip.errors import BusyError
from clsclip.wire_batch import BatchFile, BatchPreview, BatchRequest
from invented_reader import InventedReader, invented_reader, write_invented
from napari_clsclip import _image_copies
from napari_clsclip._batch_start import preview
from napari_clsclip._batch_tab import BatchTab
from napari_clsclip._connection import BackendConnection
from napari_clsclip._widget import ClsClipWidget
from shown_texts import cut_off
from stub_batches import BatchStub, batch
from ticking import Ticks

MILLISECONDS = 30_000


@pytest.fixture
def stub() -> Iterator[BatchStub]:
    server = BatchStub()
    yield server
    server.stop()


@pytest.fixture
def reader() -> Iterator[InventedReader]:
    npe2.PluginManager.instance().discover()  # as napari does when it starts
    with invented_reader() as reader:
        yield reader


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three lazy stacks that only the plugin reads."""
    for name in "abc":
        write_invented(
            tmp_path / "in" / f"{name}.inv", np.zeros((40, 20, 30), np.uint8), lazy=True,
            about={"contrast_limits": (0, 255)},
        )  # fmt: skip
    return tmp_path / "in"


@pytest.fixture
def tab(connection: BackendConnection, folder: Path, qtbot: QtBot) -> Iterator[BatchTab]:
    """The tab, as narrow as a dock may be, with a form that asks for the folder."""
    widget = ClsClipWidget(ViewerModel())
    qtbot.addWidget(widget)
    widget.resize(350, 900)
    widget.show()
    widget.tabs.setCurrentWidget(widget.batch_tab)
    tab: BatchTab = widget.batch_tab
    wait(qtbot, lambda: tab.watch.batches is not None)
    tab.form.inputs.text.setPlainText(str(folder))
    tab.form.words.setText("cell")
    tab.form.output.text.setText(str(folder.parent / "labels"))
    alive: list[QWidget] = [widget]
    yield tab
    alive.clear()


@pytest.fixture
def gate(reader: InventedReader) -> threading.Event:
    """The second file is read no further until it is set."""
    gate, read = threading.Event(), reader.read

    def wait_first(path: str | list[str]) -> object:
        if len(reader.files) == 1:
            assert gate.wait(30)
        return read(path)

    reader.read = wait_first  # type: ignore[assignment]
    return gate


def wait(qtbot: QtBot, condition: Callable[[], object]) -> None:
    qtbot.waitUntil(lambda: bool(condition()), timeout=MILLISECONDS)


def test_progress_cancel_and_start_again(
    tab: BatchTab, stub: BatchStub, folder: Path, reader: InventedReader, gate: threading.Event,
    qtbot: QtBot,
) -> None:  # fmt: skip
    copies = folder.parent / "labels" / ".read"
    form, row = tab.form, tab.reading_row
    assert row.isHidden()
    ticks = Ticks()
    ticks.start()
    form.start_button.click()
    wait(qtbot, lambda: "reads 2 of 3" in row.text.text() and row.isVisible())
    assert row.text.text() == "napari reads 2 of 3: b.inv …"
    assert row.bar.value() == 333
    assert cut_off(row) == []
    assert not form.start_button.isEnabled()
    assert not form.preview_button.isEnabled()
    assert form.reason.text() == "Looking at the files …"
    assert [copy.copied_to for copy in stub.checked[0].copies] == [""] * 3
    row.cancel_button.click()
    gate.set()
    wait(qtbot, lambda: tab.beginning.reading is None)
    ticks.stop()
    assert np.percentile(ticks.work, 95) < 0.05
    assert row.isHidden()
    assert tab.message.text() == "Cancelled. What was read is kept; press the button to go on."
    assert stub.begun == []
    assert len(list(copies.glob("*.tif"))) == 1
    wait(qtbot, form.start_button.isEnabled)

    reader.files.clear()
    form.start_button.click()
    wait(qtbot, lambda: stub.begun)
    assert reader.files == ["b.inv", "c.inv"]  # the first one is not read again
    begun = stub.begun[0].copies
    assert [Path(copy.file).name for copy in begun] == ["a.inv", "b.inv", "c.inv"]
    assert {copy.copied_to for copy in begun} == {str(each) for each in copies.glob("*.tif")}


def test_what_the_backend_refuses_is_not_read(
    tab: BatchTab, stub: BatchStub, reader: InventedReader, qtbot: QtBot
) -> None:
    stub.refusal = BusyError("Another window labels 'x'. Wait for its end.")
    tab.form.start_button.click()
    wait(qtbot, lambda: tab.message.text() == "Another window labels 'x'. Wait for its end.")
    stub.refusal, stub.old = None, True
    for button in (tab.form.start_button, tab.form.preview_button):
        wait(qtbot, button.isEnabled)
        tab.message.show_text("")
        reader.files.clear()
        button.click()
        wait(qtbot, lambda: "older than this plugin" in tab.message.text())
        assert "3 of the files" in tab.message.text()
    assert reader.files == []  # nor for the preview: that backend may be on another machine
    assert stub.begun == []


def test_a_file_is_tried_where_the_backend_sees_it(
    folder: Path, reader: InventedReader, qapp: object
) -> None:
    asked: list[BatchRequest] = []

    def told(request: BatchRequest) -> BatchPreview:
        asked.append(request)
        return BatchPreview(
            files=3, accepted=0, bytes=72_000, pixels=72_000, first=(), seconds=None
        )

    client: Any = SimpleNamespace(batches=SimpleNamespace(preview=told))
    request = BatchRequest(
        inputs=(str(folder),), words=("cell",), output=str(folder.parent / "labels")
    )
    for local, read in ((True, ["b.inv"]), (False, [])):
        reader.files.clear()
        found = preview(request, threading.Event(), client, local=local)
        assert reader.files == read
        copies = {Path(copy.file).name: copy.copied_to for copy in asked[-1].copies}
        assert [name for name, copy in copies.items() if copy] == read
        assert "3 files (.inv) are read by napari first" in found.notes[0]
        assert ["not started by this napari" in note for note in found.notes[1:]] == (
            [] if local else [True]
        )


def test_a_full_disk_begins_nothing(
    tab: BatchTab, stub: BatchStub, reader: InventedReader, monkeypatch: pytest.MonkeyPatch,
    qtbot: QtBot,
) -> None:  # fmt: skip
    monkeypatch.setattr(_image_copies.shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    tab.form.start_button.click()
    wait(qtbot, lambda: "Free space" in tab.message.text())
    assert "a.inv" in tab.message.text()
    assert stub.begun == []


def test_a_retry_reads_what_failed_and_is_here(
    tab: BatchTab, stub: BatchStub, folder: Path, reader: InventedReader, qtbot: QtBot
) -> None:
    files = [
        BatchFile(number=0, file=str(folder / "a.inv"), status="done"),
        BatchFile(number=1, file=str(folder / "b.inv"), status="failed"),
        BatchFile(number=2, file=str(folder / "c.inv"), status="waiting"),
        BatchFile(number=3, file="/gone/d.inv", status="failed"),
        BatchFile(number=4, file="/gone/e.png", status="failed"),
    ]
    request = BatchRequest(
        inputs=(str(folder),), words=("cell",), output=str(folder.parent / "labels")
    )
    stub.files["old"] = files
    stub.batches = [batch("old", state="cancelled", request=request)]
    wait(qtbot, lambda: tab.watch.shown is not None and tab.panel.resume_button.isEnabled())
    tab.panel.resume_button.click()
    wait(qtbot, lambda: tab.watch.shown.state == "running")
    assert reader.files == ["b.inv", "c.inv"]
    (resumed,) = stub.resumed
    assert [Path(copy.file).name for copy in resumed.copies] == ["b.inv", "c.inv"]
    assert all(copy.copied_to for copy in resumed.copies)

    stub.resumed.clear()
    stub.files["old"] = files[:1]
    stub.change("old", state="interrupted")
    wait(qtbot, lambda: tab.watch.shown.state == "interrupted")
    wait(qtbot, tab.panel.resume_button.isEnabled)
    tab.panel.resume_button.click()
    wait(qtbot, lambda: tab.watch.shown.state == "running")
    assert stub.resumed == []  # there was nothing to read
