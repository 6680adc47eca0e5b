"""Versions of a model: names, what is active, going back, and damage."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clsclip.config import DEFAULT_MODEL
from clsclip.errors import FileError, UnknownModelError
from clsclip.model import registry, versions
from clsclip.model.registry import active_model, find_model, list_models
from clsclip.model.report import Figures, Report, WordFigures
from clsclip.model.run_state import Outcome, write_state
from clsclip.model.versions import VERSIONS_VARIABLE, activate, new_version, settle
from clsclip.wire import ErrorAnswer
from clsclip.wire_training import VersionList

Make = Callable[..., Path]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VERSIONS_VARIABLE, str(tmp_path / "versions"))
    monkeypatch.setattr(registry, "user_models", lambda: tmp_path / "models")
    return tmp_path / "versions"


@pytest.fixture
def make(tiny_model: Path) -> Make:
    """Make what a training leaves behind: ``make(promoted, state)``."""

    def made(promoted: bool = True, state: Outcome = "done", model: str = DEFAULT_MODEL) -> Path:
        run = new_version(model)
        shutil.copytree(tiny_model, run, dirs_exist_ok=True)
        before, after = (
            Figures(
                miou=miou, fb_iou=miou, per_word={"blob": WordFigures(miou=miou, fb_iou=miou)},
                old_words={"cell": WordFigures(miou=0.5, fb_iou=0.5)},
            )
            for miou in (0.1, 0.7)
        )  # fmt: skip
        report = Report(
            model=model, model_version="0", words=("blob",), before=before, after=after,
            promoted=promoted, reason="Better.", held_out=("a",), learnt_from=4, steps=9,
            best_step=9, part=1.0, seconds=3.0,
        )  # fmt: skip
        (run / "report.json").write_text(report.model_dump_json())
        write_state(run, state, "Better.", 3.0)
        return run

    return made


def active() -> tuple[str, str]:
    settle()
    found = active_model()
    return found.name, found.back


def test_names_are_given_once(folder: Path, make: Make, tiny_model: Path) -> None:
    assert new_version(DEFAULT_MODEL).name == "mini-v2"
    third = make(model="mini-v2")
    assert third.name == "mini-v3"
    shutil.rmtree(third)
    assert new_version("mini").name == "mini-v4"
    assert new_version("mini", taken=["mini-v7", "other-v9"]).name == "mini-v8"
    assert new_version(str(tiny_model)).name == "tiny-v2"
    assert new_version("/some where/ä b-v3").name == "b-v3-v2"
    assert new_version("/").name == "mini-v9"
    (folder / "active.json").unlink()
    assert new_version("mini").name == "mini-v10"  # folders count too


def test_many_take_names_at_a_time() -> None:
    taken: list[str] = []
    threads = [
        threading.Thread(target=lambda: taken.append(new_version("mini").name)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(f"mini-v{n}" for n in range(2, 10))


def test_a_finished_run_is_a_model_by_its_name(make: Make) -> None:
    done, running, cancelled, failed = (
        make(state=state) for state in ("done", "running", "cancelled", "failed")
    )
    for run in (done, cancelled):
        assert find_model(run.name) == run
    for run in (running, failed):
        with pytest.raises(UnknownModelError, match=run.name):
            find_model(run.name)
    settle()
    names = [model.name for model in list_models()]
    assert names[0] == cancelled.name  # the active one
    assert {DEFAULT_MODEL, done.name} <= set(names)
    assert not {running.name, failed.name} & set(names)


def test_a_promoted_version_becomes_active_once(make: Make) -> None:
    assert active() == (DEFAULT_MODEL, "")
    second = make()
    assert active() == (second.name, DEFAULT_MODEL)
    activate(DEFAULT_MODEL)
    assert active() == (DEFAULT_MODEL, "")  # and not active again by itself
    third = make(promoted=False)
    assert active() == (DEFAULT_MODEL, "")
    activate(third.name)
    assert active() == (third.name, DEFAULT_MODEL)


def test_going_back_step_by_step(make: Make) -> None:
    names = [make().name for _ in range(3)]
    assert active() == (names[2], names[1])
    activate(names[2])
    assert active() == (names[2], names[1])
    activate(names[1])
    assert active() == (names[1], names[0])
    activate(names[0])
    activate(DEFAULT_MODEL)
    assert active() == (DEFAULT_MODEL, "")
    activate(names[2])
    activate(names[0])
    assert active() == (names[0], names[2])


def test_a_run_that_ends_later(make: Make) -> None:
    run = make(state="running")
    assert active() == (DEFAULT_MODEL, "")
    write_state(run, "done")
    assert active()[0] == run.name


def test_many_settle_at_a_time(make: Make, folder: Path) -> None:
    made = make()
    threads = [threading.Thread(target=settle) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert json.loads((folder / "active.json").read_text())["history"] == [made.name]


@pytest.mark.parametrize("content", [b"", b"{", b'{"history": 3}', b"\xff\x00", b'{"more": 1}'])
def test_damaged_records(make: Make, folder: Path, content: bytes) -> None:
    second, third = make(), make()
    assert active()[0] == third.name
    (folder / "active.json").write_bytes(content)
    assert active() == (DEFAULT_MODEL, "")
    assert "active.json' cannot be read" in active_model().notice
    assert {model.name for model in list_models()} >= {second.name, third.name}
    activate(third.name)
    assert active() == (third.name, DEFAULT_MODEL)
    assert active_model().notice == ""


def _no_weights(run: Path) -> None:
    (run / "model.safetensors").unlink()


def _no_config(run: Path) -> None:
    (run / "config.json").unlink()


def _bad_config(run: Path) -> None:
    (run / "config.json").write_text("{")


def _bad_state(run: Path) -> None:
    (run / "state.json").write_text("{")


@pytest.mark.parametrize("spoil", [_no_weights, _no_config, _bad_config, _bad_state, shutil.rmtree])
def test_a_damaged_version_leaves_those_before(make: Make, spoil: Callable[[Path], None]) -> None:
    second, third = make(), make()
    assert active()[0] == third.name
    spoil(third)
    assert active() == (second.name, DEFAULT_MODEL)
    assert f"'{third.name}' that was active cannot be used" in active_model().notice
    assert list_models()[0].name == second.name


def test_a_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("where the folder should be")
    monkeypatch.setenv(VERSIONS_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(FileError, match=VERSIONS_VARIABLE):
        new_version("mini")
    assert active()[0] == DEFAULT_MODEL
    assert DEFAULT_MODEL in [model.name for model in list_models()]


def test_the_user_s_folder_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VERSIONS_VARIABLE)
    assert versions.versions_folder().name == "versions"
    assert versions.versions_folder().parent.name == "napari-clsclip"


# ---- the routes ----


def test_versions_over_the_wire(serve: Any, gated: Any, make: Make) -> None:
    second, third = make(), make(promoted=False)
    service = serve(gated)

    def listed(answer: Any) -> VersionList:
        assert answer.status_code == 200
        return VersionList.model_validate_json(answer.content)

    found = listed(service.http.get("/v1/versions"))
    assert (found.active, found.back, found.notice) == (second.name, DEFAULT_MODEL, "")
    assert {version.name for version in found.versions[:2]} == {second.name, third.name}
    assert found.versions[2].name == DEFAULT_MODEL
    version = next(each for each in found.versions if each.name == second.name)
    assert (version.parent, version.words, version.promoted) == (DEFAULT_MODEL, ("blob",), True)
    assert version.created is not None
    changes = {change.word: (change.before, change.after, change.learnt)
               for change in version.changes}  # fmt: skip
    assert changes == {"blob": (0.1, 0.7, True), "cell": (0.5, 0.5, False)}
    chosen = service.http.put("/v1/versions/active", json={"name": third.name})
    assert (listed(chosen).active, listed(chosen).back) == (third.name, second.name)
    models = service.http.get("/v1/models").json()["models"]
    assert [model["name"] for model in models][:2] == [third.name, DEFAULT_MODEL]
    back = listed(service.http.put("/v1/versions/active", json={"name": second.name}))
    assert (back.active, back.back) == (second.name, DEFAULT_MODEL)
    _no_config(third)
    damaged = {v.name: v for v in listed(service.http.get("/v1/versions")).versions}[third.name]
    assert not damaged.available
    assert "missing" in damaged.reason
    for name, status, code in (
        ("no-such", 404, "unknown_model"), ("../mini", 404, "unknown_model"),
        (third.name, 404, "unknown_model"),
    ):  # fmt: skip
        answer = service.http.put("/v1/versions/active", json={"name": name})
        assert answer.status_code == status
        assert ErrorAnswer.model_validate_json(answer.content).error.code == code
