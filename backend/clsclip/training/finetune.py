"""Teach a model a word from a few corrected images, and find out whether it got better (ours).

The words get a head of their own, a copy of the one that answered for them: its projections L^i and
decoder move, CLIP stays frozen, and all other words are answered as before
(:mod:`clsclip.model.word_heads`). Views of the corrected images are mixed with drawn scenes
(:mod:`clsclip.training.replay`). Some images are held out: by them the best state of the run is
chosen, and the new version is promoted or not. Several processes may train together, see
:mod:`clsclip.training.distributed`: the leading one calls :func:`finetune`, the others
:func:`assist`.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch

from clsclip.errors import CancelledError, ClsClipError, DeviceError, FileError
from clsclip.model.checkpoint import save_run_model
from clsclip.model.clsclip import ClsClip
from clsclip.model.config import DETECTOR_FOLDER, read_config
from clsclip.model.files import write_atomically
from clsclip.model.registry import find_model
from clsclip.model.report import REPORT_FILE, Figures, Report
from clsclip.model.run_state import (
    CANCEL_FILE,
    METRICS_FILE,
    Outcome,
    RunState,
    locked,
    read_process,
    read_state,
    write_state,
)
from clsclip.model.word_heads import WordHead, head_like, with_word_head
from clsclip.predict.predictor import Predictor
from clsclip.store.schema import without_password
from clsclip.store.store import store_folder
from clsclip.training.checks import LOOKED_AT, Checks, mildest
from clsclip.training.corrections import Correction
from clsclip.training.distributed import ProcessGroup, alone
from clsclip.training.finetune_settings import FinetuneSettings
from clsclip.training.holdout import Question, judge, known_questions, measure
from clsclip.training.run import RUN_FILE, STATE_FILE, Clock, Run
from clsclip.training.taught import TAUGHT, Taught
from clsclip.training.word_training import WordTraining, read_lesson
from clsclip.words import canonical

REPEATED: Final = 6
"""Images of earlier lessons by which it is measured what gets lost."""


def finetune(
    settings: FinetuneSettings,
    output: Path,
    *,
    resume: bool = False,
    tell: Callable[[str], None] = lambda _: None,
    cancelled: Callable[[], bool] = lambda: False,
    group: ProcessGroup | None = None,
) -> Report:
    """Train, compare with the older model, and make the run directory a model directory.

    ``state.json`` says at any time how the run stands, see
    :func:`clsclip.model.run_state.read_state`.

    Parameters
    ----------
    settings : FinetuneSettings
    output : Path
        Run directory.
    resume : bool
        Go on with the run that is there. One that is done is left as it is.
    tell : callable
        Takes a line of progress now and then.
    cancelled : callable
        Asked between steps; an answer of True ends the run with what is best so far. So does a
        file ``cancel`` in the run directory.
    group : ProcessGroup, optional
        The processes that train it together, all others by :func:`assist`; by default, this one is
        alone.

    Returns
    -------
    Report

    Raises
    ------
    BusyError
        If another process trains into the directory.
    FileError, InvalidConfigError, CheckpointError, UnknownModelError, ModelUnavailableError
        For corrections, settings, runs or models that cannot be used.
    DeviceError
        If the device is not there or has too little memory.
    DivergedError
        If the loss is not finite.
    CancelledError
        If it was cancelled before there was anything to keep.
    """
    group = group or alone(settings.device)
    with locked(output):
        session = _Session(output, tell, lambda: cancelled() or (output / CANCEL_FILE).exists())
        before = read_state(output)
        if before is not None and not resume and not (output / STATE_FILE).exists():
            for name in (RUN_FILE, METRICS_FILE):  # it never came to a checkpoint: start anew
                (output / name).unlink(missing_ok=True)
        run = Run(output, _public(settings), resume=resume)
        if before is not None and before.state == "done" and resume:
            tell(f"The run in '{output}' is over.")
            group.agree(False)  # nothing to train
            return Report.model_validate_json((output / REPORT_FILE).read_bytes())
        if before is not None and resume:
            session.earlier = before.seconds + _starting_time(output, before)
        session.write("running")
        try:
            report = _finetune(settings, run, session, group)
        except CancelledError as error:
            session.write("cancelled", error.message)
            raise
        except (torch.OutOfMemoryError, MemoryError) as error:
            shortage = DeviceError(
                "The memory ran out in training. Close other programs, train on another device, or "
                "on the command line give a smaller --batch-size (with --accumulate for as many "
                "views per step)."
            )
            session.write("failed", shortage.message)
            raise shortage from error
        except Exception as error:
            known = isinstance(error, ClsClipError)
            session.write("failed", str(error) if known else f"{type(error).__name__}: {error}")
            raise
        session.write("cancelled" if session.cancelled() else "done", report.reason)
        return report


def _public(settings: FinetuneSettings) -> FinetuneSettings:
    """The settings as they may be written into files."""
    changes = {"database": without_password(settings.database)}
    if not settings.folders:
        changes["store"] = str(store_folder(settings.store).absolute())
    return settings.model_copy(update=changes)


def _starting_time(output: Path, before: RunState) -> float:
    """Seconds since somebody noted that this process was started to work on the run."""
    started = read_process(output)
    mine = started is not None and started.pid == os.getpid() and before.state == "running"
    return max(0.0, time.time() - before.time) if mine else 0.0


@dataclass
class _Session:
    """What one process does for a run: it reports, may be cancelled, and measures its time."""

    output: Path
    tell: Callable[[str], None]
    cancelled: Callable[[], bool]
    earlier: float = 0.0
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Time worked on the run, over all its sessions."""
        return self.earlier + time.monotonic() - self.started

    def write(self, state: Outcome, reason: str = "") -> None:
        write_state(self.output, state, reason, self.seconds)
        if state != "running":
            (self.output / CANCEL_FILE).unlink(missing_ok=True)  # it has been heard

    def check(self) -> None:
        if self.cancelled():
            raise CancelledError(
                "The training was cancelled before there was anything to keep. It can be continued "
                "(--resume on the command line)."
            )


