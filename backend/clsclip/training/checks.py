"""Looks at a model while it is taught: the best state is kept, a run that stalls ends early."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from clsclip.model.report import Figures
from clsclip.predict.predictor import Predictor
from clsclip.training.corrections import Correction
from clsclip.training.holdout import Question, lost, measure
from clsclip.training.run import BudgetSettings, Clock, Run

CHECKS: Final = 7
"""Looks at the model in a run."""

COSTLIEST: Final = 0.2
"""Part of the time that these looks may take."""

LOOKED_AT: Final = 4
"""Held-out images of one look; the report is about all of them."""

SAVED_EVERY: Final = 15.0
"""Seconds between checkpoints."""

PATIENCE: Final = 4
"""Looks without a better state after which a run ends."""

GAIN: Final = 0.003
"""Rise of IoU from which on a run has not stalled."""

MIXTURES: Final = (0.85, 0.7, 0.55, 0.4)
"""Parts of the way from the older to the best weights that are tried."""

ENOUGH: Final = 0.92
"""Part of the gain on held-out images that such a mixture must keep."""


class Best(nn.Module):
    """The best state so far; part of every checkpoint.

    Attributes
    ----------
    weights : Module
        Like the trained part of the model.
    score : Tensor of float64
        Its IoU on held-out images; below 0 before the first look.
    kept : Tensor of bool
        Whether old words are kept.
    step : Tensor of int64
        Optimizer step of that state.
    stale : Tensor of int64
        Looks since the IoU rose clearly.
    """

    score: Tensor
    kept: Tensor
    step: Tensor
    stale: Tensor

    def __init__(self, trained: nn.Module) -> None:
        super().__init__()
        self.weights = copy.deepcopy(trained).requires_grad_(False)
        self.register_buffer("score", torch.tensor(-1.0, dtype=torch.float64))
        self.register_buffer("kept", torch.tensor(False))
        self.register_buffer("step", torch.tensor(0))
        self.register_buffer("stale", torch.tensor(0))

    @property
    def stalled(self) -> bool:
        """Whether going on promises nothing."""
        return int(self.stale) >= PATIENCE

    def offer(self, trained: nn.Module, score: float | None, kept: bool, step: int) -> bool:
        """Take a state if it is better; without a score, the newest one is."""
        rank = (kept, 0.0 if score is None else score)
        older = (bool(self.kept), float(self.score))
        clearly = score is None or rank > (older[0], older[1] + GAIN)
        self.stale.copy_(torch.tensor(0 if clearly else int(self.stale) + 1))
        if score is not None and rank <= older and int(self.step):
            return False
        self.weights.load_state_dict(trained.state_dict())
        self.score.copy_(torch.tensor(rank[1]))
        self.kept.copy_(torch.tensor(kept))
        self.step.copy_(torch.tensor(step))
        return True


class Checks:
    """Asked after every optimizer step; see :func:`clsclip.training.loop.train`.

    Parameters
    ----------
    run : Run
    trained, best : Module, Best
        The part in training, and where its best state goes.
    optimizer : Optimizer
    predictor : Predictor
        Of the older model; its head is replaced at every look.
    held_out : sequence of Correction
    words : mapping of str to str
        See :func:`clsclip.training.holdout.measure`.
    questions : sequence of Question
        About old words.
    before : Figures
        Of the older model.
    most_lost : float
        IoU that an old word may lose.
    budget : BudgetSettings
    cancelled : callable
    tell : callable
    saved : callable
        Called after every checkpoint.
    """

    def __init__(
        self,
        run: Run,
        trained: nn.Module,
        best: Best,
        optimizer: torch.optim.Optimizer,
        *,
        predictor: Predictor,
        held_out: Sequence[Correction],
        words: Mapping[str, str],
        questions: Sequence[Question],
        before: Figures,
        most_lost: float,
        budget: BudgetSettings,
        cancelled: Callable[[], bool],
        tell: Callable[[str], None],
        saved: Callable[[], None],
    ) -> None:
        self._run, self._trained, self._best, self._optimizer = run, trained, best, optimizer
        self._predictor, self._words = predictor, words
        self._held_out = held_out[:LOOKED_AT]
        self._questions = questions
        self._before, self._most_lost, self._budget = before, most_lost, budget
        self._cancelled, self._tell, self._saved = cancelled, tell, saved
        self._looked_part: float | None = None
        self._looked = self._kept = time.monotonic()
        self._cost = 0.0

    def __call__(self, clock: Clock) -> bool:
        """Look, if it is time to, and save; whether the run is over."""
        part, now = clock.part(self._budget), time.monotonic()
        if self._looked_part is None:
            self._looked_part = part
        over = part >= 1 or self._cancelled()
        due = part - self._looked_part >= 1 / CHECKS
        affordable = now - self._looked >= self._cost / COSTLIEST
        if over or (due and affordable):
            self._look(clock)
            self._looked_part = part
        elif now - self._kept < SAVED_EVERY:
            return False
        self._run.save_state({"head": self._trained, "best": self._best}, self._optimizer, clock)
        self._kept = time.monotonic()
        self._saved()
        return over or self._best.stalled

    def _look(self, clock: Clock) -> None:
        started = time.monotonic()
        self._predictor.replace_head(self._trained.state_dict(), f"step {clock.step}")
        found = measure(self._predictor, self._held_out, self._words, self._questions)
        loss, word = lost(self._before, found)
        better = self._best.offer(self._trained, found.miou, loss <= self._most_lost, clock.step)
        self._looked = time.monotonic()
        self._cost = self._looked - started
        figures = {name: round(value, 4) for name in ("miou", "fb_iou", "old")
                   if (value := getattr(found, name)) is not None}  # fmt: skip
        self._run.report(
            step=clock.step, seconds=round(clock.seconds, 1), lost=round(loss, 4), best=better,
            **figures,
        )  # fmt: skip
        suffers = f" ('{word}')" if word else ""
        self._tell(f"step {clock.step}: {found.describe()}; most lost {loss:.3f}{suffers}")


def mildest(
    predictor: Predictor,
    older: Mapping[str, Tensor],
    best: Mapping[str, Tensor],
    held_out: Sequence[Correction],
    words: Mapping[str, str],
    before: Figures,
) -> tuple[float, dict[str, Tensor]]:
    """Go back towards the older weights as far as the new words hardly suffer (ours).

    A mixture of old and new weights keeps more of what the old ones knew than it loses of what
    the new ones learnt.

    Parameters
    ----------
    predictor : Predictor
        Its head is replaced.
    older, best : mapping of str to Tensor
        Weights of the heads.
    held_out, words, before
        See :func:`clsclip.training.holdout.measure`.

    Returns
    -------
    float, above 0 to 1
        Part of the way from the older to the best weights.
    dict of str to Tensor
        The mixture.

    References
    ----------
    Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022.
    """
    wanted = float("inf")
    for part in (1.0, *MIXTURES):
        mixed = {name: torch.lerp(older[name], best[name], part) for name in best}
        predictor.replace_head(mixed, f"part {part}")
        found = measure(predictor, held_out[:LOOKED_AT], words, ())
        if found.miou is None or before.miou is None:
            return part, mixed
        if part == 1.0:
            chosen = (part, mixed)
            wanted = before.miou + ENOUGH * (found.miou - before.miou)
        elif found.miou >= wanted:
            chosen = (part, mixed)
        else:
            break
    return chosen
