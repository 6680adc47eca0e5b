"""Ranges and round numbers for the axes of a plot. No Qt."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

_ROUND = (1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True)
class Axis:
    """Part of the numbers that is shown, and where to write one.

    Attributes
    ----------
    low, high : float
        ``low < high``.
    ticks : tuple of float
        Ascending, within them.
    """

    low: float
    high: float
    ticks: tuple[float, ...]

    def place(self, value: float) -> float:
        """Where a number lies: 0 at ``low``, 1 at ``high``."""
        return (value - self.low) / (self.high - self.low)


def axis(values: Iterable[float], *, least: float, most_ticks: int) -> Axis:
    """Choose an axis from 0 on that shows all values.

    Parameters
    ----------
    values : iterable of float
        0 or above, finite.
    least : float
        What it shows at least, so that little noise does not look like much; above 0.
    most_ticks : int
        Most numbers to write, 0 included; at least 2.
    """
    highest = max((*values, least))
    step = _round_step(highest / (most_ticks - 1))
    count = math.ceil(highest / step - 1e-9)
    return Axis(0.0, count * step, tuple(step * i for i in range(count + 1)))


def tick_text(value: float, axis: Axis) -> str:
    """Write a tick with as many decimals as the axis needs."""
    step = axis.ticks[1] - axis.ticks[0]
    decimals = next((d for d in range(6) if math.isclose(step, round(step, d))), 6)
    return f"{value:.{decimals}f}"


def _round_step(least: float) -> float:
    """Smallest round number that is not below ``least``."""
    power: float = 10.0 ** math.floor(math.log10(least))
    return next(power * digit for digit in _ROUND if power * digit >= least * (1 - 1e-9))
