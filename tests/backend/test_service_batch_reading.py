"""Files that only napari can read, in batches of the service: their copies are labelled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from tifffile import imwrite

from batch_service import STUB, asked, code, counts, files, post, preview, review, started, told
from clsclip.wire_batch import COPIES_FOLDER, BatchPreview
from waiting import eventually

INVALID = (422, "invalid_request")


def write_foreign(images: Path, *names: str) -> Path:
    """Files that no backend can read; returns the folder for their copies."""
    for name in names:
        (images / name).write_bytes(b"of another format")
    copies = images.parent / "cell labels" / COPIES_FOLDER
    copies.mkdir(parents=True)
    return copies


def write_copy(copies: Path, file: Path, planes: int = 1) -> dict[str, str]:
    copy = copies / f"{file.stem}.ome.tif"
    pixels = np.zeros((planes, 20, 24), np.uint8)
    pixels[:, 4:12] = 200
    imwrite(copy, pixels, photometric="minisblack", metadata={"axes": "ZYX"})
    return {"file": str(file), "copied_to": str(copy)}


def test_files_that_napari_reads(serve: Any, gated: Any, six_images: Path) -> None:
    http = serve(gated, None, STUB).http
    copies = write_foreign(six_images, "g.czi", "h.czi", "i.czi")
    unread = [{"file": str(six_images / f"{name}.czi")} for name in "ghi"]
    checked = http.post("/v1/batches/check", json=asked(six_images, copies=unread))
    assert checked.json() == {"files": 9}
    read = [
        write_copy(copies, six_images / "g.czi"),
        {"file": str(six_images / "h.czi"), "error": "'h.czi' is encrypted."},
        {"file": str(six_images / "gone.czi"), "error": "Not among the images."},
    ]
    batch = started(post(http, six_images, formats=["tiff", "coco"], copies=read))
    assert batch.request.copies == ()  # they are not told again and again
    assert "copies" not in http.get("/v1/batches").text
    eventually(lambda: told(http, batch.name).state == "done")
    assert counts(told(http, batch.name)) == (8, 6, 2, 0)
    found = files(http, batch.name).files
    assert [Path(each.file).name for each in found[-2:]] == ["g.czi", "h.czi"]
    assert found[-2].labels == str(six_images.parent / "cell labels" / "g.tif")
    assert (found[-2].copied_to, found[0].copied_to) == (read[0]["copied_to"], "")
    assert (found[-1].status, found[-1].error) == ("failed", "'h.czi' is encrypted.")
    assert "copied_to" not in http.get(f"/v1/batches/{batch.name}/files", params={"count": 1}).text
    listed = json.loads((six_images.parent / "cell labels" / "coco.json").read_text())
    assert "g.czi" in [image["file_name"] for image in listed["images"]]
    assert review(http, batch.name, 6).json()["accepted"]

    Path(read[0]["copied_to"]).unlink()  # nobody needs it any more
    (six_images / "good").touch()
    path = f"/v1/batches/{batch.name}/resume"
    unseen = str(copies / "no.ome.tif")
    gone = {"copies": [{"file": str(six_images / "h.czi"), "copied_to": unseen}]}
    answer = http.post(path, json=gone)
    assert code(answer) == INVALID
    assert "does not see" in answer.json()["error"]["message"]
    again = {"copies": [write_copy(copies, six_images / "h.czi")]}
    assert http.post(path, json=again).status_code == 200
    eventually(lambda: told(http, batch.name).state == "done")
    assert counts(told(http, batch.name)) == (8, 8, 0, 1)


def test_copies_that_the_backend_does_not_see(serve: Any, gated: Any, six_images: Path) -> None:
    gated.gate.set()
    http = serve(gated, None, STUB).http
    copies = write_foreign(six_images, "g.czi")
    read = write_copy(copies, six_images / "g.czi")
    Path(read["copied_to"]).unlink()
    answer = post(http, six_images, copies=[read])
    assert code(answer) == INVALID
    assert "It probably runs on another machine" in answer.json()["error"]["message"]
    copies.rmdir()
    answer = http.post("/v1/batches/check", json=asked(six_images, copies=[{"file": read["file"]}]))
    assert code(answer) == INVALID
    assert f"the backend does not see '{copies}'" in answer.json()["error"]["message"]
    found = BatchPreview.model_validate_json(preview(http, six_images, copies=[read]).content)
    assert (found.files, len(found.notes)) == (7, 1)
    assert "does not see" in found.notes[0]
    assert http.get("/v1/batches").json() == {"batches": []}


def test_preview_with_files_that_napari_reads(serve: Any, gated: Any, six_images: Path) -> None:
    gated.gate.set()
    copies = write_foreign(six_images, "g.czi", "h.czi", "i.czi")
    for file in six_images.glob("*.png"):
        file.unlink()
    read = [write_copy(copies, six_images / "g.czi", planes=5)]
    read += [{"file": str(six_images / f"{name}.czi")} for name in "hi"]
    found = BatchPreview.model_validate_json(
        preview(serve(gated).http, six_images, copies=read).content
    )
    assert (found.files, found.pixels) == (3, 3 * 5 * 20 * 24)  # all like the one that was read
    assert found.bytes == 3 * len(b"of another format")
    assert found.seconds is not None
    assert found.notes == ()
