"""Programs that are started as a backend and are none."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clsclip.errors import (
    BackendStartError,
)
from clsclip.wire import TOKEN_VARIABLE
from napari_clsclip._launcher import TAIL_LINES, LocalBackend
from waiting import PATIENCE, eventually


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], str]:
    """Write a program that takes the place of the Python interpreter."""

    def write(code: str) -> str:
        if os.name != "posix":
            pytest.skip("needs executable scripts")
        path = tmp_path / "python"
        path.write_text(f"#!{sys.executable}\n{code}\n", encoding="utf-8")
        path.chmod(0o755)
        return str(path)

    return write


def local_backend(python: str, folder: Path, seconds: float = PATIENCE) -> LocalBackend:
    return LocalBackend("cpu", python=python, start_seconds=seconds, log_folder=folder)


def test_no_interpreter(tmp_path: Path) -> None:
    local = local_backend(str(tmp_path / "missing"), tmp_path)
    with pytest.raises(BackendStartError, match="missing"):
        local.start()
    assert not local.alive
    local.stop()


def test_a_process_that_ends_at_once(program: Any, tmp_path: Path) -> None:
    code = "import sys; sys.stderr.write('no module named clsclip\\n'); sys.exit(7)"
    local = local_backend(program(code), tmp_path)
    with pytest.raises(BackendStartError, match=r"(?s)exit code 7.*no module named clsclip"):
        local.start()
    assert local.exit_code == 7


def test_a_process_that_prints_garbage_and_ends(program: Any, tmp_path: Path) -> None:
    code = "import sys; sys.stdout.buffer.write(b'\\xff{}\\n[1]\\n' + b'x' * 9000)"
    local = local_backend(program(code), tmp_path)
    with pytest.raises(BackendStartError, match="exit code 0"):
        local.start()
    assert "[1]" in local.log_tail()


def test_a_process_that_never_listens(program: Any, tmp_path: Path) -> None:
    code = "import time\nwhile True: print('garbage', flush=True); time.sleep(0.01)"
    local = local_backend(program(code), tmp_path, seconds=1.0)
    started = time.monotonic()
    with pytest.raises(BackendStartError, match=r"(?s)within 1 s.*garbage"):
        local.start()
    assert time.monotonic() - started < 8.0
    assert local.exit_code is not None


@pytest.mark.slow
def test_a_process_that_will_not_go(program: Any, tmp_path: Path) -> None:
    code = (
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        'print(\'{"url": "http://127.0.0.1:9", "pid": 1}\', flush=True)\n'
        "time.sleep(600)"
    )
    local = local_backend(program(code), tmp_path)
    local.start()
    assert local.alive
    local.stop()
    assert local.exit_code == -signal.SIGKILL


def test_lines_before_the_ready_line_are_passed_over(program: Any, tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "print('a library says hello')\n"
        'print(\'{"url": "http://127.0.0.1:9", "pid": 4}\', flush=True)\n'
        f"sys.stderr.write(os.environ['{TOKEN_VARIABLE}'] + '\\n')\n"
        f"for n in range({TAIL_LINES + 50}): sys.stderr.write(f'line {{n}}\\n')\n"
        "sys.stderr.flush(); sys.stdin.read()"
    )
    local = local_backend(program(code), tmp_path)
    local.start()
    assert (local.url, local.pid) == ("http://127.0.0.1:9", 4)
    last = f"line {TAIL_LINES + 49}"
    eventually(lambda: local.log_tail().endswith(last))
    assert len(local.log_tail().splitlines()) == TAIL_LINES
    local.stop()
    assert local.exit_code == 0
    logs = list(tmp_path.glob("backend-*.log"))
    written = logs[0].read_text(encoding="utf-8")
    assert "a library says hello" in written
    assert local.token in written, "the program got another token than the launcher keeps"
    assert last in written


def test_old_logs_are_removed(program: Any, tmp_path: Path) -> None:
    for number in range(20):
        path = tmp_path / f"backend-{number}.log"
        path.write_text("old")
        os.utime(path, (number, number))
    local = local_backend(program("pass"), tmp_path)
    with pytest.raises(BackendStartError):
        local.start()
    kept = {path.name for path in tmp_path.glob("backend-*.log")}
    assert len(kept) == 10
    assert "backend-19.log" in kept
    assert "backend-0.log" not in kept


def test_a_log_folder_that_cannot_be_written(program: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    local = local_backend(program("print('hello')"), tmp_path / "file")
    with pytest.raises(BackendStartError, match="hello"):
        local.start()
    assert "No log file" in local.log_tail()


def test_many_starts_and_stops_at_once(program: Any, tmp_path: Path) -> None:
    code = 'import sys; print(\'{"url": "http://h:1", "pid": 4}\', flush=True); sys.stdin.read()'
    local = local_backend(program(code), tmp_path)
    starts = [threading.Thread(target=local.start) for _ in range(5)]
    for thread in starts:
        thread.start()
    for thread in starts:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert local.alive
    assert len(list(tmp_path.glob("backend-*.log"))) == 1, "more than one process was started"
    stops = [threading.Thread(target=local.stop) for _ in range(5)]
    for thread in stops:
        thread.start()
    for thread in stops:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert local.exit_code == 0
