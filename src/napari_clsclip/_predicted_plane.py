"""One predicted plane or region: its threshold can change, and what the user painted stays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clsclip.segmentation import Segmentation


class PredictedPlane:
    """Probabilities of one plane of a label layer, and the pixels that the user has changed.

    A pixel counts as changed from the moment its label differs from what was last written, and
    at every threshold after that, until an undo brings back the label it had before.

    Parameters
    ----------
    segmentation : Segmentation
        Probabilities of shape (K, H, W).
    threshold : float, in (0, 1]
        Threshold of the labels that :meth:`write` puts down first.

    Attributes
    ----------
    threshold : float
        Threshold of the labels that were last written.
    """

    def __init__(self, segmentation: Segmentation, threshold: float) -> None:
        self.segmentation = segmentation
        self.threshold = threshold
        # All of shape (H, W), and only for planes with changed pixels.
        self._changed: NDArray[np.bool_] | None = None
        self._before: NDArray[np.uint16] | None = None
        self._written: NDArray[np.uint16] | None = None
        self._ceded: NDArray[np.bool_] | None = None
        self._first: NDArray[np.uint16] | None = None

    def prepare(self) -> None:
        """Compute what :meth:`write_first` writes; in a thread, so that the window stands by."""
        self._first = self.segmentation.labels(self.threshold)

    def cede(self, area: tuple[slice, slice]) -> None:
        """Leave pixels to a newer prediction: they are neither written nor looked at any more.

        Parameters
        ----------
        area : tuple of 2 slice
            Rows and columns.
        """
        if self._ceded is None:
            self._ceded = np.zeros(self.segmentation.probabilities.shape[1:], dtype=np.bool_)
        self._ceded[area] = True

    def changes(self, labels: NDArray[np.uint16]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which pixels the user has changed, and which this prediction still answers for.

        Parameters
        ----------
        labels : ndarray of uint16, shape (H, W)
            The plane as it is in the layer now.

        Returns
        -------
        changed, owned : ndarray of bool, shape (H, W)
            A ceded pixel is neither.
        """
        self._find_changes(labels)
        owned = np.ones(labels.shape, dtype=np.bool_) if self._ceded is None else ~self._ceded
        changed = np.zeros_like(owned) if self._changed is None else self._changed & owned
        return changed, owned

    def has_changes(self, labels: NDArray[np.uint16]) -> bool:
        """Whether the user has changed a pixel.

        Parameters
        ----------
        labels : ndarray of uint16, shape (H, W)
            The plane as it is in the layer now.
        """
        self._find_changes(labels)
        return self._changed is not None and bool(self._changed.any())

    def write(self, labels: NDArray[np.uint16], threshold: float) -> None:
        """Put the labels of another threshold into every pixel that the user has not changed.

        Parameters
        ----------
        labels : ndarray of uint16, shape (H, W)
            The plane as it is in the layer now; changed in place.
        threshold : float, in (0, 1]
            A pixel belongs to its most probable word if that probability is at least this.
        """
        self._find_changes(labels)
        predicted = self.segmentation.labels(threshold)
        if self._changed is not None:
            predicted[self._changed] = labels[self._changed]
            self._written = predicted
        if self._ceded is not None:
            predicted[self._ceded] = labels[self._ceded]
        labels[...] = predicted
        self.threshold = threshold

    def write_first(self, labels: NDArray[np.uint16]) -> None:
        """Put the labels into every pixel of a plane that holds nothing of the user."""
        first, self._first = self._first, None
        labels[...] = self.segmentation.labels(self.threshold) if first is None else first

    def _find_changes(self, labels: NDArray[np.uint16]) -> None:
        written = self._written
        if written is None:
            written = self.segmentation.labels(self.threshold)
        different = labels != written
        if self._ceded is not None:
            different &= ~self._ceded
        if not different.any():
            return
        if self._changed is None or self._before is None:
            self._changed = np.zeros(labels.shape, dtype=np.bool_)
            self._before = written.copy()
        undone = different & self._changed & (labels == self._before)
        new = different & ~self._changed
        self._before[new] = written[new]
        self._changed |= new
        self._changed &= ~undone
        self._written = labels.copy()
