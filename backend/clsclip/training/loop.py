"""The training loop that pre-training and head training share: a time budget, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeVar

import torch
from torch import Tensor, nn

from clsclip.errors import ClsClipError
from clsclip.training.distributed import ProcessGroup, alone
from clsclip.training.run import BudgetSettings, Clock, Run

CHECKPOINT_SECONDS: Final = 240
"""Time between checkpoints."""

REPORT_STEPS: Final = 50
"""Optimizer steps between reports."""

B = TypeVar("B")


class DivergedError(ClsClipError):
    """The loss is not finite."""

    code = "diverged"


def cosine_rate(part: float, *, cycles: int = 1, warm_up: float = 0.0) -> float:
    """Factor of the learning rate at a moment of a run.

    Parameters
    ----------
    part : float, 0 to 1
        How much of the run is over.
    cycles : int
        Cosine falls from 1 to 0, each followed by a warm restart (Loshchilov & Hutter 2017;
        section 5 of the paper).
    warm_up : float
        Part of the run with a linear rise, before the first fall.
    """
    if part < warm_up:
        return max(part / warm_up, 0.01)
    position = min(1.0, (part - warm_up) / (1 - warm_up)) * cycles
    if position < cycles:
        position -= math.floor(position)
    else:
        position = 1.0
    return 0.5 * (1 + math.cos(math.pi * position)) + 1e-3


def decayed_adamw(
    parameters: Iterable[nn.Parameter], learning_rate: float, betas: tuple[float, float]
) -> torch.optim.AdamW:
    """AdamW for training from scratch: weights decay, but not biases, norms and scalars."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [p for p in trained if p.ndim >= 2], "weight_decay": 0.05},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=learning_rate, betas=betas,
    )  # fmt: skip


def train(
    run: Run,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    clock: Clock,
    batches: Iterable[B],
    losses: Callable[[B], Mapping[str, Tensor]],
    *,
    settings: BudgetSettings,
    rate: Callable[[float], float],
    tell: Callable[[str], None],
    accumulate: int = 1,
    report_steps: int = REPORT_STEPS,
    over: Callable[[Clock], bool] = lambda _: False,
    reported: Callable[[Clock, Mapping[str, float]], None] = lambda *_: None,
    group: ProcessGroup | None = None,
) -> None:
    """Take optimizer steps until the run is over; none if it is over already.

    Several processes do so together: each calls this with modules and a clock of the same state,
    and batches of its own.

    Parameters
    ----------
    run : Run
        Where reports and checkpoints go. Of several processes, only the leading one writes them.
    modules : mapping of str to Module
        What a checkpoint holds.
    optimizer : Optimizer
        Its learning rate at the start is the peak.
    clock : Clock
        Where the run stands; it is advanced.
    batches : iterable
        Endless.
    losses : callable
        Named losses of a batch, which are added.
    settings : BudgetSettings
        How long to train, over all sessions of the run.
    rate : callable
        Factor of the learning rate for the part (0 to 1) of the run that is over.
    tell : callable
        Takes a line of progress now and then.
    accumulate : int
        Batches whose gradients are averaged for one optimizer step.
    report_steps : int
        Optimizer steps between reports.
    over : callable
        Asked after every optimizer step; an answer of True ends the run early. What it takes is
        training time. Of several processes, only the leading one asks.
    reported : callable
        Takes the figures of every report, in the leading process.
    group : ProcessGroup, optional
        The processes that train together; by default, this one is alone.

    Raises
    ------
    DivergedError
        If a loss is NaN or infinite; the last checkpoint stays.
    """
    group = group or alone("cpu")
    if clock.part(settings) >= 1:
        return
    for module in modules.values():
        group.share(list(module.state_dict().values()))
    peaks = [group["lr"] for group in optimizer.param_groups]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    last = saved = time.monotonic()
    for number, batch in enumerate(batches, start=1):
        named = losses(batch)
        total = torch.stack(list(named.values())).sum()
        mean = total.detach().clone()
        group.average([mean])
        if not torch.isfinite(mean):
            raise DivergedError(
                f"The loss is {mean.item()} at step {clock.step}. Continue "
                "from the last checkpoint (--resume on the command line), or start anew there with "
                "a smaller --learning-rate."
            )
        (total / accumulate).backward()  # type: ignore[no-untyped-call]
        clock.add({name: loss.item() for name, loss in named.items()})
        if number % accumulate:
            continue
        factor = rate(clock.part(settings))
        for rated, peak in zip(optimizer.param_groups, peaks, strict=True):
            rated["lr"] = peak * factor
        if group.size > 1:
            group.average([_gradient(parameter) for parameter in parameters])
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        now = time.monotonic()
        clock.step += 1
        (clock.seconds,) = group.agree(clock.seconds + now - last)
        last = now
        finished = clock.part(settings) >= 1
        report = clock.step % report_steps == 0 or finished
        if report and group.leads:
            means = {name: added / clock.batches for name, added in clock.losses.items()}
            run.report(step=clock.step, seconds=round(clock.seconds, 1), rate=factor, **means)
            reported(clock, {"rate": factor, **means})
            shown = "  ".join(f"{name} {value:.4f}" for name, value in means.items())
            done = f"{clock.part(settings):.1%}  {clock.seconds / 60:.1f} min  step {clock.step}"
            tell(f"{done}  {shown}")
        if report:
            clock.forget()
        finished = bool(group.agree((group.leads and over(clock)) or finished)[0])
        if finished or now - saved > CHECKPOINT_SECONDS:
            run.save_state(modules, optimizer, clock)
            saved = now
        if finished:
            return


def _gradient(parameter: nn.Parameter) -> Tensor:
    """The gradient of a parameter; zeros where the last batches did not use it."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad
