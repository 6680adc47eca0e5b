"""What a sampler has drawn lately and may draw again: a part of every checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from clsclip.training.scenes import RECENT

REMEMBERED: Final = 1000
"""Present words that are remembered, see :data:`clsclip.training.batches.RECENT`."""


class Drawn(nn.Module):
    """What a run that goes on must know of the batches before, beside their number.

    Attributes
    ----------
    words : Tensor of int64, shape (REMEMBERED,)
        Places in the vocabulary of the words lately asked where they are present, the oldest
        first; -1 after the last one.
    scenes : Tensor of int64, shape (clsclip.training.scenes.RECENT,)
        Numbers of the drawn scenes that may be seen again, likewise.
    """

    words: Tensor
    scenes: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("words", torch.full((REMEMBERED,), -1))
        self.register_buffer("scenes", torch.full((RECENT,), -1))

    def take(self, words: Sequence[int], scenes: Sequence[int]) -> None:
        """Replace both."""
        for buffer, numbers in ((self.words, words), (self.scenes, scenes)):
            buffer.fill_(-1)
            buffer[: len(numbers)] = torch.tensor(numbers, dtype=torch.int64)

    @staticmethod
    def known(buffer: Tensor) -> tuple[int, ...]:
        """The numbers in one of the two."""
        return tuple(int(number) for number in buffer.tolist() if number >= 0)
