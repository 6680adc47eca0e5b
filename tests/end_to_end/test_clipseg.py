"""CLIPSeg in a real window: it segments like any model, and says that it cannot be taught."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from pytestqt.qtbot import QtBot

from clsclip.errors import InvalidConfigError
from clsclip.wire import SegmentRequest
from clsclip.wire_training import TrainingRequest
from napari_clsclip._connection import BackendConnection


def test_words_are_found_and_teaching_is_refused(
    dock: Callable[..., Any], qtbot: QtBot, connection: BackendConnection, tmp_path: Path
) -> None:
    folder = tmp_path / "rival"
    script = Path(__file__).parents[1] / "make_tiny_clipseg.py"
    # not in this process, which draws windows: see tests/conftest.py
    subprocess.run([sys.executable, str(script), str(folder)], check=True, timeout=300)
    viewer, widget = dock()
    tab = widget.segment_tab
    image = np.random.default_rng(0).integers(0, 255, (40, 70, 3), dtype=np.uint8)
    viewer.add_image(image)
    tab.model.setCurrentText(str(folder))
    tab.words.setText("a cell, nucleus")
    tab.segment_button.click()
    qtbot.waitUntil(lambda: not tab.busy, timeout=120_000)
    result = viewer.layers["a cell, nucleus"]
    client = connection.supervisor.ready_client(lambda: False)
    request = SegmentRequest(model=str(folder), zoom=1.0, words=("a cell", "nucleus"))
    expected = client.segment(image, request, "direct")
    assert_array_equal(result.data, expected.labels(tab.threshold.value()))
    assert result.metadata["clsclip"]["model_version"] == expected.model_version
    assert {1, 2} <= set(np.unique(result.data))
    assert client.window(str(folder)).image_size == 64
    with pytest.raises(InvalidConfigError, match="cannot be taught"):
        client.begin_training(TrainingRequest(words=("cell",), model=str(folder)))