def assist(settings: FinetuneSettings, output: Path, group: ProcessGroup) -> None:
    """Train beside the process that leads, see :func:`finetune`; nothing is measured or written.

    Returns when the run is over, or when there is nothing to train.

    Parameters
    ----------
    settings : FinetuneSettings
    output : Path
        Run directory.
    group : ProcessGroup
    """
    if not group.agree(False)[0]:
        return
    folder = find_model(settings.model)
    data = read_lesson(settings, folder, lambda _: None)
    training = WordTraining(settings, folder, data.words, group)
    run = Run(output, settings, resume=True, writes=False)
    training.train(run, training.load_state(run), data)


def _finetune(
    settings: FinetuneSettings, run: Run, session: _Session, group: ProcessGroup
) -> Report:
    folder = find_model(settings.model)
    read_config(folder)  # before many labels are read: not every model can be taught
    data = read_lesson(settings, folder, session.tell)
    words, held_out = data.words, data.held_out
    session.check()
    predictor = Predictor(settings.model, device=str(group.device))
    version = predictor.version
    training = WordTraining(settings, folder, words, group)
    size = training.model.settings.image_size
    questions = known_questions(predictor, words, size, session.check) + _repeated(data.earlier)
    names = _names(words, settings.word or settings.words)
    started = time.monotonic()
    before = measure(predictor, held_out, names, questions, session.check)
    measuring = time.monotonic() - started
    session.tell(f"before: {before.describe()}")

    best = training.best
    clock = training.load_state(run)
    run.report(
        step=clock.step, seconds=round(clock.seconds, 1),
        images=len(data.learnt) + len(held_out), measuring=round(measuring, 1),
        **_first_look(predictor, held_out, names, before, clock),
    )  # fmt: skip
    budget = training.budget(len(data.learnt))
    goes_on = clock.part(budget) < 1 and not best.stalled
    group.agree(goes_on)
    if goes_on:
        checks = Checks(
            run, training.trained, best, training.optimizer, predictor=predictor,
            held_out=held_out, words=names, questions=questions, before=before,
            most_lost=settings.most_lost, budget=budget, cancelled=session.cancelled,
            tell=session.tell, saved=lambda: session.write("running"),
        )  # fmt: skip
        training.train(run, clock, data, over=checks, check=session.check, tell=session.tell)
    part, weights = 1.0, best.weights.state_dict()
    if questions:
        older = training.older.head_state()
        part, weights = mildest(predictor, older, weights, held_out, names, before)
    predictor.teach(words, weights, "new")
    after = measure(predictor, held_out, names, questions)
    session.tell(f"after: {after.describe()}")
    promoted, reason = judge(before, after, settings.most_lost)
    report = Report(
        model=settings.model, model_version=version, words=tuple(names.values()), before=before,
        after=after, promoted=promoted, reason=reason,
        held_out=tuple(correction.name for correction in held_out),
        learnt_from=len(data.learnt), steps=clock.step, best_step=int(best.step), part=part,
        seconds=round(session.seconds, 1),
    )  # fmt: skip
    model = training.model
    heads = with_word_head(training.heads, WordHead(words, head_like(model, weights)))
    lessons = (*data.taught, data.lesson)
    _save(model.cpu(), heads, folder, run.path, settings, report, lessons)
    session.tell(reason)
    return report


