"""The visible region, its full resolution and channels, with a real window and a real backend."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from pytestqt.qtbot import QtBot

from asked_planes import Dock, blobs, expected, finish, start
from napari_clsclip._channels_row import LAYERS
from napari_clsclip._connection import BackendConnection
from napari_clsclip._scope import Scope


def test_visible_region_after_zoom_and_pan(
    dock: Dock, qtbot: QtBot, connection: BackendConnection
) -> None:
    viewer, widget = dock(show=True)
    tab = widget.segment_tab
    image = blobs(2, 256, 320)
    layer = viewer.add_image(
        image, contrast_limits=(0, 255), scale=(1, 0.5, 0.5), translate=(0, 10, 20)
    )
    viewer.dims.set_current_step(0, 1)
    viewer.scene.camera.center = (0, 90, 110)  # pixel (160, 180)
    viewer.scene.camera.zoom = 16  # canvas pixels per unit: 8 per pixel of the image
    qtbot.wait(300)
    start(tab, Scope.REGION)
    finish(tab, qtbot)
    result = viewer.layers["nucleus"]
    height, width = (size / 8 for size in viewer.canvas.size)
    rows = slice(int(160.5 - height / 2), int(np.ceil(160.5 + height / 2)))
    columns = slice(int(180.5 - width / 2), int(np.ceil(180.5 + width / 2)))
    inside = np.zeros(image.shape, bool)
    inside[1, rows, columns] = True
    assert 0.01 < inside[1].mean() < 0.5
    wanted = expected(connection, tab, np.ascontiguousarray(image[1, rows, columns]))
    assert_array_equal(result.data[1, rows, columns], wanted)
    assert not result.data[~inside].any()
    # What napari itself says is in view lies within it, by at most a pixel.
    top, left = layer.corner_pixels[0, 1:]
    assert abs(top - rows.start) <= 1
    assert abs(left - columns.start) <= 1
    assert "of the region" in tab.message.text()
    # The rest of the plane is filled around it, and a region again changes only its part.
    start(tab, Scope.PLANE)
    finish(tab, qtbot)
    assert len(viewer.layers) == 2
    assert_array_equal(result.data[1], expected(connection, tab, image[1]))


def test_full_resolution_of_the_visible_region_of_a_multiscale_image(
    dock: Dock, qtbot: QtBot, connection: BackendConnection
) -> None:
    fine = blobs(1024, 1024)
    viewer, widget = dock(show=True)
    tab = widget.segment_tab
    levels = [fine, np.ascontiguousarray(fine[::4, ::4])]
    layer = viewer.add_image(levels, multiscale=True, contrast_limits=(0, 255), name="slide")
    assert not tab.scope.full_resolution.isHidden()
    layer.locked_data_level = 1
    viewer.scene.camera.center = (0, 512, 512)
    viewer.scene.camera.zoom = 6
    qtbot.wait(300)
    start(tab, Scope.REGION)
    finish(tab, qtbot)
    coarse = viewer.layers["nucleus"]
    assert coarse.data.shape == (256, 256)
    tab.scope.full_resolution.setChecked(True)
    start(tab, Scope.REGION)
    finish(tab, qtbot)
    detail = viewer.layers["nucleus [1]"]
    assert detail.data.shape == (1024, 1024)
    height, width = (size / 6 for size in viewer.canvas.size)
    rows = slice(int(512.5 - height / 2), int(np.ceil(512.5 + height / 2)))
    columns = slice(int(512.5 - width / 2), int(np.ceil(512.5 + width / 2)))
    part = np.ascontiguousarray(fine[rows, columns])
    assert_array_equal(detail.data[rows, columns], expected(connection, tab, part))
    viewer.layers.selection.active = viewer.add_image(fine)
    assert tab.scope.full_resolution.isHidden()


@pytest.mark.parametrize("axis", [0, 1])
def test_channels_are_guessed_and_all_planes_run_without_their_axis(
    dock: Dock, qtbot: QtBot, connection: BackendConnection, axis: int
) -> None:
    planes = blobs(3, 4, 32, 40)  # z, c, y, x
    names = ["z", "y", "x"]
    names.insert(axis, "c")
    viewer, widget = dock()
    tab = widget.segment_tab
    image = planes if axis else np.ascontiguousarray(np.moveaxis(planes, 1, 0))
    viewer.add_image(image, contrast_limits=(0, 255), axis_labels=names, name="channels")
    assert not tab.channels.isHidden()
    assert tab.channels.axis == axis
    assert tab.scope.choice.itemText(2) == "All planes (3)"
    tab.channels.colors[0].setCurrentIndex(4)  # channel 3 is red, 1 green, 2 blue
    start(tab)
    finish(tab, qtbot)
    result = viewer.layers["nucleus"]
    assert result.data.shape == ((3, 1, 32, 40) if axis else (3, 32, 40))
    for z in range(3):
        colors = np.ascontiguousarray(np.moveaxis(planes[z, [3, 1, 2]], 0, -1))
        labels = result.data[z, 0] if axis else result.data[z]
        assert_array_equal(labels, expected(connection, tab, colors))


def test_layers_are_combined_and_the_row_is_only_there_when_it_makes_sense(
    dock: Dock, qtbot: QtBot, connection: BackendConnection
) -> None:
    red, green = blobs(2, 32, 40)
    viewer, widget = dock()
    tab = widget.segment_tab
    viewer.add_image(red, contrast_limits=(0, 255), name="dapi")
    assert tab.channels.isHidden()
    viewer.add_image(green, contrast_limits=(0, 255), name="actin")
    assert not tab.channels.isHidden()
    tab.channels.source.setCurrentText(LAYERS)
    tab.channels.source.activated.emit(tab.channels.source.currentIndex())
    assert [combo.currentText() for combo in tab.channels.colors] == ["dapi", "actin", "–"]  # noqa: RUF001
    start(tab, Scope.PLANE)
    finish(tab, qtbot)
    colors = np.stack([red, green, np.zeros_like(red)], axis=-1)
    assert_array_equal(viewer.layers["nucleus"].data, expected(connection, tab, colors))
    assert tab.channels.source.currentText() == LAYERS  # also after the layers have changed
