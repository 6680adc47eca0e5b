"""The Batch tab in a real window, over a server that says what a backend would (see its file)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import numpy as np
import pytest
from napari.components import ViewerModel
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QWidget

from clsclip.errors import BusyError, InvalidConfigError
from clsclip.wire_batch import BatchFile
from napari_clsclip._batch_files import PAGE
from napari_clsclip._batch_tab import BatchTab
from napari_clsclip._connection import BackendConnection
from napari_clsclip._widget import ClsClipWidget
from shown_texts import cut_off
from stub_backend import Reply
from stub_batches import BEGUN, BatchStub, batch
from ticking import Ticks

MILLISECONDS = 30_000

Show = Callable[[], BatchTab]


@pytest.fixture
def stub() -> Iterator[BatchStub]:
    server = BatchStub()
    yield server
    server.stop()


@pytest.fixture
def show(connection: BackendConnection, qtbot: QtBot) -> Iterator[Show]:
    """Show the tab, as narrow as a dock may be; the server has answered."""
    alive: list[QWidget] = []

    def make() -> BatchTab:
        widget = ClsClipWidget(ViewerModel())
        alive.append(widget)
        qtbot.addWidget(widget)
        widget.resize(350, 900)
        widget.show()
        widget.tabs.setCurrentWidget(widget.batch_tab)
        tab: BatchTab = widget.batch_tab
        wait(qtbot, lambda: tab.watch.batches is not None)
        return tab

    yield make
    alive.clear()


def wait(qtbot: QtBot, condition: Callable[[], object]) -> None:
    qtbot.waitUntil(lambda: bool(condition()), timeout=MILLISECONDS)


def state(tab: BatchTab) -> str:
    return "" if tab.watch.shown is None else tab.watch.shown.state


def files(count: int) -> list[BatchFile]:
    """Every tenth has failed, the last tenth waits."""
    made = []
    for number in range(count):
        about = {"number": number, "file": f"/data/cells/cell {number:05}.png"}
        if number % 10 == 3:
            made.append(BatchFile(**about, status="failed", error="not an image: truncated PNG"))
        elif number >= 0.9 * count:
            made.append(BatchFile(**about, status="waiting"))
        else:
            score = (number * 7 % 100) / 100
            made.append(BatchFile(**about, status="done", score=score, seconds=0.5, labels="/l"))
    return made


def cells(tab: BatchTab, row: int) -> list[str]:
    model = tab.files.model
    return [str(model.index(row, column).data() or "") for column in range(model.columnCount())]


def fill(tab: BatchTab) -> None:
    tab.form.inputs.text.setPlainText("/data/cells\n\n/data/more\n/data/cells")
    tab.form.pattern.setText("*.png")
    tab.form.recursive.setChecked(True)
    tab.form.words.setText("nucleus, red  blood cell")
    tab.form.output.text.setText("/data/labels")


def test_channels_of_the_form(show: Show) -> None:
    form = show().form
    form.inputs.text.setPlainText("/data")
    form.words.setText("cell")
    form.output.text.setText("/out")
    assert "channels" not in form.request().model_dump_json()  # backends of before know none
    for typed, channels in (("2", "2"), (" 0, 2,1 ", "0,2,1")):
        form.channels.setText(typed)
        assert form.request().channels == channels
    form.channels.setText("0,1")
    with pytest.raises(InvalidConfigError, match="'0,1' names no channels"):
        form.request()


def test_from_the_form_to_the_end_and_the_retry(show: Show, stub: BatchStub, qtbot: QtBot) -> None:
    tab = show()
    form, panel = tab.form, tab.panel
    assert panel.isHidden()
    assert tab.fold.isChecked()
    fill(tab)
    form.formats["yolo"].setChecked(True)
    assert not form.formats["tiff"].isEnabled()
    form.objects.setChecked(True)
    form.object_fields.min_area.setValue(30)
    form.regions.regions.setCurrentText("tiles")
    form.preview_button.click()
    wait(qtbot, lambda: "4,000 files" in form.preview_text.text())
    assert form.preview_text.text() == (
        "4,000 files, 312 MB, 1,870.0 megapixels, about 2.0 h.\n"
        "12 of them are accepted and stay as they are.\n"
        "a.png, b.png, c.png, …\n"
        "3 files have more than one plane."
    )
    form.start_button.click()
    wait(qtbot, lambda: state(tab) == "running")
    assert stub.begun == stub.previewed
    asked = stub.begun[0]
    assert (asked.inputs, asked.pattern, asked.recursive) == (
        ("/data/cells", "/data/more"), "*.png", True,
    )  # fmt: skip
    assert asked.words == ("nucleus", "red blood cell")
    assert (asked.formats, asked.output) == (("tiff", "yolo"), "/data/labels")
    assert (asked.instances, asked.min_area, asked.regions) == (True, 30, "tiles")
    assert (asked.model, asked.zoom, asked.threshold, asked.overwrite) == ("mini", None, 0.5, False)
    assert not tab.fold.isChecked()
    assert panel.title.text() == "Labelling nucleus, red blood cell"
    assert panel.counts.text() == "The files are being listed."
    assert "one batch at a time" in form.start_button.toolTip()
    assert form.preview_button.isEnabled()

    name = "nucleus-1"
    stub.change(name, files=10, done=4, failed=1, eta_seconds=52.0, doing="cell 4.png: 3 objects")
    wait(qtbot, lambda: panel.progress.value() == 500)
    assert panel.progress.text() == "50%, about 55 s left"
    assert panel.counts.text() == "4 of 10 done, 1 failed."
    assert panel.doing.text() == "cell 4.png: 3 objects"
    qtbot.mouseClick(panel.pause_button, Qt.MouseButton.LeftButton)
    wait(qtbot, lambda: panel.doing.text() == "Pausing …")
    wait(qtbot, lambda: not tab.watch.ordering)
    assert not panel.pause_button.isEnabled()
    stub.change(name, state="paused")
    wait(qtbot, lambda: state(tab) == "paused")
    assert panel.pause_button.isHidden()
    assert panel.doing.isHidden()
    wait(qtbot, panel.resume_button.isEnabled)
    panel.resume_button.click()
    wait(qtbot, lambda: state(tab) == "running" and panel.pause_button.isEnabled())
    stub.change(name, state="done", done=9, failed=1, accepted=2, seconds=200.0, eta_seconds=None)
    wait(qtbot, lambda: state(tab) == "done")
    assert panel.counts.text() == "9 of 10 done, 1 failed, 2 accepted, in 3 min."
    assert panel.cancel_button.isHidden()
    assert panel.resume_button.text() == "Retry failed"
    panel.resume_button.click()
    wait(qtbot, lambda: state(tab) == "running" and panel.cancel_button.isEnabled())
    panel.cancel_button.click()
    wait(qtbot, lambda: state(tab) == "cancelled")
    assert panel.reason.text() == "Cancelled by the user."
    assert panel.resume_button.text() == "Resume"
    assert tab.message.text() == ""


def test_earlier_batches_are_found_and_can_be_chosen(
    show: Show, stub: BatchStub, qtbot: QtBot
) -> None:
    old = batch("old-1", state="interrupted", reason="The machine was switched off.")
    stub.batches = [
        batch("new-3", state="done", done=10, failed=0, started=BEGUN + timedelta(hours=2)),
        batch("two-2"), old,
    ]  # fmt: skip
    tab = show()
    panel = tab.panel
    assert not tab.fold.isChecked()
    assert panel.choice.currentText() == "two-2 · nucleus, cell · running"  # it runs
    panel.choice.setCurrentIndex(2)
    panel.choice.activated.emit(2)
    assert panel.reason.text() == "The machine was switched off."
    assert panel.title.text() == "Labelling nucleus, cell was interrupted"
    assert "/data/cells" in panel.title.toolTip()
    qtbot.wait(200)  # further answers change nothing
    assert panel.choice.currentIndex() == 2
    stub.change("two-2", state="failed", reason="No space left")
    wait(qtbot, lambda: panel.choice.itemText(1).endswith("failed"))
    assert panel.choice.currentIndex() == 2


def test_what_is_missing_is_said_and_a_refusal_loses_nothing(
    show: Show, stub: BatchStub, qtbot: QtBot
) -> None:
    tab = show()
    for text, said in (
        ("", "There is nothing to label."), ("/data", "No class word was given."),
    ):  # fmt: skip
        tab.form.inputs.text.setPlainText(text)
        tab.form.start_button.click()
        assert said in tab.message.text()
    tab.form.words.setText("nucleus")
    tab.form.preview_button.click()
    assert "Choose an output folder" in tab.message.text()
    fill(tab)
    stub.refusal = BusyError("Another window labels 'x'. Wait for its end.")
    for button in (tab.form.preview_button, tab.form.start_button):
        tab.message.show_text("")
        button.click()
        wait(qtbot, lambda: tab.message.text() == "Another window labels 'x'. Wait for its end.")
        wait(qtbot, button.isEnabled)
    assert tab.form.request().inputs == ("/data/cells", "/data/more")
    assert tab.fold.isChecked()

    def hang_up(*_: object) -> Reply:
        raise ConnectionAbortedError

    stub.replies["GET"] = hang_up
    wait(qtbot, lambda: "The backend is not ready." in tab.form.reason.text())
    assert not tab.form.start_button.isEnabled()
    assert tab.form.words.text() == "nucleus, red  blood cell"


def test_ten_thousand_files_are_fetched_as_they_come_into_view(
    show: Show, stub: BatchStub, qtbot: QtBot
) -> None:
    stub.batches = [batch(files=10_000, done=8000, failed=1000)]
    stub.files["nucleus-1"] = files(10_000)
    tab = show()
    model, table = tab.files.model, tab.files.table
    ticks = Ticks()
    ticks.start()
    wait(qtbot, lambda: model.rowCount() == 10_000 and cells(tab, 3)[1])
    assert cells(tab, 3) == [
        "", "cell 00003.png", "failed", "", "", "", "not an image: truncated PNG",
    ]  # fmt: skip
    assert "truncated PNG" in model.index(3, 1).data(Qt.ItemDataRole.ToolTipRole)
    wait(qtbot, lambda: model.index(1, 0).data(Qt.ItemDataRole.DecorationRole) is not None)
    assert model.index(2, 0).data(Qt.ItemDataRole.DecorationRole) is None  # there is no thumbnail
    table.scrollToBottom()
    wait(qtbot, lambda: model.file(9999) is not None)
    assert cells(tab, 9999)[1:3] == ["cell 09999.png", "waiting"]
    ticks.stop()
    pages = {int(asked["start"]) // PAGE for asked in stub.asked_files}
    assert pages <= {0, 1, 98, 99}
    assert {asked["count"] for asked in stub.asked_files} == {str(PAGE)}
    assert np.percentile(ticks.work, 95) < 0.05, f"{np.percentile(ticks.work, [50, 95, 100])} s"

    tab.files.order.setCurrentIndex(1)
    wait(qtbot, lambda: model.file(0) is not None)
    assert cells(tab, 0)[1:4] == ["cell 00000.png", "done", "0.00"]
    tab.files.status.setCurrentIndex(tab.files.status.findData("failed"))
    wait(qtbot, lambda: model.rowCount() == 1000 and model.file(0) is not None)
    assert cells(tab, 0)[6] == "not an image: truncated PNG"
    assert table.isColumnHidden(3)
    stub.files["nucleus-1"] = files(10)
    stub.change("nucleus-1", files=10, done=8, failed=1)
    wait(qtbot, lambda: model.rowCount() == 1)
    tab.files.status.setCurrentIndex(0)
    wait(qtbot, lambda: model.rowCount() == 10 and model.file(9) is not None)


def test_rows_follow_a_batch_that_goes_on(show: Show, stub: BatchStub, qtbot: QtBot) -> None:
    stub.batches = [batch(files=3, done=1, failed=0)]
    waiting = [BatchFile(number=n, file=f"/data/{n}.png", status="waiting") for n in range(3)]
    done = [w.model_copy(update={"status": "done", "score": 0.5}) for w in waiting]
    stub.files["nucleus-1"] = [done[0], *waiting[1:]]
    tab = show()
    wait(qtbot, lambda: cells(tab, 2)[2] == "waiting")
    stub.files["nucleus-1"] = done
    stub.change("nucleus-1", done=3, state="done")
    wait(qtbot, lambda: cells(tab, 2)[2] == "done")
    wait(qtbot, lambda: state(tab) == "done")


def test_nothing_is_cut_off_in_a_narrow_dock(show: Show, stub: BatchStub, qtbot: QtBot) -> None:
    stub.batches = [batch()]
    stub.files["nucleus-1"] = files(10)
    tab = show()
    wait(qtbot, lambda: cells(tab, 0)[1])
    assert cut_off(tab) == []
    tab.fold.setChecked(True)
    tab.form.more.expand(animate=False)
    tab.form.show_preview("4,000 files, 312 MB, 1,870.0 megapixels, about 2.0 h.\nmore")
    qtbot.wait(50)
    assert cut_off(tab) == []
    assert tab.width() <= 350
