from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import httpx
import numpy as np
import pytest
from pydantic import Field

import clsclip
from clsclip.cli.arguments import add_settings, settings_from
from clsclip.config import BackendSettings, SegmentSettings, Settings
from clsclip.errors import InvalidConfigError
from clsclip.wire import (
    TOKEN_VARIABLE,
    HealthReport,
    ReadyLine,
    SegmentRequest,
    encode_segment_request,
)

COMMAND = [sys.executable, "-m", "clsclip.cli.backend"]
START_SECONDS = 120
STOP_SECONDS = 20.0


# ---- options from settings ----


class Every(Settings):
    """Every kind of field. And more text."""

    count: int = Field(3, title="Count", description="How many; 100% sure.", ge=1)
    rate: float | None = Field(None, description="Empty: chosen.")
    kind: Literal["a", "b"] = Field("a", description="Which.")
    size: tuple[int, int] = Field((4, 5), description="Height and width.")
    names: tuple[str, ...] = Field((), description="May be repeated.")
    fast: bool = Field(True, description="Be fast.")
    folder: Path = Field(description="Where.")


def parse(model: type[Settings], *arguments: str) -> Settings:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_settings(parser, model)
    return settings_from(parser.parse_args(arguments), model)


def test_defaults_are_those_of_the_fields() -> None:
    assert parse(BackendSettings) == BackendSettings()
    assert parse(SegmentSettings) == SegmentSettings()
    assert parse(Every, "--folder", "x") == Every(folder=Path("x"))


def test_every_kind_of_option() -> None:
    assert parse(
        Every, "--count", "7", "--rate", "0.5", "--kind", "b", "--size", "1", "2", "--names", "x",
        "--names", "y", "--no-fast", "--folder", "/data",
    ) == Every(
        count=7, rate=0.5, kind="b", size=(1, 2), names=("x", "y"), fast=False,
        folder=Path("/data"),
    )  # fmt: skip


