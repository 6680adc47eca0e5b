"""Trainings as processes of their own: started, watched, ended, and found again.

A training outlives the backend that started it. All that is known of it is in its run directory, so
that the next backend knows as much. Nothing here loads torch.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import psutil
from filelock import FileLock, Timeout

from clsclip.config import BackendSettings
from clsclip.errors import (
    BusyError,
    ClsClipError,
    ConflictError,
    FileError,
    InvalidWordError,
    NotFoundError,
)
from clsclip.model.registry import active_model, find_model, list_models
from clsclip.model.run_state import CANCEL_FILE, locked, write_process, write_state
from clsclip.model.versions import new_version, run_folders, settle, versions_folder
from clsclip.service.training_record import (
    LOG_FILE,
    TrainingRecord,
    read_record,
    read_training,
    write_record,
)
from clsclip.store.store import DATABASE_VARIABLE, AnnotationStore, database_url, store_folder
from clsclip.typed_words import check_words
from clsclip.wire_training import Training, TrainingRequest
from clsclip.words import canonical

COMMAND: Final = (sys.executable, "-P", "-m", "clsclip.cli.train")
"""What runs a training; arguments of ``napari-clsclip-train`` follow."""

NICENESS: Final = 10
"""By how much a training gives way to the backend that segments meanwhile (POSIX)."""

START_LOCK: Final = "start.lock"
START_SECONDS: Final = 10.0
"""How long to wait for another backend that starts a training."""

_log = logging.getLogger(__name__)


class TrainingProcesses:
    """The trainings beside each other in the folder of versions. One runs at a time.

    Parameters
    ----------
    settings : BackendSettings
    command : sequence of str, optional
        What runs a training, before the arguments of ``napari-clsclip-train``; by default
        :data:`COMMAND`.
    """

    def __init__(self, settings: BackendSettings, command: Sequence[str] | None = None) -> None:
        self._settings, self._command = settings, tuple(command or COMMAND)
        self._watchers: list[threading.Thread] = []

    def look(self) -> None:
        """Take note of what has happened while no backend was there."""
        settle_or_warn()
        active = active_model()
        if active.notice:
            _log.warning("%s", active.notice)
        for training in self.list():
            if training.state == "running":
                _log.info("The training '%s' runs", training.name)

    def start(self, request: TrainingRequest, store: AnnotationStore) -> Training:
        """Start a training that makes the next version of a model.

        Raises
        ------
        BusyError
            If a training runs.
        InvalidWordError, NotFoundError
            If a word cannot be one, or nothing was accepted for it.
        UnknownModelError
        FileError, StoreError
        """
        words = check_words(request.words)
        images = _count(store, words)
        folder = find_model(request.model)
        known = [model.name for model in list_models()]
        model = request.model if request.model in known else str(folder.absolute())
        with self._starting():
            run = new_version(model, known)
            record = TrainingRecord(
                words=words, model=model, minutes=request.minutes, note=request.note,
                started=datetime.now(UTC), store=str(store.folder.absolute()),
                device=self._settings.device, images=images,
            )  # fmt: skip
            write_record(run, record)
            self._run(run, record, 0.0)
        return read_training(run, record)

    def resume(self, name: str) -> Training:
        """Go on with a training that failed, broke off or was cancelled with nothing to keep.

        One that runs is left alone.

        Raises
        ------
        NotFoundError
        ConflictError
            If it has made its version, which changes no more.
        BusyError
            If another training runs.
        """
        run, record = self._find(name)
        training = read_training(run, record)
        if training.state == "running":
            return training
        if training.promoted is not None:
            raise ConflictError(
                f"The training '{name}' is over, and its version changes no more. Start another "
                f"training with the model '{name}' to go on from it."
            )
        with self._starting():
            (run / CANCEL_FILE).unlink(missing_ok=True)
            self._run(run, record, training.seconds)
        return read_training(run, record)

    def cancel(self, name: str) -> Training:
        """Ask a training to end with what is best so far; it may take a while to hear of it.

        Raises
        ------
        NotFoundError, FileError
        """
        run, record = self._find(name)
        training = read_training(run, record, curve=False)
        try:
            if training.state == "running":
                (run / CANCEL_FILE).touch()
            elif training.state == "interrupted":
                with contextlib.suppress(BusyError), locked(run):  # or somebody has gone on
                    write_state(run, "cancelled", training.reason, training.seconds)
        except OSError as error:
            raise FileError(f"'{run / CANCEL_FILE}' cannot be written ({error}).") from error
        return read_training(run, record)

    def get(self, name: str) -> Training:
        """How one training stands.

        Raises
        ------
        NotFoundError
        """
        return read_training(*self._find(name))

    def list(self) -> tuple[Training, ...]:
        """All trainings without their curves, the newest first."""
        found = [read_training(run, record, curve=False) for run, record in self._records()]
        return tuple(sorted(found, key=lambda training: training.started, reverse=True))

    def _records(self) -> Iterator[tuple[Path, TrainingRecord]]:
        for run in run_folders():
            try:
                record = read_record(run)
            except ClsClipError as error:
                _log.warning("%s", error.message)
                continue
            if record is not None:
                yield run, record

    def _find(self, name: str) -> tuple[Path, TrainingRecord]:
        run = versions_folder() / name
        record = read_record(run) if run in run_folders() else None
        if record is None:
            raise NotFoundError(
                f"There is no training '{name}' in '{versions_folder()}'. List them to see what "
                "there is."
            )
        return run, record

    @contextlib.contextmanager
    def _starting(self) -> Iterator[None]:
        """No other backend starts a training meanwhile, and none runs."""
        folder = versions_folder()
        lock = FileLock(folder / START_LOCK)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=START_SECONDS)
        except Timeout as error:
            raise BusyError("Another training is being started. Try again in a moment.") from error
        except OSError as error:
            raise FileError(f"The folder '{folder}' cannot be written ({error}).") from error
        try:
            for training in self.list():
                if training.state == "running":
                    raise BusyError(
                        f"The training '{training.name}' runs, and one runs at a time. Wait for "
                        "its end, or cancel it: it keeps what is best so far."
                    )
            yield
        finally:
            lock.release()

    def _run(self, run: Path, record: TrainingRecord, seconds: float) -> None:
        """Start the process; ``seconds`` were worked on the run before."""
        write_state(run, "running", seconds=seconds)
        try:
            with (run / LOG_FILE).open("ab") as log:
                process = subprocess.Popen(  # noqa: S603 - our own module
                    [*self._command, *_arguments(run, record)],
                    env=self._environment(record), stdin=subprocess.DEVNULL, stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=os.name == "posix",  # what ends the backend does not end it
                    creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0)
                    | getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
                    | getattr(subprocess, "BELOW_NORMAL_PRIORITY_CLASS", 0),
                )  # fmt: skip
        except OSError as error:
            message = f"The training cannot be started ({error}). Make room, and resume it."
            write_state(run, "failed", message, seconds)
            raise FileError(message) from error
        write_process(run, process.pid)
        if os.name == "posix":
            with contextlib.suppress(psutil.Error):  # it has ended already, and its log says why
                psutil.Process(process.pid).nice(min(psutil.Process().nice() + NICENESS, 19))
        watcher = threading.Thread(
            target=_watch, args=(process, run), name=f"training {run.name}", daemon=True
        )
        watcher.start()
        self._watchers = [each for each in self._watchers if each.is_alive()] + [watcher]

    def _environment(self, record: TrainingRecord) -> dict[str, str]:
        environment = {**os.environ, "PYTHONIOENCODING": "utf-8", "TQDM_DISABLE": "1"}
        # Threads that wait for work actively would take the processor from who segments.
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
        environment.pop(DATABASE_VARIABLE, None)
        url = database_url(self._settings.database)
        if url and str(store_folder(self._settings.store).absolute()) == record.store:
            environment[DATABASE_VARIABLE] = url  # not as an argument: it may hold a password
        return environment


def _arguments(run: Path, record: TrainingRecord) -> list[str]:
    return [
        "finetune", "--resume", f"--output={run.absolute()}", f"--store={record.store}",
        f"--words={','.join(record.words)}", f"--model={record.model}",
        f"--minutes={record.minutes}", f"--device={record.device}",
    ]  # fmt: skip


def _watch(process: subprocess.Popen[bytes], run: Path) -> None:
    """Wait for the end of a training, so that it leaves no trace but its run directory."""
    code = process.wait()
    _log.info("The training '%s' has ended with exit code %d", run.name, code)
    settle_or_warn()


def settle_or_warn() -> None:
    """Make promoted versions active; a backend whose records cannot be written can still work."""
    try:
        settle()
    except ClsClipError as error:
        _log.warning("%s", error.message)


def _count(store: AnnotationStore, words: tuple[str, ...]) -> int:
    """How many annotations there are of some words.

    Raises
    ------
    InvalidWordError, NotFoundError
        If a word is none, or nobody has accepted anything for it.
    """
    known = store.words()
    spelled: list[str] = []
    for word in words:
        if "," in word:
            raise InvalidWordError(f"The word '{word}' holds a comma, which parts words.")
        found = [each for each in known if canonical(each) == canonical(word)]
        if not found:
            raise NotFoundError(
                f"Nothing was accepted for '{word}' yet, only for "
                f"{', '.join(known) or 'no word at all'}. Correct some images, and accept them."
            )
        spelled += found
    return len(store.asked(spelled))
