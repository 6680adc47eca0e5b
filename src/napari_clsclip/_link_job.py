"""Linking the objects of a label layer through its planes, in a thread."""

from __future__ import annotations

import threading
from typing import Any, Final

import numpy as np
from napari.components import Dims
from napari.layers import Labels
from numpy.typing import NDArray

from clsclip.errors import CancelledError, ClsClipError, InvalidImageError
from clsclip.linking import link_stack


class LinkJob:
    """Reads a label layer plane by plane and computes the linked ids; the Qt thread polls it.

    Parameters
    ----------
    layer : Labels
        Single objects; not changed.
    axes : tuple of int
        See :func:`clsclip.linking.link_stack`.
    min_overlap : float, in (0, 1]

    Attributes
    ----------
    done_planes, planes : int
        How far it is.
    """

    def __init__(self, layer: Labels, axes: tuple[int, ...], min_overlap: float) -> None:
        self._labels = layer.data[0] if layer.multiscale else layer.data
        self._axes = axes
        self._min_overlap = min_overlap
        self._cancelled = threading.Event()
        self._ended = threading.Event()
        self._outcome: NDArray[np.uint32] | Exception = CancelledError("Not started.")
        self.done_planes = 0
        self.planes: Final = int(np.prod([self._labels.shape[axis] for axis in axes]))

    def start(self) -> None:
        """Begin; returns at once."""
        threading.Thread(target=self._run, name="clsclip-link", daemon=True).start()

    def cancel(self) -> None:
        """End it before the next plane."""
        self._cancelled.set()

    @property
    def done(self) -> bool:
        """Whether :meth:`result` has something to say."""
        return self._ended.is_set() or self._cancelled.is_set()

    def result(self) -> NDArray[np.uint32]:
        """Return the linked ids; only once :attr:`done`.

        Returns
        -------
        ndarray of uint32, shape of the layer

        Raises
        ------
        ClsClipError
            If it failed; ``CancelledError`` after :meth:`cancel`.
        """
        if self._cancelled.is_set():
            raise CancelledError("Cancelled. Nothing was changed.")
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome

    def _run(self) -> None:
        try:
            self._outcome = link_stack(self._labels, self._axes, self._min_overlap, self._step)
        except ClsClipError as error:
            self._outcome = error
        except Exception as error:  # whatever a lazy array or too little memory raises
            self._outcome = InvalidImageError(
                f"The labels could not be linked ({type(error).__name__}: {error}). Check that "
                "their file is still there and that the memory suffices."
            )
        finally:
            self._ended.set()

    def _step(self) -> None:
        if self._cancelled.is_set():
            raise CancelledError("Cancelled.")
        self.done_planes += 1


def hidden_axes(layer: Labels, dims: Dims) -> tuple[int, ...]:
    """Axes of a layer that have a slider when the viewer is in 2D display, ascending."""
    missing = dims.ndim - layer.ndim
    order = [axis - missing for axis in dims.order if axis >= missing]
    return tuple(sorted(order[:-2]))


def linked_layer(layer: Labels, ids: NDArray[np.uint32]) -> Labels:
    """Make a layer of linked ids that lies where the layer they come from lies."""
    where: dict[str, Any] = {
        name: getattr(layer, name)
        for name in ("scale", "translate", "rotate", "shear", "units", "axis_labels", "opacity")
    }
    affine = layer.affine.affine_matrix
    return Labels(ids, name=f"{layer.name} linked", affine=affine, **where)