def test_backend_options() -> None:
    settings = parse(
        BackendSettings, "--max-request-mb", "5", "--allowed-hosts", "a", "--allowed-hosts", "b",
        "--exit-with-parent",
    )  # fmt: skip
    assert settings == BackendSettings(
        max_request_mb=5, allowed_hosts=("a", "b"), exit_with_parent=True
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--port", "99999"), "--port 99999: .*65535"),
        (("--port", "http"), "--port http: .*integer"),
        (("--queue-size", "0"), "--queue-size 0: "),
    ],
)
def test_a_value_that_is_not_allowed_is_named(arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(InvalidConfigError, match=words):
        parse(BackendSettings, *arguments)


def test_help_shows_the_fields_texts_and_defaults() -> None:
    parser = argparse.ArgumentParser()
    add_settings(parser, Every)
    text = " ".join(parser.format_help().split())
    for part in ("Every kind of field. And more text:", "How many; 100% sure. (default: 3)",
                 "--kind {a,b}", "(default: 4 5)", "--names NAME ", "--fast, --no-fast",
                 "Empty: chosen. --"):  # fmt: skip
        assert part in text


# ---- the process ----


def environment(**variables: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != TOKEN_VARIABLE} | variables


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=START_SECONDS,
        env=environment(**variables), stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip


@contextlib.contextmanager
def running(
    *arguments: str, command: list[str] = COMMAND, **variables: str
) -> Iterator[tuple[subprocess.Popen[str], ReadyLine]]:
    with subprocess.Popen(
        [*command, *arguments], env=environment(**variables), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        late = threading.Timer(START_SECONDS, process.kill)
        late.start()
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            late.cancel()
            yield process, ReadyLine.model_validate_json(line)
        finally:
            late.cancel()
            process.kill()


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Rest of standard output, and standard error, of a process that is ending."""
    return process.communicate(timeout=STOP_SECONDS)


def get_health(url: str, token: str) -> httpx.Response:
    return httpx.get(
        f"{url}/v1/health", headers={"Authorization": f"Bearer {token}"}, trust_env=False
    )


def test_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout.strip()) == (0, clsclip.__version__)


def test_help_names_every_setting() -> None:
    done = run("--help")
    assert done.returncode == 0
    for name in BackendSettings.model_fields:
        assert f"--{name.replace('_', '-')}" in done.stdout
    assert "--token-file" in done.stdout


def assert_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """It ends with exit code 2 and one line that says why."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("napari-clsclip-backend: ")
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in last


def test_port_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert_refused(
            run("--port", str(port)),
            f"Port {port} on 127.0.0.1 is taken by another program. "
            "Choose another with --port, or --port 0 for a free one.",
        )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--host", "203.0.113.7"), ("203.0.113.7", "--host 127.0.0.1")),
        (("--host", "no.such.host.invalid"), ("no.such.host.invalid", "--host")),
        (("--port", "-1"), ("--port -1",)),
        (("--token-file", "no/such/file"), ("no/such/file",)),
        (("--device", "warp-drive"), ("warp-drive", "auto, cpu, cuda")),
    ],
)
def test_what_cannot_start(arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    assert_refused(run(*arguments), *words)


@pytest.mark.parametrize("token", ["", "two words", "tökén"])
def test_token_files_that_are_refused(tmp_path: Path, token: str) -> None:
    path = tmp_path / "token"
    path.write_text(f"{token}\n", encoding="utf-8")
    assert_refused(run("--token-file", str(path)), "token")


def test_a_generated_token_is_printed_with_the_address() -> None:
    with running("--device", "cpu") as (process, ready):
        assert process.stderr is not None
        told = process.stderr.readline()
        assert ready.url in told
        token = told.split()[-1]
        assert len(token) >= 32
        assert get_health(ready.url, token).status_code == 200
        assert get_health(ready.url, token[:-1]).status_code == 401
        process.send_signal(signal.SIGTERM)
        rest, log = finish(process)
        assert process.returncode == 0
    assert rest == "", "only one line belongs on standard output"
    assert token not in log


def test_a_token_file_goes_before_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("from-the-file\n", encoding="utf-8")
    with running(
        "--device", "cpu", "--host", "0.0.0.0", "--token-file", str(path),
        **{TOKEN_VARIABLE: "from-the-environment"},
    ) as (process, ready):  # fmt: skip
        assert ready.url.startswith("http://127.0.0.1:")
        assert get_health(ready.url, "from-the-environment").status_code == 401
        answer = get_health(ready.url, "from-the-file")
        assert HealthReport.model_validate_json(answer.content).pid == ready.pid == process.pid
        process.send_signal(signal.SIGINT)
        _, log = finish(process)
        assert process.returncode == 0
    assert "from-the-file" not in log
    assert "unencrypted" in log
    assert "--allowed-hosts" in log


def test_it_ends_when_standard_input_closes() -> None:
    with running("--device", "cpu", "--exit-with-parent", **{TOKEN_VARIABLE: "t"}) as (process, _):
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(STOP_SECONDS) == 0


STUCK = """
import sys, time
import clsclip.predict.predictor as predictor

class Stuck:
    def __init__(self, model, *, device):
        pass

    def segment(self, *args, **options):
        print("computing", flush=True)
        time.sleep(600)  # and never asks whether it was cancelled

predictor.Predictor = Stuck
from clsclip.cli.backend import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["signal", "parent"])
def test_a_computation_that_hangs_does_not_keep_it(how: str) -> None:
    def post(url: str) -> None:
        body = encode_segment_request(np.zeros((3, 3)), SegmentRequest(words=("cell",)))
        with contextlib.suppress(httpx.HTTPError):
            httpx.post(
                f"{url}/v1/segment?request_id=a", content=body, timeout=60, trust_env=False,
                headers={"Authorization": "Bearer t"},
            )  # fmt: skip

    command = [sys.executable, "-c", STUCK]
    with running(
        "--device", "cpu", "--exit-with-parent", command=command, **{TOKEN_VARIABLE: "t"}
    ) as (process, ready):
        threading.Thread(target=post, args=(ready.url,), daemon=True).start()
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "computing\n"
        if how == "signal":
            process.send_signal(signal.SIGTERM)
        else:
            process.stdin.close()
        assert process.wait(STOP_SECONDS) == 0


def test_it_ends_when_standard_input_closes_before_it_listens() -> None:
    done = run("--device", "cpu", "--exit-with-parent")  # with an empty standard input
    assert done.returncode == 0
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
