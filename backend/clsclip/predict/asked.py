"""Words as the network is asked for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from clsclip.model.network import Network
from clsclip.predict.guided_filter import GuidedFilter


@dataclass(frozen=True)
class Asked:
    """Tokens of some words, and the head that answers for each.

    Attributes
    ----------
    tokens : tuple of Tensor, each of shape (d,)
        What the words are to the network (T^cls), in the number format of the heads.
    heads : tuple of Network
        All share their towers.
    """

    tokens: tuple[Tensor, ...]
    heads: tuple[Network[Any], ...]

    def __len__(self) -> int:
        return len(self.tokens)

    def pick(self, places: Sequence[int]) -> Asked:
        """Some of the words."""
        return Asked(tuple(self.tokens[k] for k in places), tuple(self.heads[k] for k in places))

    def __add__(self, other: Asked) -> Asked:
        return Asked(self.tokens + other.tokens, self.heads + other.heads)

    def probabilities(self, crops: Tensor) -> Iterator[Tensor]:
        """Look at crops, once up to the first replaced layer and then for each word.

        Parameters
        ----------
        crops : Tensor, shape (B, 3, H, W)
            RGB in [0, 1]; H and W are multiples of the patch.

        Yields
        ------
        Tensor of float32, shape (B, H, W)
        """
        if not len(self):
            return
        read = crops.to(self.tokens[0].dtype)
        first = self.heads[0].encode(read)
        seen = {self.heads[0]: first}
        filters: dict[int, GuidedFilter] = {}
        for token, head in zip(self.tokens, self.heads, strict=True):
            if head not in seen:
                seen[head] = head.encode_beside(first, read)
            logits = head.decode(seen[head], token.expand(len(read), -1))
            radius = head.edge_radius
            if radius not in filters:
                filters[radius] = GuidedFilter(crops, radius)
            yield filters[radius](logits.float().sigmoid())
