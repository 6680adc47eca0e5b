"""Models of the hub; a local server stands in for the hub (see tests/stub_hub.py)."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from clsclip.errors import (
    BusyError,
    CancelledError,
    FileError,
    ModelUnavailableError,
    UnknownModelError,
)
from clsclip.model import hub_files, hub_models, registry
from clsclip.model.hub_models import HUB_MODELS, cached_folder, download
from stub_hub import (
    HEAD_COMMIT,
    MODEL,
    PIECE,
    WEIGHTS,
    HubStub,
    hub_environment,
    hub_in_this_process,
)
from waiting import eventually


@pytest.fixture
def stub() -> Iterator[HubStub]:
    server = HubStub()
    yield server
    server.stop()


@pytest.fixture
def cache(stub: HubStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The cache of huggingface_hub in this process, which asks the stub; it is empty."""
    monkeypatch.setattr(hub_files, "RETRY_SECONDS", 0.01)
    with hub_in_this_process(stub, tmp_path / "hub") as cache:
        yield cache


def weights(cache: Path, ending: str = "") -> list[Path]:
    """Large files among the contents in the cache, also unfinished ones."""
    blobs = cache.glob(f"models--*/blobs/*{ending}")
    return [file for file in blobs if file.stat().st_size >= PIECE]


def test_what_is_fetched(stub: HubStub, cache: Path) -> None:
    assert cached_folder("clipseg") is None
    told: list[tuple[int, int]] = []
    folder = download("clipseg", lambda done, total: told.append((done, total)))
    assert folder == cached_folder("clipseg")
    assert folder.name == MODEL.revisions[0]
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
        name: stub.files[name] for name in MODEL.files
    }
    total = sum(len(stub.files[name]) for name in MODEL.files)
    assert {part[1] for part in told} == {total}
    assert [part[0] for part in told] == sorted(part[0] for part in told)
    assert told[-1] == (total, total)
    assert len(told) > 20  # the weights come in 24 pieces
    assert "pytorch_model.bin" not in stub.fetched()

    asked = len(stub.seen)
    assert download("clipseg") == folder
    assert len(stub.seen) == asked


def test_what_another_program_has_fetched_is_there(stub: HubStub, cache: Path) -> None:
    from huggingface_hub import hf_hub_download

    for name in MODEL.files:
        folder = Path(hf_hub_download(MODEL.repo, name)).parent
    assert folder.name == HEAD_COMMIT
    assert cached_folder("clipseg") == folder
    (folder / WEIGHTS).unlink()
    assert cached_folder("clipseg") is None
    asked = len(stub.fetched())
    download("clipseg")  # the content is still there: nothing large is fetched again
    assert WEIGHTS not in stub.fetched()[asked:]


def test_an_interrupted_download_goes_on(stub: HubStub, cache: Path) -> None:
    stub.gate.clear()
    cancelled, errors, told = threading.Event(), [], [0]

    def run() -> None:
        try:
            download("clipseg", lambda done, _: told.append(done), cancelled)
        except CancelledError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    eventually(lambda: told[-1] > PIECE + 1000)
    with pytest.raises(BusyError, match="Another process is fetching the model 'clipseg'"):
        download("clipseg")
    cancelled.set()
    stub.gate.set()
    thread.join(20)
    assert "goes on from here" in str(errors[0])
    assert cached_folder("clipseg") is None
    (draft,) = weights(cache, ".incomplete")
    have = draft.stat().st_size
    assert PIECE <= have < len(stub.files[WEIGHTS])

    download("clipseg")
    assert stub.seen[-2][1:] == (f"/content/{WEIGHTS}", f"bytes={have}-")  # a HEAD follows
    assert [file.read_bytes() for file in weights(cache)] == [stub.files[WEIGHTS]]


def test_a_killed_download_goes_on(stub: HubStub, cache: Path) -> None:
    stub.gate.clear()
    code = "from clsclip.model.hub_models import download; download('clipseg')"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, **hub_environment(stub, cache.parent)},
    )
    eventually(lambda: weights(cache, ".incomplete"))
    process.kill()
    process.wait()
    stub.gate.set()
    (draft,) = weights(cache, ".incomplete")
    have = draft.stat().st_size
    folder = download("clipseg")
    assert ("GET", f"/content/{WEIGHTS}", f"bytes={have}-") in stub.seen
    assert (folder / WEIGHTS).read_bytes() == stub.files[WEIGHTS]


def test_connections_that_break(stub: HubStub, cache: Path) -> None:
    stub.cut_after = 5
    download("clipseg")
    assert [part for _, path, part in stub.seen if path.startswith("/content") and part] == [
        f"bytes={number * PIECE}-" for number in (5, 10, 15, 20)
    ]


def test_a_server_without_ranges_sends_all_again(stub: HubStub, cache: Path) -> None:
    stub.cut_after, stub.ranges = 5, False
    with pytest.raises(ModelUnavailableError, match=f"'{WEIGHTS}' did not come: "):
        download("clipseg")
    stub.cut_after = 0
    folder = download("clipseg")
    assert (folder / WEIGHTS).read_bytes() == stub.files[WEIGHTS]


