"""How long the Qt thread works at once, and how long it stands still."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QTimer


class Ticks:
    """Ticks of a timer in the Qt thread, from :meth:`start` to :meth:`stop`.

    The processor time of the thread between them does not depend on what else the machine does.
    The time by the clock tells whether the thread waits for something.
    """

    def __init__(self) -> None:
        self._times: list[tuple[float, float]] = []
        self._timer = QTimer(interval=10)
        self._timer.timeout.connect(self._tick)

    def start(self) -> None:
        self._timer.start()
        self._tick()

    def stop(self) -> None:
        self._tick()
        self._timer.stop()

    @property
    def work(self) -> NDArray[np.float64]:
        """Seconds of processor time between ticks."""
        return np.diff([work for work, _ in self._times])

    @property
    def waits(self) -> NDArray[np.float64]:
        """Seconds by the clock between ticks."""
        return np.diff([clock for _, clock in self._times])

    def assert_responsive(self) -> None:
        """Between 95 of 100 ticks, less than 50 ms of work, and no long wait between any two."""
        work, waits = self.work, self.waits
        assert len(work) > 20
        assert np.percentile(work, 95) < 0.05, f"{np.percentile(work, [50, 95, 99])} s"
        assert waits.max() < 0.4 * waits.sum(), f"{waits.max()} of {waits.sum()} s"

    def _tick(self) -> None:
        self._times.append((time.thread_time(), time.monotonic()))
