"""The Learn tab in a real window: what is accepted is what was on screen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari import Viewer
from napari.layers import Labels
from napari.utils.notifications import notification_manager
from pytestqt.qtbot import QtBot

from clsclip.store.store import AnnotationStore
from clsclip.wire_annotations import Annotation
from napari_clsclip._scope import Scope
from napari_clsclip._widget import ClsClipWidget

PATIENCE = 120_000

Dock = Callable[..., tuple[Viewer, ClsClipWidget]]


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 255, (60, 80, 3), dtype=np.uint8)


def segment(widget: ClsClipWidget, qtbot: QtBot) -> Labels:
    tab = widget.segment_tab
    tab.segment()
    qtbot.waitUntil(lambda: not tab.busy, timeout=PATIENCE)
    layer = tab.results.current()
    assert layer is not None, tab.message.text()
    return layer


def accept(widget: ClsClipWidget, qtbot: QtBot) -> str:
    tab = widget.learn_tab
    qtbot.waitUntil(lambda: not tab.busy, timeout=PATIENCE)
    tab.accept_button.click()
    qtbot.waitUntil(lambda: not tab.busy, timeout=PATIENCE)
    return str(tab.message.text())


def newest(folder: Path) -> tuple[Annotation, Any]:
    with AnnotationStore(folder) as store:
        annotation = store.list(limit=1)[0]
        return annotation, store.read(annotation)


def test_accept_correct_accept(
    dock: Dock, qtbot: QtBot, store_folder: Path, image: np.ndarray
) -> None:
    viewer, widget = dock()
    viewer.add_image(image, name="tissue", scale=(0.5, 0.5), units=("µm", "µm"))
    layer = segment(widget, qtbot)
    layer.data_setitem((np.array([1, 1]), np.array([2, 3])), np.array([1, 1]))
    assert accept(widget, qtbot).startswith("Kept as version 1: nucleus ")
    first, arrays = newest(store_folder)
    np.testing.assert_array_equal(arrays.image, image)
    np.testing.assert_array_equal(arrays.labels, layer.data)
    assert arrays.vouched is None
    assert first.words == ("nucleus",)
    assert first.details.source == "tissue"
    assert first.details.scale == (0.5, 0.5)
    assert first.details.unit == "micrometer"
    assert first.details.model_version == layer.metadata["clsclip"]["model_version"]

    before = layer.data.copy()
    layer.data_setitem((np.array([9, 9]), np.array([2, 3])), 1 - before[9, [2, 3]])
    assert accept(widget, qtbot).startswith("Kept as version 2")
    second, arrays = newest(store_folder)
    assert (second.lineage, second.version) == (first.id, 2)
    np.testing.assert_array_equal(arrays.labels, layer.data)
    assert accept(widget, qtbot).startswith("Kept as version 2")  # nothing has changed since
    assert "nucleus" in widget.learn_tab.kept.text()


def test_objects_are_kept_as_their_words(
    dock: Dock, qtbot: QtBot, store_folder: Path, image: np.ndarray
) -> None:
    viewer, widget = dock()
    viewer.add_image(image)
    widget.segment_tab.words.setText("nucleus, cell")
    widget.segment_tab.objects.setChecked(True)
    layer = segment(widget, qtbot)
    assert accept(widget, qtbot).startswith("Kept as version 1")
    annotation, arrays = newest(store_folder)
    assert annotation.words == ("nucleus", "cell")
    classes = dict(zip(layer.features["index"], layer.features["class"], strict=True))
    wanted = {0: 0} | {i: 1 + annotation.words.index(word) for i, word in classes.items()}
    np.testing.assert_array_equal(arrays.labels, np.vectorize(wanted.get)(layer.data))


def test_only_a_segmented_region_is_vouched_for(
    dock: Dock, qtbot: QtBot, store_folder: Path, image: np.ndarray
) -> None:
    viewer, widget = dock(show=True)
    viewer.add_image(image)
    camera = viewer.scene.camera if hasattr(viewer, "scene") else viewer.camera  # napari 0.9
    camera.center, camera.zoom = (30, 40), 30
    widget.segment_tab.scope.scope = Scope.REGION
    layer = segment(widget, qtbot)
    layer.data_setitem((np.array([0]), np.array([0])), np.array([1]))
    accept(widget, qtbot)
    _, arrays = newest(store_folder)
    assert arrays.vouched is not None
    assert arrays.vouched[30, 40]
    assert arrays.vouched[0, 0]
    assert not arrays.vouched[0, 1]
    assert not arrays.vouched[-1, -1]


def test_labels_of_ones_own_are_kept_under_the_typed_word(
    dock: Dock, qtbot: QtBot, store_folder: Path, image: np.ndarray
) -> None:
    viewer, widget = dock()
    viewer.add_image(image)
    own = np.zeros((60, 80), np.int32)
    own[3:9, 5:20] = 7
    viewer.add_labels(own)
    widget.segment_tab.words.setText("细胞")
    assert accept(widget, qtbot) == "Kept as version 1: 细胞 90 pixels."
    annotation, arrays = newest(store_folder)
    assert annotation.words == ("细胞",)
    np.testing.assert_array_equal(arrays.labels, own > 0)


def test_labels_of_another_image_are_refused(
    dock: Dock, qtbot: QtBot, store_folder: Path, image: np.ndarray
) -> None:
    viewer, widget = dock()
    assert "no labels to accept" in accept(widget, qtbot)
    viewer.add_image(image)
    viewer.add_labels(np.ones((10, 12), np.uint8), name="of another")
    assert "'of another' (10, 12) do not lie on the pixels" in accept(widget, qtbot)
    notification_manager.records.clear()