def test_content_that_was_changed_on_the_way(stub: HubStub, cache: Path) -> None:
    stub.broken = True
    with pytest.raises(ModelUnavailableError, match="its SHA-256 is another"):
        download("clipseg")
    assert not weights(cache)
    stub.broken = False
    assert (download("clipseg") / WEIGHTS).read_bytes() == stub.files[WEIGHTS]


def test_a_draft_that_is_not_of_this_file(stub: HubStub, cache: Path) -> None:
    stub.gate.clear()
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(CancelledError):
        download("clipseg", cancelled=cancelled)
    digest = hashlib.sha256(stub.files[WEIGHTS]).hexdigest()
    draft = cache / f"models--{MODEL.repo.replace('/', '--')}" / "blobs" / f"{digest}.incomplete"
    draft.write_bytes(b"x" * len(stub.files[WEIGHTS]) + b"too long")
    stub.gate.set()
    with pytest.raises(ModelUnavailableError, match="not what the hub has"):
        download("clipseg")
    assert (download("clipseg") / WEIGHTS).read_bytes() == stub.files[WEIGHTS]


def test_a_revision_that_is_gone(stub: HubStub, cache: Path) -> None:
    del stub.revisions[MODEL.revisions[0]]
    folder = download("clipseg")
    assert folder.name == HEAD_COMMIT
    assert cached_folder("clipseg") == folder


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("no weights", "no revision of 'CIDAS/clipseg-rd64-refined' with config.json"),
        ("no such repository", "does not say what 'CIDAS/clipseg-rd64-refined' holds"),
        ("down", "holds (status 500)"),
        ("offline", "Unset HF_HUB_OFFLINE"),
        ("nobody", "HF_ENDPOINT"),
    ],
)
def test_why_a_model_cannot_be_had(
    stub: HubStub, cache: Path, monkeypatch: pytest.MonkeyPatch, fault: str, words: str
) -> None:
    if fault == "no weights":
        del stub.files[WEIGHTS]
    elif fault in ("no such repository", "down"):
        stub.status = 404 if fault == "no such repository" else 500
    elif fault == "offline":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    else:
        stub.stop()
    with pytest.raises(ModelUnavailableError) as caught:
        download("clipseg")
    message = caught.value.message
    assert message.startswith("The model 'clipseg' cannot be fetched. ")
    assert words in message
    assert "copy 'models--CIDAS--clipseg-rd64-refined' from the hub cache" in message
    assert str(cache) in message


def test_no_room_and_no_rights(stub: HubStub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1_000_000})())
        with pytest.raises(FileError, match=r"room for 1 MB, and 2 MB are needed. Make room"):
            download("clipseg")
    with monkeypatch.context() as patch:
        patch.setattr("clsclip.model.hub_files.flush", _full)
        with pytest.raises(FileError, match=r"No space left.*what has come is kept"):
            download("clipseg")
    cache.rename(cache.with_name("moved"))
    cache.write_bytes(b"a file is in the way")
    assert cached_folder("clipseg") is None
    with pytest.raises(FileError, match="Models cannot be written to"):
        download("clipseg")


def _full(file: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))


def test_the_registry(stub: HubStub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "user_models", lambda: cache.parent / "models")
    listed = registry.list_models()
    assert listed[-1].name == "clipseg"
    assert not listed[-1].available
    assert listed[-1].reason is not None
    assert "605 MB, Apache-2.0" in listed[-1].reason
    with pytest.raises(ModelUnavailableError, match=r"605 MB.*download --model clipseg"):
        registry.find_model("clipseg")
    with pytest.raises(UnknownModelError, match="clipseg"):
        registry.find_model("clipsegg")
    with pytest.raises(UnknownModelError, match="there is clipseg"):
        download("mini")
    folder = download("clipseg")
    assert registry.find_model("clipseg") == folder
    assert [model.available for model in registry.list_models() if model.name == "clipseg"] == [
        True
    ]

    own = cache.parent / "models" / "clipseg"  # a model of the user comes first
    own.mkdir(parents=True)
    (own / "config.json").write_text("{}")
    assert registry.find_model("clipseg") == own
    assert [model.name for model in registry.list_models()].count("clipseg") == 1


def test_the_command(stub: HubStub, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from clsclip.cli.train import CANCELLED, main

    stub.gate.clear()

    def press_ctrl_c() -> None:
        assert stub.at_gate.wait(20)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    threading.Thread(target=press_ctrl_c).start()
    assert main(["download"]) == CANCELLED
    told = capsys.readouterr().err
    assert "'clipseg' is CIDAS/clipseg-rd64-refined of the Hugging Face hub: 605 MB" in told
    assert "The same command goes on from here." in told
    stub.gate.set()
    assert main(["download", "--model", "clipseg"]) == 0
    printed, told = capsys.readouterr()
    assert printed.strip() == str(cached_folder("clipseg"))
    assert "1.57M/1.57M" in told
    assert main(["download", "--model", "mini"]) == 1
    assert "'mini' is no model that is fetched" in capsys.readouterr().err
    stub.status = 500
    assert main(["download"]) == 0  # it is there


def test_the_table() -> None:
    for name, model in HUB_MODELS.items():
        assert name == name.lower()
        assert not any(file.endswith((".bin", ".h5", ".msgpack")) for file in model.files)
        assert hub_models.hub_model(name) is model
