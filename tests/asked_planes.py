"""Planes that are asked about in the Segment tab, and what the backend says about one itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pytestqt.qtbot import QtBot

from clsclip.wire import SegmentRequest
from napari_clsclip._connection import BackendConnection
from napari_clsclip._scope import Scope
from napari_clsclip._segment_tab import SegmentTab

MILLISECONDS = 120_000

Dock = Callable[..., Any]


def blobs(*shape: int) -> NDArray[np.uint8]:
    """Random planes of 8 x 8 pixel blocks; no two are the same."""
    coarse = np.random.default_rng(len(shape)).integers(
        0, 256, (*shape[:-2], shape[-2] // 8, shape[-1] // 8), dtype=np.uint8
    )
    return coarse.repeat(8, -2).repeat(8, -1)


def expected(
    connection: BackendConnection, tab: SegmentTab, plane: NDArray[Any]
) -> NDArray[np.uint16]:
    """What the backend says about one plane when it is asked without the plugin."""
    request = SegmentRequest(
        model=tab.model.currentText(), zoom=1.0, words=("nucleus",), contrast_limits=(0, 255)
    )
    client = connection.supervisor.ready_client(lambda: False)
    answer = client.segment(plane, request, f"direct-{time.monotonic_ns()}")
    return answer.labels(tab.threshold.value())


def start(tab: SegmentTab, scope: Scope = Scope.ALL) -> None:
    tab.scope.scope = scope
    tab.segment_button.click()


def finish(tab: SegmentTab, qtbot: QtBot) -> None:
    qtbot.waitUntil(lambda: not tab.busy, timeout=MILLISECONDS)
