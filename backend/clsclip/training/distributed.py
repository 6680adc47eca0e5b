"""Several processes that train one model, each on batches of its own: one per GPU, or on the CPU.

``torchrun --nproc-per-node N --module clsclip.cli.train ...`` starts them, or accelerate.
Every process draws other views; gradients are averaged over all of them before each optimizer
step, so that they keep the same weights. The first one *leads*: it measures, writes the run
directory, and says when the run is over. Without a launcher there is one process, which leads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from typing import Final

import torch
from torch import Tensor

from clsclip.errors import DeviceError
from clsclip.model.device import choose_device

LONGEST_WAIT: Final = timedelta(hours=2)
"""How long processes wait for the leading one, which measures while they do."""


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train together.

    Attributes
    ----------
    rank : int
        Number of this process, from 0.
    size : int
        How many there are.
    device : torch.device
        Of this process.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process measures and writes."""
        return self.rank == 0

    def seed(self, *numbers: int) -> tuple[int, ...]:
        """A seed that is another one in every process; alone, it is the numbers."""
        return (*numbers, self.rank) if self.rank else numbers

    def batch_numbers(self, taken: int) -> Iterator[int]:
        """Numbers of the batches of this process, endless; no other process has one of them.

        Parameters
        ----------
        taken : int
            Batches that each process has taken before.
        """
        return count(taken * self.size + self.rank, self.size)

    def share(self, tensors: Sequence[Tensor]) -> None:
        """Give every process the values of the leading one, in place.

        They travel by way of the device, for NCCL knows no tensors in main memory.
        """
        if self.size > 1:
            from accelerate.utils import broadcast

            for tensor in tensors:
                tensor.copy_(broadcast(tensor.detach().to(self.device).contiguous()))

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their mean over all processes, in place.

        They travel together, as one vector of float32.
        """
        if self.size > 1 and tensors:
            from accelerate.utils import reduce

            joined = torch.cat([tensor.detach().flatten().float() for tensor in tensors])
            parts = reduce(joined.to(self.device), "mean").split(
                [tensor.numel() for tensor in tensors]
            )
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def agree(self, *values: float) -> tuple[float, ...]:
        """What the leading process says; the others get its values instead of theirs."""
        if self.size == 1:
            return values
        said = torch.tensor(values, dtype=torch.float64)
        self.share([said])
        return tuple(said.tolist())


def launched() -> int:
    """How many processes the launcher of this one has started; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def alone(device: str = "auto") -> ProcessGroup:
    """The group of a single process.

    Raises
    ------
    DeviceError
    """
    return ProcessGroup(0, 1, choose_device(device))


@contextmanager
def process_group(device: str = "auto") -> Iterator[ProcessGroup]:
    """The processes that the launcher of this one has started.

    Parameters
    ----------
    device : str
        See :func:`clsclip.model.device.choose_device`. With several processes, "auto" gives each
        a GPU of its own where there are GPUs, else the CPU.

    Raises
    ------
    DeviceError
        If several processes are to share one device that is named, other than the CPU.
    """
    if launched() == 1:
        yield alone(device)
        return
    if device not in ("auto", "cpu", "cuda"):
        raise DeviceError(
            f"Several processes cannot train on '{device}' together. Leave --device out: each then "
            "takes a GPU of its own."
        )
    choose_device(device)
    from accelerate import PartialState
    from accelerate.utils import InitProcessGroupKwargs

    waiting = InitProcessGroupKwargs(timeout=LONGEST_WAIT).to_kwargs()
    state = PartialState(cpu=device == "cpu" or not torch.cuda.is_available(), **waiting)
    try:
        yield ProcessGroup(state.process_index, state.num_processes, state.device)
    finally:
        state.destroy_process_group()
