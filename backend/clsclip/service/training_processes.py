"""Trainings as processes of their own: started, watched, ended, and found again.

A training outlives the backend that started it. All that is known of it is in its run directory, so
that the next backend knows as much. Nothing here loads torch.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from clsclip.config import BackendSettings
from clsclip.errors import (
    BusyError,
    ClsClipError,
    ConflictError,
    InvalidWordError,
    NotFoundError,
)
from clsclip.model.config import read_config
from clsclip.model.registry import active_model, find_model, list_models
from clsclip.model.run_state import CANCEL_FILE
from clsclip.model.versions import new_version, run_folders, settle, versions_folder
from clsclip.service.run_processes import (
    RunProcesses,
    ask_to_end,
    readable_records,
    write_record,
)
from clsclip.service.training_record import (
    LOG_FILE,
    RECORD_FILE,
    TrainingRecord,
    read_record,
    read_training,
    training_state,
)
from clsclip.store.store import DATABASE_VARIABLE, AnnotationStore, database_url, store_folder
from clsclip.typed_words import check_words
from clsclip.wire_training import Training, TrainingRequest
from clsclip.words import canonical

COMMAND: Final = (sys.executable, "-P", "-m", "clsclip.cli.train")
"""What runs a training; arguments of ``napari-clsclip-train`` follow."""

LAUNCHER: Final = (sys.executable, "-P", "-m", "torch.distributed.run", "--standalone")
"""What starts several processes on this machine that train together."""

_log = logging.getLogger(__name__)


class TrainingProcesses:
    """The trainings beside each other in the folder of versions. One runs at a time.

    Parameters
    ----------
    settings : BackendSettings
    command : sequence of str, optional
        What runs a training, before the arguments of ``napari-clsclip-train``; by default
        :func:`train_command`.
    """

    def __init__(self, settings: BackendSettings, command: Sequence[str] | None = None) -> None:
        self._settings = settings
        self._command = tuple(command or train_command(settings.training_processes))
        self._processes = RunProcesses("training", LOG_FILE, settle_or_warn)

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
        UnknownModelError, CheckpointError
        InvalidConfigError
            If the model cannot be taught.
        FileError, StoreError
        """
        words = check_words(request.words)
        folder = find_model(request.model)
        read_config(folder)
        images = _count(store, words)
        known = [model.name for model in list_models()]
        model = request.model if request.model in known else str(folder.absolute())
        with self._starting():
            run = new_version(model, known)
            record = TrainingRecord(
                words=words, model=model, minutes=request.minutes, note=request.note,
                started=datetime.now(UTC), store=str(store.folder.absolute()),
                device=self._settings.device, images=images,
            )  # fmt: skip
            write_record(run / RECORD_FILE, record)
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
        ask_to_end(run, training_state(run))
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
        records = readable_records(run_folders(), RECORD_FILE, TrainingRecord)
        found = [read_training(run, record, curve=False) for run, record in records]
        return tuple(sorted(found, key=lambda training: training.started, reverse=True))

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
        with self._processes.starting(versions_folder()):
            for training in self.list():
                if training.state == "running":
                    raise BusyError(
                        f"The training '{training.name}' runs, and one runs at a time. Wait for "
                        "its end, or cancel it: it keeps what is best so far."
                    )
            yield

    def _run(self, run: Path, record: TrainingRecord, seconds: float) -> None:
        """Start the process; ``seconds`` were worked on the run before."""
        command = [*self._command, *_arguments(run, record)]
        self._processes.start(run, command, self._environment(record), seconds)

    def _environment(self, record: TrainingRecord) -> dict[str, str]:
        """Which database it uses; not as an argument, for it may hold a password."""
        url = database_url(self._settings.database)
        same = str(store_folder(self._settings.store).absolute()) == record.store
        return {DATABASE_VARIABLE: url if same else ""}


def train_command(processes: int) -> tuple[str, ...]:
    """What runs a training in some processes; arguments of ``napari-clsclip-train`` follow."""
    if processes == 1:
        return COMMAND
    return (*LAUNCHER, f"--nproc-per-node={processes}", "--module", COMMAND[-1])


def _arguments(run: Path, record: TrainingRecord) -> list[str]:
    return [
        "finetune", "--resume", f"--output={run.absolute()}", f"--store={record.store}",
        f"--words={','.join(record.words)}", f"--model={record.model}",
        f"--minutes={record.minutes}", f"--device={record.device}",
    ]  # fmt: skip


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
