"""Steps of a computation: counted, told, and ended when the caller wants."""

from __future__ import annotations

from collections.abc import Callable

from clsclip.errors import CancelledError


class Steps:
    """Counts steps, tells the caller, and stops when the caller wants.

    Parameters
    ----------
    progress : callable or None
        Called with (steps done, steps known so far).
    cancelled : callable or None
        Asked by :meth:`check`; an answer of True ends the work.
    """

    def __init__(
        self, progress: Callable[[int, int], None] | None, cancelled: Callable[[], bool] | None
    ) -> None:
        self._progress, self._cancelled = progress, cancelled
        self._done = self._total = 0

    def expect(self, steps: int) -> None:
        """So many more steps are to come."""
        self._total += steps
        self._tell()

    def check(self) -> None:
        """Raise CancelledError if the caller has had enough."""
        if self._cancelled is not None and self._cancelled():
            raise CancelledError("The segmentation was cancelled.")

    def done(self) -> None:
        """One more step is done."""
        self._done += 1
        self._tell()

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(self._done, self._total)
