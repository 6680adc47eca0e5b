"""One of the processes that train a small network together: prints its weights in the end.

Started by a launcher. Every process sees other batches; the mean of their gradients is the gradient
of all of them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from clsclip.config import Settings
from clsclip.training.distributed import ProcessGroup, launched, process_group
from clsclip.training.loop import train
from clsclip.training.run import BudgetSettings, Clock, Run

STEPS = 5


def weights_after_training(
    path: Path, group: ProcessGroup | None, batches: Iterator[Tensor], first: int
) -> list[float]:
    """Weights of a network that starts with other ones in every process."""
    torch.manual_seed(first)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    unused = nn.Linear(2, 2)
    modules = {"network": network, "unused": unused}
    parameters = [p for module in modules.values() for p in module.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.5)
    settings = BudgetSettings(steps=STEPS)
    run = Run(path, Settings(), resume=False, writes=group is None or group.leads)
    clock = Clock()
    train(
        run, modules, optimizer, clock, batches,
        lambda batch: {"loss": (network(batch[:, :3]) - batch[:, 3:]).square().mean()},
        settings=settings, rate=lambda _: 1.0, tell=lambda _: None, group=group,
    )  # fmt: skip
    assert clock.step == STEPS
    return [value for p in network.parameters() for value in p.flatten().tolist()]


def batch(step: int, rank: int) -> Tensor:
    """Eight examples with three numbers each, and what is to be said about them."""
    return torch.randn(8, 4, generator=torch.Generator().manual_seed(10 * step + rank))


if __name__ == "__main__":
    torch.set_num_threads(1)
    with process_group("cpu") as group:
        mine = (batch(step, group.rank) for step in range(STEPS + 1))
        found = weights_after_training(Path(sys.argv[1]) / "run", group, mine, first=group.rank)
        (Path(sys.argv[1]) / f"{group.rank}.json").write_text(
            json.dumps({"weights": found, "size": group.size, "launched": launched()})
        )
