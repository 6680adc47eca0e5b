"""``--download``: torchvision's code, with a server on this machine in place of the real ones."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision.datasets import SBDataset
from torchvision.datasets.voc import DATASET_YEAR_DICT

from clsclip.cli.train import main
from clsclip.errors import FileError
from clsclip.training import download
from clsclip.training.folds import COCO_CLASSES, fold_source

SHAPE = (24, 32)


@dataclass
class Server:
    """Serves files of a name with their content, and notes which were asked for."""

    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def add(self, name: str, content: bytes) -> tuple[str, str]:
        """Address and MD5."""
        self.files[name] = content
        return f"{self.address}/{name}", hashlib.md5(content).hexdigest()


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.removeprefix("/")
            found.asked.append(name)
            content = found.files.get(name)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        found = Server(f"http://127.0.0.1:{listening.server_address[1]}")
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield found
        listening.shutdown()
        thread.join()


def picture(ending: str, mask: bool = False, value: int = 0) -> bytes:
    plane = np.full(SHAPE if mask else (*SHAPE, 3), 0 if mask else 90, np.uint8)
    plane[4:16, 4:16] = value
    stream = io.BytesIO()
    Image.fromarray(plane).save(stream, ending)
    return stream.getvalue()


def packed(files: dict[str, bytes], kind: str) -> bytes:
    """An archive: tar, tgz or zip."""
    stream = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(stream, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return stream.getvalue()
    with tarfile.open(fileobj=stream, mode="w:gz" if kind == "tgz" else "w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


@pytest.fixture
def pascal(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """VOC 2012 of a car and a bird, and SBD of a dog."""
    home = "VOCdevkit/VOC2012"
    files = {}
    for part, value in (("train", 7), ("val", 3)):
        files[f"{home}/JPEGImages/{part}.jpg"] = picture("JPEG")
        files[f"{home}/SegmentationClass/{part}.png"] = picture("PNG", True, value)
        files[f"{home}/ImageSets/Segmentation/{part}.txt"] = f"{part}\n".encode()
    url, md5 = server.add("voc.tar", packed(files, "tar"))
    monkeypatch.setitem(
        DATASET_YEAR_DICT, "2012",
        {"url": url, "filename": "voc.tar", "md5": md5, "base_dir": home},
    )  # fmt: skip
    stream = io.BytesIO()
    savemat(stream, {"GTcls": {"Segmentation": np.full(SHAPE, 12, np.uint8)}})
    release = "benchmark_RELEASE/dataset"
    dog = {
        f"{release}/img/dog.jpg": picture("JPEG"), f"{release}/cls/dog.mat": stream.getvalue(),
        f"{release}/inst/dog.mat": b"", f"{release}/train.txt": b"dog\n",
        f"{release}/val.txt": b"\n",
    }  # fmt: skip
    url, md5 = server.add("sbd.tgz", packed(dog, "tgz"))
    for name, value in (("url", url), ("md5", md5), ("filename", "sbd.tgz")):
        monkeypatch.setattr(SBDataset, name, value)
    return server


@pytest.fixture
def coco(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """COCO 2017 of a bicycle to train on and a person to test with (fold 0)."""
    files = {}
    for part, place in (("train", 1), ("val", 0)):
        annotation = {
            "id": 1, "image_id": 1, "category_id": place + 1, "iscrowd": 0, "area": 100,
            "bbox": [4, 4, 10, 10], "segmentation": [[4, 4, 14, 4, 14, 14, 4, 14]],
        }  # fmt: skip
        content = {
            "images": [{"id": 1, "file_name": "1.jpg", "height": 24, "width": 32}],
            "categories": [{"id": k + 1, "name": name} for k, name in enumerate(COCO_CLASSES)],
            "annotations": [annotation],
        }
        files[f"annotations/instances_{part}2017.json"] = json.dumps(content).encode()
        image = packed({f"{part}2017/1.jpg": picture("JPEG")}, "zip")
        monkeypatch.setitem(download.COCO_ARCHIVES, part, server.add(f"{part}2017.zip", image))
    notes = server.add("annotations.zip", packed(files, "zip"))
    monkeypatch.setitem(download.COCO_ARCHIVES, "annotations", notes)
    return server


@pytest.fixture(autouse=True)
def room(monkeypatch: pytest.MonkeyPatch) -> None:
    """These data sets are small."""
    for name in download._SPACE:
        monkeypatch.setitem(download._SPACE, name, 0.0)


def test_voc_and_sbd_are_fetched_once(pascal: Server, tmp_path: Path) -> None:
    root = tmp_path / "data"
    with pytest.raises(FileError, match="--download"):
        fold_source("pascal-5i", 0, str(root), "val")
    tested = fold_source("pascal-5i", 0, str(root), "val", download=True)
    assert [set(tested[k].masks) for k in range(len(tested))] == [{"bird"}]
    assert set(pascal.asked) == {"voc.tar"}  # SBD is for training only
    seen = fold_source("pascal-5i", 0, str(root), "train", download=True)
    assert [set(seen[k].masks) for k in range(len(seen))] == [{"dog"}, {"car"}]
    assert sorted(path.name for path in root.iterdir()) == ["VOCdevkit", "sbd"]
    pascal.asked.clear()
    fold_source("pascal-5i", 0, str(root), "train", download=True)
    assert pascal.asked == []


def test_coco_is_fetched_part_by_part(coco: Server, tmp_path: Path) -> None:
    root = tmp_path / "data"
    seen = fold_source("coco-20i", 0, str(root), "train", download=True)
    assert set(seen[0].masks) == {"bicycle"}
    assert set(coco.asked) == {"annotations.zip", "train2017.zip"}
    tested = fold_source("coco-20i", 0, str(root), "val", download=True)
    assert set(tested[0].masks) == {"person"}
    assert sorted(path.name for path in root.iterdir()) == ["annotations", "train2017", "val2017"]
    coco.asked.clear()
    fold_source("coco-20i", 0, str(root), "val", download=True)
    assert coco.asked == []


def test_an_interrupted_download_goes_on(pascal: Server, tmp_path: Path) -> None:
    whole = pascal.files["sbd.tgz"]
    pascal.files["sbd.tgz"] = whole[:-50]
    with pytest.raises(FileError, match=r"SBD could not be downloaded .*corrupted"):
        fold_source("pascal-5i", 0, str(tmp_path), "train", download=True)
    assert not (tmp_path / "sbd").exists()
    pascal.files["sbd.tgz"] = whole
    draft = tmp_path / download.DRAFT / "sbd"
    (draft / "cls").mkdir()  # another try ended in the middle of the unpacking
    (draft / "train.txt").write_text("half")
    (draft / "sbd.tgz").write_bytes(whole)
    pascal.asked.clear()
    assert len(fold_source("pascal-5i", 0, str(tmp_path), "train", download=True)) == 2
    assert pascal.asked == []  # neither VOC nor the complete archive again
    assert not (tmp_path / download.DRAFT).exists()


HOLDER = """
import sys
from pathlib import Path
from clsclip.training.download import _draft
with _draft(Path(sys.argv[1]), "COCO 2017 val") as draft:
    (draft / "val2017.zip").write_bytes(b"half")
    print("fetching", flush=True)
    sys.stdin.read()
"""
"""Another process that is in the middle of a download until it is killed."""


def test_one_process_at_a_time_fetches_a_data_set(
    coco: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "evaluate", "--dataset=coco-20i", f"--data={tmp_path}", "--download", "--device=cpu",
    ]  # fmt: skip
    half = tmp_path / download.DRAFT / "coco-2017-val" / "val2017.zip"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline().strip() == b"fetching"
            for _ in range(2):  # the first one that is refused leaves the lock where it is
                assert main(command) == 1
                assert f"downloaded into '{tmp_path}' by another process" in capsys.readouterr().err
            assert coco.asked == []
            assert half.read_bytes() == b"half"
            fold_source("coco-20i", 0, str(tmp_path), "train", download=True)  # another data set
        finally:
            other.kill()
    tested = fold_source("coco-20i", 0, str(tmp_path), "val", download=True)
    assert set(tested[0].masks) == {"person"}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "annotations", "train2017", "val2017",
    ]  # fmt: skip


def test_what_cannot_be_had_is_explained(
    coco: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    del coco.files["val2017.zip"]
    command = [
        "evaluate", "--dataset=coco-20i", f"--data={tmp_path}", "--download", "--device=cpu",
    ]  # fmt: skip
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "COCO 2017 val could not be downloaded" in said
    assert "404" in said
    monkeypatch.setitem(download._SPACE, "COCO 2017 val", 1e9)
    assert main(command) == 1
    assert "Make room" in capsys.readouterr().err


def test_annotations_that_are_there_are_kept(coco: Server, tmp_path: Path) -> None:
    fold_source("coco-20i", 0, str(tmp_path), "val", download=True)
    shutil.rmtree(tmp_path / "val2017")
    own = tmp_path / "annotations" / "instances_val2017.json"
    text = own.read_text().replace('"id": 1, "image_id"', '"id": 7, "image_id"')
    own.write_text(text)
    fold_source("coco-20i", 0, str(tmp_path), "val", download=True)
    assert own.read_text() == text
