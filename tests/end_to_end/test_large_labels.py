"""What the command line makes of a large image opens in napari without being read."""

from __future__ import annotations

from pathlib import Path

import dask.array as da
import numpy as np
import zarr
from napari.components import ViewerModel
from napari.layers import Labels
from npe2 import PluginManager

from clsclip.cli.label import main


def test_labels_of_a_large_image_open_lazily(tmp_path: Path, tiny_model: Path) -> None:
    image = zarr.create_array(tmp_path / "scan.zarr", shape=(300, 200), chunks=(64, 64), dtype="u1")
    image[...] = np.random.default_rng(0).integers(0, 255, image.shape, dtype=np.uint8)
    output = tmp_path / "labels"
    arguments = [str(tmp_path / "scan.zarr"), "--words", "cell", "--model", str(tiny_model)]
    arguments += ["--zoom", "1", "--threshold", "0.4", "--large-from", "1000", "--chunk", "64"]
    assert main([*arguments, "--output", str(output)]) == 0
    PluginManager.instance().discover()  # napari's own readers
    viewer = ViewerModel()
    viewer.open(str(output / "scan.zarr"), plugin="napari")
    (layer,) = viewer.layers
    assert isinstance(layer, Labels)
    assert isinstance(layer.data, da.Array)
    assert layer.data.chunksize == (64, 64)
    np.testing.assert_array_equal(layer.data, zarr.open_array(output / "scan.zarr")[...])
