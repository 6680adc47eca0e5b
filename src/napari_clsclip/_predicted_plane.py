"""One predicted plane or region: its threshold can change, and what the user painted stays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clsclip.segmentation import Segmentation
from napari_clsclip._user_pixels import UserPixels


@dataclass(frozen=True)
class PlaneState:
    """What a plane remembers beside its probabilities; nothing of it changes in place.

    Attributes
    ----------
    threshold : float, in (0, 1]
        Threshold of the labels that were last written.
    user : UserPixels
    written : ndarray of uint16, shape (H, W), or None
        The plane after the last look, if it has pixels of the user.
    painted : ndarray of uint16, shape (n,), or None
        Instead of ``written``: the labels of the changed pixels, row by row.
    ceded : ndarray of bool, shape (H, W), or None
        Pixels that belong to a newer prediction.
    """

    threshold: float
    user: UserPixels
    written: NDArray[np.uint16] | None
    painted: NDArray[np.uint16] | None
    ceded: NDArray[np.bool_] | None


class PredictedPlane:
    """Probabilities of one plane of a label layer, and the pixels that the user has changed.

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
        self._user = UserPixels()
        # Shape (H, W), and only for planes with changed pixels.
        self._written: NDArray[np.uint16] | None = None
        self._painted: NDArray[np.uint16] | None = None
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
            ceded = np.zeros(self.segmentation.probabilities.shape[1:], dtype=np.bool_)
        else:
            ceded = self._ceded.copy()
        ceded[area] = True
        self._ceded = ceded

    @property
    def state(self) -> PlaneState:
        """What is remembered now, for :meth:`restore`."""
        return PlaneState(self.threshold, self._user, self._written, self._painted, self._ceded)

    def restore(self, state: PlaneState) -> None:
        """Remember what was remembered when the layer held what it is given back now."""
        self.threshold = state.threshold
        self._user, self._written, self._painted = state.user, state.written, state.painted
        self._ceded = state.ceded

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
        user = self._user.changed
        changed = np.zeros_like(owned) if user is None else user & owned
        return changed, owned

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
        if self._user.changed is not None:
            predicted[self._user.changed] = labels[self._user.changed]
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
            if self._painted is not None and self._user.changed is not None:
                written[self._user.changed] = self._painted
        if self._ceded is not None:
            written = np.where(self._ceded, labels, written)
        user = self._user.updated(labels, written)
        if user is not self._user:
            self._user, self._written = user, labels.copy()
