"""Which pixels of a plane of labels the user has changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class UserPixels:
    """The pixels of one plane that the user has changed.

    A pixel counts as changed from the moment its label differs from what was last written, and
    at every prediction after that, until an undo brings back the label it had before.

    Attributes
    ----------
    changed : ndarray of bool, shape (H, W), or None
        None as long as nothing has ever been changed.
    before : ndarray of int, shape (H, W), or None
        The labels that the changed pixels had before; of no meaning elsewhere.
    """

    changed: NDArray[np.bool_] | None = None
    before: NDArray[Any] | None = None

    def __bool__(self) -> bool:
        """Whether there is one."""
        return self.changed is not None and bool(self.changed.any())

    def updated(self, labels: NDArray[Any], written: NDArray[Any]) -> UserPixels:
        """Find what has changed since the last look.

        Parameters
        ----------
        labels : ndarray of int, shape (H, W)
            The plane as it is now.
        written : ndarray of int, shape (H, W)
            The plane as it was after the last look: predicted labels, and those of the user in
            pixels that are known to be changed.

        Returns
        -------
        UserPixels
            This one if ``labels`` and ``written`` are equal.
        """
        different = labels != written
        if not different.any():
            return self
        if self.changed is None or self.before is None:
            return UserPixels(different, written.copy())
        undone = different & self.changed & (labels == self.before)
        new = different & ~self.changed
        return UserPixels((self.changed | new) & ~undone, np.where(new, written, self.before))
