"""Kinds of files and labels in a review: stacks, channels, single objects, what is too large."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
import zarr
from napari.components import ViewerModel
from napari.layers import Image, Labels
from pytestqt.qtbot import QtBot

from reviewing import NAME_OF_BATCH, Open, click, open_row, wait
from stub_batches import SHAPE, BatchStub


def test_corrected_planes_are_offered_as_examples(
    open_tab: Open, stub: BatchStub, tmp_path: Path, qtbot: QtBot
) -> None:
    stack, labels = tmp_path / "stack.tif", tmp_path / "labels" / "stack.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (3, *SHAPE), dtype=np.uint8)
    tifffile.imwrite(stack, pixels, photometric="minisblack")
    tifffile.imwrite(labels, np.zeros(pixels.shape, np.uint16), photometric="minisblack")
    stub.files[NAME_OF_BATCH][1] = stub.files[NAME_OF_BATCH][1].model_copy(
        update={"file": str(stack), "labels": str(labels)}
    )
    tab = open_tab(ViewerModel())
    layer = open_row(tab, 1, qtbot)
    tab.review_row.teach.setChecked(True)
    tab.review.accept()  # nothing was corrected: there is nothing to learn
    wait(qtbot, lambda: tab.review.file.accepted and not tab.review.busy)
    layer.data_setitem((np.full(5, 2), np.full(5, 4), np.arange(5)), np.full(5, 1))
    stub.change(NAME_OF_BATCH)
    tab.review.accept()
    wait(qtbot, lambda: stub.kept and not tab.review.teaching.busy)
    (kept,) = stub.kept
    np.testing.assert_array_equal(kept.image, pixels[2])
    np.testing.assert_array_equal(kept.labels, layer.data[2])
    assert kept.words == ("nucleus", "cell")
    assert kept.vouched is not None
    assert kept.vouched.all()
    assert kept.details.position == (2,)
    np.testing.assert_array_equal(stub.reviews[1][2], layer.data)

    stub.full = True
    layer.data_setitem((np.zeros(5, int), np.full(5, 4), np.arange(5)), np.full(5, 2))
    tab.review.accept()
    wait(qtbot, lambda: "were not kept as an example" in tab.message.text())
    assert len(stub.reviews) == 3
    stub.full = False
    layer.data_setitem((np.ones(5, int), np.full(5, 4), np.arange(5)), np.full(5, 2))
    tab.review.accept()
    wait(qtbot, lambda: len(stub.kept) == 3)  # what was refused is offered again
    assert {each.details.position for each in stub.kept} == {(0,), (1,), (2,)}


def test_labels_of_some_channels_are_no_examples_of_all_of_them(
    open_tab: Open, stub: BatchStub, qtbot: QtBot
) -> None:
    request = stub.batches[0].request.model_copy(update={"channels": "1"})
    stub.change(NAME_OF_BATCH, request=request)
    tab = open_tab(ViewerModel())
    layer = open_row(tab, 0, qtbot)
    tab.review_row.teach.setChecked(True)
    layer.data_setitem((np.full(9, 5), np.arange(9)), np.full(9, 1))
    tab.review.accept()
    wait(qtbot, lambda: "they are of the channels 1" in tab.message.text())
    wait(qtbot, lambda: tab.review.file.accepted)
    np.testing.assert_array_equal(stub.reviews[0][2], layer.data)
    assert stub.kept == []


def test_single_objects_have_their_table_and_may_be_many(
    open_tab: Open, stub: BatchStub, tmp_path: Path, qtbot: QtBot
) -> None:
    request = stub.batches[0].request.model_copy(update={"instances": True, "words": ("cell",)})
    stub.change(NAME_OF_BATCH, request=request)
    (tmp_path / "labels" / "cell 0.features.csv").write_text(
        "label,area,mean_probability,class\n1,200,0.9,cell\n2,400,0.8,cell\n"
    )
    tab = open_tab(ViewerModel())
    layer = open_row(tab, 0, qtbot)
    assert list(layer.features["index"]) == [1, 2]
    assert list(layer.features["class"]) == ["cell", "cell"]
    assert list(layer.features["area"]) == [200.0, 400.0]
    assert layer.data.dtype == np.int32
    tab.review_row.teach.setChecked(True)
    layer.data_setitem((np.full(9, 5), np.arange(9)), np.full(9, 70_000))
    tab.review.accept()
    wait(qtbot, lambda: stub.kept)
    np.testing.assert_array_equal(stub.reviews[0][2], layer.data)
    np.testing.assert_array_equal(stub.kept[0].labels, layer.data > 0)


def test_what_cannot_be_opened_is_told_and_what_was_open_stays(
    open_tab: Open, stub: BatchStub, tmp_path: Path, qtbot: QtBot
) -> None:
    tab = open_tab(ViewerModel())
    layer = open_row(tab, 0, qtbot)
    click(tab, 4)
    assert tab.message.text() == "'/gone.png' failed: truncated"
    files = stub.files[NAME_OF_BATCH]
    Path(files[1].file).unlink()
    Path(files[2].labels).write_bytes(b"no TIFF")
    odd = tmp_path / "cell.odd"
    odd.write_text("no image")
    files[3] = files[3].model_copy(update={"file": str(odd)})
    tab.files.model.replace(NAME_OF_BATCH, files[3])
    for row, said in ((1, "cannot be seen from this machine"), (2, "cannot be read"),
                      (3, "cannot be opened")):  # fmt: skip
        click(tab, row)
        wait(qtbot, lambda said=said: said in tab.message.text())
        assert tab.review.labels is layer
        assert layer in tab.review._viewer.layers
    assert [type(each) for each in tab.review._viewer.layers] == [Image, Labels]


def test_labels_that_are_too_large_to_be_corrected_can_be_accepted(
    open_tab: Open, stub: BatchStub, tmp_path: Path, qtbot: QtBot
) -> None:
    folder, files = tmp_path / "labels" / "cell 1.zarr", stub.files[NAME_OF_BATCH]
    array = zarr.create_array(str(folder), shape=SHAPE, chunks=(32, 32), dtype="uint32")
    array[10:20, 10:20] = 1
    files[1] = files[1].model_copy(update={"labels": str(folder)})
    tab = open_tab(ViewerModel())
    layer = open_row(tab, 1, qtbot)
    assert "too large to be corrected" in tab.message.text()
    assert not layer.editable
    assert int(np.asarray(layer.data[15, 15])) == 1
    assert tab.review_row.teach.isHidden()
    tab.review.accept()
    wait(qtbot, lambda: stub.reviews and not tab.review.busy)
    assert stub.reviews == [(NAME_OF_BATCH, 1, None)]
    open_row(tab, 0, qtbot)
    assert layer not in tab.review._viewer.layers
