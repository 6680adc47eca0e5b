"""A new head for words, in training: what every process of a fine-tuning run reads, holds and does.

See :mod:`clsclip.training.finetune` for what the leading process does beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from clsclip.model.checkpoint import load_model, load_word_heads
from clsclip.model.clsclip import ClsClip
from clsclip.model.config import read_config
from clsclip.model.word_heads import HeadChoice, WordHead, head_like
from clsclip.store.store import database_url
from clsclip.training.checks import Best
from clsclip.training.corrections import Correction
from clsclip.training.distributed import ProcessGroup
from clsclip.training.finetune_settings import FinetuneSettings, Plan
from clsclip.training.fit import trained_parts
from clsclip.training.footprint import require_memory
from clsclip.training.lesson_loss import LessonLoss
from clsclip.training.lessons import Lesson, Lessons
from clsclip.training.loop import cosine_rate, train
from clsclip.training.prefetch import prefetch
from clsclip.training.replay import Memory
from clsclip.training.run import Clock, Run
from clsclip.training.taught import Taught, earlier_lessons, read_earlier

REPORT_STEPS: Final = 10
"""Optimizer steps between reports."""


@dataclass(frozen=True)
class LessonData:
    """What is learnt from, and what was learnt before.

    Attributes
    ----------
    words : tuple of str
        Canonical.
    learnt, held_out : sequence of Correction
        Images to learn from, and those that show whether it helped.
    earlier : sequence of Correction
        Images of the earlier lessons that are still at hand.
    lesson : Taught
        Where the images are.
    taught : tuple of Taught
        The earlier lessons of the model.
    """

    words: tuple[str, ...]
    learnt: Sequence[Correction]
    held_out: Sequence[Correction]
    earlier: Sequence[Correction]
    lesson: Taught
    taught: tuple[Taught, ...]


def read_lesson(
    settings: FinetuneSettings, folder: Path, tell: Callable[[str], None]
) -> LessonData:
    """Read the corrections that some settings ask for.

    Parameters
    ----------
    settings : FinetuneSettings
    folder : Path
        Of the model to go on from.
    tell : callable
        Takes a line of progress now and then.

    Raises
    ------
    FileError, InvalidConfigError, InvalidWordError, CheckpointError, StoreError, NotFoundError
    """
    lesson = Taught.of(settings)
    database = database_url(settings.database)
    material = lesson.read(tell, database)
    learnt, held_out = material.split(settings.holdout, settings.seed)
    taught = tuple(each for each in earlier_lessons(read_config(folder)) if each != lesson)
    earlier = read_earlier(taught, lesson, material.words, tell, database)
    return LessonData(material.words, learnt, held_out, earlier, lesson, taught)


class WordTraining:
    """A copy of the head that answered for some words, and what trains it.

    Parameters
    ----------
    settings : FinetuneSettings
    folder : Path
        Of the model to go on from.
    words : tuple of str
        Canonical.
    group : ProcessGroup

    Attributes
    ----------
    model : ClsClip
    heads : sequence of WordHead
        The older ones.
    older : ClsClip
        The head that answers for the words so far.
    trained : ModuleDict
        The parts of the new one that move.
    best : Best
    optimizer : AdamW
    plan : Plan

    Raises
    ------
    DeviceError
        If the device has too little memory.
    CheckpointError
    """

    def __init__(
        self, settings: FinetuneSettings, folder: Path, words: tuple[str, ...], group: ProcessGroup
    ) -> None:
        self._settings, self._words, self._group = settings, words, group
        self.model = load_model(folder).to(group.device)
        self.heads = load_word_heads(folder, self.model)
        if group.device.type == "cpu":
            # its backward is faster on the CPU
            self.model.towers.clip.set_attn_implementation("eager")
        size = self.model.settings.image_size
        self.plan = Plan(settings, size, self.model.towers.patch_size)
        for side in (self.plan.first_size, size):
            require_memory(self.model, sum(self.plan.views(side)), side, group.device)
        self.older = _older_head(words, self.model, self.heads)
        self._new = head_like(self.model, self.older.head_state())
        self.trained = trained_parts(self._new).requires_grad_(True).train()
        self.best = Best(self.trained)
        self.optimizer = torch.optim.AdamW(self.trained.parameters(), lr=settings.learning_rate)

    def load_state(self, run: Run) -> Clock:
        """Go on from the checkpoint of a run, if there is one."""
        return run.load_state({"head": self.trained, "best": self.best}, self.optimizer)

    def budget(self, images: int) -> FinetuneSettings:
        """The settings with optimizer steps, where epochs are asked for."""
        return self.plan.budget(images, self._group.size)

    def train(
        self,
        run: Run,
        clock: Clock,
        data: LessonData,
        *,
        over: Callable[[Clock], bool] = lambda _: False,
        check: Callable[[], None] = lambda: None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Take optimizer steps until the run is over.

        By steps or epochs, a run that goes on from a checkpoint takes the steps that it would have
        taken. Which state is the best one, :class:`clsclip.training.checks.Checks` decides, and
        when it looks depends on the time.

        Parameters
        ----------
        run, clock, over, tell
            See :func:`clsclip.training.loop.train`.
        data : LessonData
        check : callable
            Called now and then before the first step of a new run; may raise.
        """
        budget = self.budget(len(data.learnt))
        seed = self._settings.seed
        remembered = self._group.seed(seed)
        loss = LessonLoss(
            self._new,
            lambda side: Memory(
                self.older, self._words, count=self.plan.remembered(side), size=side,
                rng=np.random.default_rng((*remembered, side, 2)),
                check=lambda: None if clock.step else check(),
            ),
            lambda side: self.plan.views(side)[1],
        )  # fmt: skip
        size = self.model.settings.image_size
        rng = np.random.default_rng(seed)
        lessons = Lessons(data.learnt, self._words, size, rng, data.earlier)
        together = self._settings.accumulate * self._group.size  # batches of a step

        def lesson(number: int) -> Lesson:
            step = number // together if budget.steps else clock.step
            side = self.plan.side(Clock(step, clock.seconds).part(budget))
            return lessons.draw(self.plan.views(side)[0], side, (seed, number))

        numbers = self._group.batch_numbers(clock.step * self._settings.accumulate)
        train(
            run, {"head": self.trained, "best": self.best}, self.optimizer, clock,
            prefetch(lambda: lesson(next(numbers)), 2), loss, settings=budget,
            rate=lambda part: cosine_rate(part, warm_up=0.05), tell=tell,
            accumulate=self._settings.accumulate, report_steps=REPORT_STEPS, over=over,
            group=self._group,
        )  # fmt: skip


def _older_head(words: Sequence[str], model: ClsClip, heads: Sequence[WordHead]) -> ClsClip:
    """The head that answered for the words, of several the one that was taught last."""
    choose = HeadChoice(model, heads)
    chosen = {choose(word) for word in words}
    return next((each.head for each in reversed(heads) if each.head in chosen), model)
