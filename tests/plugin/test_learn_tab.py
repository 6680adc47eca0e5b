"""The Learn tab in a real window, over a server that says what a backend would (see its file)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import numpy as np
import pytest
from napari import Viewer
from napari.components import ViewerModel
from napari.utils.notifications import notification_manager
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox

from clsclip.errors import BusyError, FileError
from napari_clsclip._connection import BackendConnection
from napari_clsclip._curve import IOU_COLOR, LOSS_COLOR, OLD_COLOR
from napari_clsclip._learn_tab import LearnTab
from napari_clsclip._widget import ClsClipWidget
from shown_texts import cut_off
from stub_backend import Reply
from stub_training import BEGUN, TrainingStub, annotation, training
from ticking import Ticks

MILLISECONDS = 30_000
LATER = BEGUN + timedelta(hours=1)

Dock = Callable[[], tuple[Viewer, ClsClipWidget]]
Show = Callable[[], ClsClipWidget]


@pytest.fixture
def stub() -> Iterator[TrainingStub]:
    server = TrainingStub()
    server.annotations = [annotation(BEGUN - timedelta(hours=1), "rosette")] * 5
    yield server
    server.stop()


@pytest.fixture
def dock(
    make_napari_viewer: Callable[..., Viewer], connection: BackendConnection, qtbot: QtBot
) -> Callable[[], tuple[Viewer, ClsClipWidget]]:
    """Dock the widget in a napari window and show the Learn tab; the server has answered."""

    def make() -> tuple[Viewer, ClsClipWidget]:
        viewer = make_napari_viewer(show=True)
        viewer.add_image(np.zeros((20, 30)))
        _, widget = viewer.window.add_plugin_dock_widget("napari-clsclip", "ClsCLIP")
        return viewer, answered(widget, qtbot)

    return make


@pytest.fixture
def show(connection: BackendConnection, qtbot: QtBot) -> Iterator[Show]:
    """Show the widget in a window of its own, which is faster."""
    alive = []

    def make() -> ClsClipWidget:
        widget = ClsClipWidget(ViewerModel())
        alive.append(widget)
        qtbot.addWidget(widget)
        widget.show()
        return answered(widget, qtbot)

    yield make
    alive.clear()


def answered(widget: ClsClipWidget, qtbot: QtBot) -> ClsClipWidget:
    """Show the Learn tab once it knows how learning stands."""
    tab = widget.learn_tab
    widget.tabs.setCurrentWidget(tab)
    wait(qtbot, lambda: tab.watch.learning and tab.accept_row.stored)
    return widget


def wait(qtbot: QtBot, condition: Callable[[], object]) -> None:
    qtbot.waitUntil(lambda: bool(condition()), timeout=MILLISECONDS)


def state(tab: LearnTab) -> str:
    learning = tab.watch.learning
    return "" if learning is None or learning.shown is None else learning.shown.state


def test_from_learn_to_the_new_version_and_back(
    dock: Dock, stub: TrainingStub, qtbot: QtBot
) -> None:
    _, widget = dock()
    tab, model = widget.learn_tab, widget.segment_tab.model
    form, panel, versions = tab.form, tab.panel, tab.versions
    assert panel.isHidden()
    assert form.words.checked() == ("rosette",)
    assert form.learn_button.isEnabled()
    assert form.reason.isHidden()
    assert not versions.back_button.isEnabled()

    form.minutes.setValue(2.5)
    form.note.setText(" first five ")
    qtbot.mouseClick(form.learn_button, Qt.MouseButton.LeftButton)
    wait(qtbot, lambda: state(tab) == "running")
    assert stub.asked is not None
    assert stub.asked.words == ("rosette",)
    assert (stub.asked.model, stub.asked.minutes, stub.asked.note) == ("mini", 2.5, "first five")
    assert "mini-v2 is being trained" in form.reason.text()
    assert not form.learn_button.isEnabled()
    assert form.inputs.isHidden()
    assert panel.title.text() == "Learning rosette"
    assert panel.doing.text() == "Reading images"
    assert panel.curve.accessibleDescription() == "Nothing measured yet."
    assert widget.segment_tab.segment_button.isEnabled()

    stub.trainings = [training()]
    wait(qtbot, lambda: panel.progress.value() == 420)
    assert panel.progress.text() == "42%, about 55 s left"
    assert panel.curve.accessibleDescription() == "held-out IoU 0.44, known before 0.82, loss 0.26"

    stub.end("mini-v2", promoted=True, reason="Better: it is")
    wait(qtbot, lambda: state(tab) == "done")
    assert panel.title.text() == "Learnt rosette"
    assert panel.outcome.text() == (
        "rosette 0.02 → 0.51 on held-out images; nucleus 0.83 → 0.82 where known before. "
        "mini-v2 is the active version now. Better: it is."
    )
    assert panel.cancel_button.isHidden()
    assert panel.progress.isHidden()
    assert not panel.curve.isHidden()
    assert form.learn_button.isEnabled()
    assert [model.itemText(row) for row in range(model.count())] == ["mini-v2", "mini"]
    assert model.currentText() == "mini-v2"
    assert form.model.text() == "mini-v2"
    rows = [[versions.table.item(row, column).text() for column in range(3)] for row in range(2)]
    assert rows == [["✓ mini-v2", "rosette 0.51", "24 Nov"], ["mini", "", ""]]
    assert versions.back_button.toolTip().startswith("Use mini again")

    versions.back_button.click()
    wait(qtbot, lambda: model.currentText() == "mini")
    assert stub.active == "mini"
    assert versions.table.item(1, 0).text() == "✓ mini"
    versions.table.selectRow(0)
    versions.use_button.click()
    wait(qtbot, lambda: model.currentText() == "mini-v2")
    assert stub.active == "mini-v2"
    assert not versions.use_button.isEnabled()
    assert tab.message.text() == ""


def test_a_version_that_is_not_better_says_why_and_can_be_used(
    show: Show, stub: TrainingStub, qtbot: QtBot
) -> None:
    stub.trainings = [training(note="all of Tuesday")]
    stub.end("mini-v2", promoted=False, reason="Old words suffer: 'nucleus' loses 0.080")
    widget = show()
    tab, versions = widget.learn_tab, widget.learn_tab.versions
    assert "mini-v2 is kept, but not active. Old words suffer" in tab.panel.outcome.text()
    assert widget.segment_tab.model.currentText() == "mini"
    assert versions.details.isHidden()
    assert versions.notice.isHidden()
    stub.notice = "The version 'mini-v1' that was active cannot be used."
    wait(qtbot, lambda: versions.notice.text() == stub.notice)
    assert not versions.use_button.isEnabled()
    versions.table.selectRow(0)
    for said in (versions.details.text(), versions.table.item(0, 0).toolTip()):
        assert "from mini." in said
        assert "rosette 0.02 → 0.51 on held-out images; nucleus 0.83 → 0.82 where known" in said
        assert "Not promoted. Old words suffer: 'nucleus' loses 0.080." in said
        assert "Note: all of Tuesday" in said
    widget.segment_tab.model.setCurrentText("something of my own")
    versions.use_button.click()
    wait(qtbot, lambda: stub.active == "mini-v2" and not tab.watch.ordering)
    assert widget.segment_tab.model.currentText() == "mini-v2"
    assert versions.selected == "mini-v2"


def test_a_training_is_found_by_a_window_that_is_opened_later(
    show: Show, stub: TrainingStub, qtbot: QtBot
) -> None:
    stub.trainings = [training()]
    tab = show().learn_tab
    assert tab.panel.title.text() == "Learning rosette"
    assert len(tab.panel.curve.loss[0].points) == 6
    assert tab.panel.resume_button.isHidden()
    stub.ends_at_once = False
    tab.panel.cancel_button.click()
    wait(qtbot, lambda: tab.panel.cancel_button.text() == "Ending …")
    assert not tab.panel.cancel_button.isEnabled()
    stub.trainings = [training(state="cancelled", reason="Cancelled by the user.")]
    wait(qtbot, lambda: state(tab) == "cancelled")
    assert tab.panel.title.text() == "Learning rosette was cancelled"
    assert tab.panel.outcome.text() == "Cancelled by the user."


def test_an_interrupted_training_is_offered_and_continued(
    show: Show, stub: TrainingStub, qtbot: QtBot
) -> None:
    stub.trainings = [training(state="interrupted")]
    tab = show().learn_tab
    assert tab.panel.title.text() == "Learning rosette was interrupted"
    assert tab.panel.outcome.text() == (
        "42% of its time was over. Continue goes on from its last checkpoint."
    )
    assert tab.panel.cancel_button.isHidden()
    assert tab.form.learn_button.isEnabled()
    qtbot.keyClick(tab.panel.resume_button, Qt.Key.Key_Space)
    wait(qtbot, lambda: state(tab) == "running")
    assert tab.panel.resume_button.isHidden()
    stub.trainings = [training(state="failed", reason="The loss is not a number")]
    wait(qtbot, lambda: state(tab) == "failed")
    assert tab.panel.outcome.text() == "The loss is not a number."
    assert tab.panel.title.text() == "Learning rosette failed"
    told = "Learning rosette failed. The loss is not a number"
    assert [record.message for record in notification_manager.records] == [told]
    assert tab.message.text() == told


def test_why_nothing_can_be_learnt(show: Show, stub: TrainingStub, qtbot: QtBot) -> None:
    stub.annotations = []
    tab = show().learn_tab
    assert "accept a corrected plane first" in tab.form.reason.text()
    assert tab.form.inputs.isHidden()
    assert not tab.form.learn_button.isEnabled()
    assert tab.form.learn_button.toolTip() == tab.form.reason.text()

    def hang_up(*_: object) -> Reply:
        raise ConnectionAbortedError

    stub.replies["GET"] = hang_up
    wait(qtbot, lambda: "The backend is not ready." in tab.form.reason.text())


def test_a_refused_order_says_why_and_nothing_is_lost(
    show: Show, stub: TrainingStub, qtbot: QtBot
) -> None:
    tab = show().learn_tab
    tab.form.note.setText("worth keeping")
    stub.refusal = BusyError("Another training runs. Wait for its end.")
    tab.form.learn_button.click()
    wait(qtbot, lambda: tab.message.text() == "Another training runs. Wait for its end.")
    assert [record.message for record in notification_manager.records] == [tab.message.text()]
    assert tab.form.note.text() == "worth keeping"
    wait(qtbot, tab.form.learn_button.isEnabled)
    stub.refusal = None
    tab.form.learn_button.click()
    wait(qtbot, lambda: state(tab) == "running")
    assert tab.message.text() == ""
    assert tab.form.note.text() == ""


def test_a_backend_that_cannot_answer_is_no_end(
    show: Show, stub: TrainingStub, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    tab = show().learn_tab

    def damaged(*_: object) -> object:
        raise FileError("The run 'mini-v2' cannot be read.")

    with monkeypatch.context() as patch:
        patch.setattr(stub, "_list", damaged)
        wait(qtbot, lambda: tab.form.reason.text() == "The run 'mini-v2' cannot be read.")
    wait(qtbot, tab.form.learn_button.isEnabled)


def test_words_since_the_last_version_are_checked_and_choices_stay(
    show: Show, stub: TrainingStub, qtbot: QtBot
) -> None:
    stub.trainings = [training()]
    stub.end("mini-v2", promoted=True)
    stub.annotations.insert(0, annotation(LATER, "red blood cell"))
    stub.annotations.append(annotation(BEGUN - timedelta(days=1), "R&D"))
    tab = show().learn_tab
    words = tab.form.words
    assert words.checked() == ("red blood cell",)
    qtbot.mouseClick(words.box("rosette"), Qt.MouseButton.LeftButton)
    words.box("red blood cell").setChecked(False)
    qtbot.wait(300)  # further answers change nothing
    assert words.checked() == ("rosette",)
    assert words.box("R&D").text() == "R&&D (1 plane)"
    words.box("rosette").setChecked(False)
    assert tab.form.reason.text() == "Check at least one word, and at most 64."
    stub.annotations.insert(0, annotation(LATER, "spindle"))
    tab.accept_row.refresh()
    wait(qtbot, lambda: words.checked() == ("spindle",))  # what is new is checked all the same
    assert [box.text() for box in words.findChildren(QCheckBox)] == [
        "spindle (1 plane)", "red blood cell (1 plane)", "rosette (5 planes)",
        "R&&D (1 plane)",
    ]  # fmt: skip


def test_another_model_chosen_by_hand_stays(show: Show, stub: TrainingStub, qtbot: QtBot) -> None:
    stub.trainings = [training()]
    widget = show()
    model = widget.segment_tab.model
    model.setCurrentText("runs/mine")
    assert widget.learn_tab.form.model.text() == "runs/mine"
    stub.end("mini-v2", promoted=True)
    wait(qtbot, lambda: state(widget.learn_tab) == "done")
    assert model.currentText() == "runs/mine"
    stub.trainings.insert(0, training("mine-v2", model="runs/mine"))
    wait(qtbot, lambda: state(widget.learn_tab) == "running")
    stub.end("mine-v2", promoted=True)
    wait(qtbot, lambda: state(widget.learn_tab) == "done")
    assert model.currentText() == "mine-v2"  # what the chosen one has become


def test_the_window_does_not_wait_for_a_slow_backend(
    show: Show, stub: TrainingStub, qtbot: QtBot
) -> None:
    tab = show().learn_tab
    answer = stub.replies["GET"]

    def slowly(path: str, body: bytes) -> Reply:
        if "training" in path:
            time.sleep(0.4)
        return answer(path, body)

    stub.replies["GET"] = slowly
    ticks = Ticks()
    ticks.start()
    tab.form.learn_button.click()
    assert "Beginning" in tab.form.reason.text()
    wait(qtbot, lambda: state(tab) == "running")
    tab.panel.cancel_button.click()
    wait(qtbot, lambda: state(tab) == "cancelled")
    ticks.stop()
    assert ticks.waits.sum() > 1.2  # both orders and their answers
    ticks.assert_responsive()


def test_nothing_is_cut_off_and_the_curve_is_drawn_in_any_theme(
    dock: Dock, stub: TrainingStub, qtbot: QtBot
) -> None:
    stub.trainings = [training(words=("rosette", "nucleus", "red blood cell"))]
    viewer, widget = dock()
    tab = widget.learn_tab
    for theme, dark in (("dark", True), ("light", False)):
        viewer.theme = theme
        qtbot.wait(50)
        assert (tab.panel.curve._ink(1.0).lightness() > 128) is dark
        drawn = tab.panel.curve.grab().toImage()
        colors = {
            drawn.pixelColor(x, y).name()
            for x in range(drawn.width())
            for y in range(drawn.height())
        }
        assert colors >= {IOU_COLOR, OLD_COLOR, LOSS_COLOR}
        assert cut_off(tab) == []
    stub.end("mini-v2", promoted=False, reason="Old words suffer: 'nucleus' loses 0.080")
    wait(qtbot, lambda: state(tab) == "done")
    tab.versions.table.selectRow(0)
    qtbot.wait(50)
    assert cut_off(tab) == []
    assert widget.width() < 360