def _repeated(earlier: Sequence[Correction]) -> list[Question]:
    """Questions in images of earlier lessons."""
    return [
        Question(word, correction.example, zoom=None)
        for correction in earlier[:REPEATED]
        for word in correction.example.masks
    ]


def _first_look(
    predictor: Predictor, held_out: Sequence[Correction], names: Mapping[str, str],
    before: Figures, clock: Clock,
) -> dict[str, float]:  # fmt: skip
    """Figures of the older model on what the looks at a new run are about."""
    if clock.step:
        return {}
    looked_at = held_out[:LOOKED_AT]
    seen = before if len(looked_at) == len(held_out) else measure(predictor, looked_at, names, ())
    figures = {"miou": seen.miou, "old": before.old}
    return {name: round(value, 4) for name, value in figures.items() if value is not None}


def _names(words: Sequence[str], typed: str) -> dict[str, str]:
    """The canonical words, and how a person typed them or the table of classes has them."""
    spelled = {canonical(part): " ".join(part.split()) for part in typed.split(",")}
    return {word: spelled.get(word, word) for word in words}


def _save(
    model: ClsClip, heads: Sequence[WordHead], origin: Path, output: Path,
    settings: FinetuneSettings, report: Report, taught: Sequence[Taught],
) -> None:  # fmt: skip
    """Write model and report; a CLIP and a detector inside the older model come along."""
    older = read_config(origin)
    base = older.base
    inside = origin / base.source  # or a folder elsewhere, which stays there
    recipe = {
        **_public(settings).model_dump(mode="json"), "start": str(origin), "steps": report.steps,
        TAUGHT: [lesson.model_dump() for lesson in taught],
    }  # fmt: skip
    save_run_model(
        model, output, source=base.source, revision=base.revision, training=recipe,
        description=settings.description or f"Taught {', '.join(report.words)}",
        clip=inside if inside.is_dir() and inside.parent == origin else None, word_heads=heads,
        words=older.words,
    )  # fmt: skip
    try:
        if (origin / DETECTOR_FOLDER).is_dir():
            shutil.copytree(origin / DETECTOR_FOLDER, output / DETECTOR_FOLDER, dirs_exist_ok=True)
        write_atomically(output / REPORT_FILE, (report.model_dump_json(indent=2) + "\n").encode())
    except OSError as error:
        raise FileError(
            f"'{output}' cannot be written ({error}). Free space there and continue the training "
            "(--resume on the command line)."
        ) from error
