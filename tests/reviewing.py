"""Files of a batch that are opened, painted and waited for in the Batch tab."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from napari.layers import Labels
from pytestqt.qtbot import QtBot

from napari_clsclip._batch_files import NAME
from napari_clsclip._batch_tab import BatchTab

MILLISECONDS = 30_000
NAME_OF_BATCH = "nucleus-1"

Open = Callable[..., BatchTab]


def wait(qtbot: QtBot, condition: Callable[[], object]) -> None:
    qtbot.waitUntil(lambda: bool(condition()), timeout=MILLISECONDS)


def click(tab: BatchTab, row: int) -> None:
    tab.files.table.clicked.emit(tab.files.model.index(row, NAME))


def is_open(tab: BatchTab, number: int) -> bool:
    file = tab.review.file
    return file is not None and file.number == number and not tab.review.busy


def open_row(tab: BatchTab, row: int, qtbot: QtBot) -> Labels:
    click(tab, row)
    wait(qtbot, lambda: is_open(tab, row))
    layer = tab.review.labels
    assert layer is not None
    return layer


def paint(layer: Labels, row: int = 5) -> None:
    """Change some pixels as the brush does."""
    layer.data_setitem((np.full(9, row), np.arange(9)), np.full(9, 2))
