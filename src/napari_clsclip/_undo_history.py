"""Steps of the plugin in napari's own history of a label layer, so that Ctrl+Z undoes them.

napari tells nobody when a step is undone, and its public ``Labels.data_setitem`` keeps eight bytes
per axis and changed pixel and takes seconds for a large plane. Its history, however, holds
``(index, values before, values after)``, and undoing assigns the former to ``data[index]``, redoing
the latter. So a step of the plugin is an entry whose index is empty and whose values, once numpy
asks for them, do the step's own work. This is the one file that knows of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray

_NO_PIXEL: Final = slice(0, 0)


class Step(Protocol):
    """What can be undone and done again."""

    def undo(self) -> None:
        """Change everything back."""

    def redo(self) -> None:
        """Do it again, after :meth:`undo`."""


class _Values:
    """No values at all; whoever wants to assign them has something done instead."""

    def __init__(self, do: Callable[[], None]) -> None:
        self._do: Callable[[], None] | None = None
        self._later = do

    def arm(self) -> None:
        self._do = self._later

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if self._do is not None:
            self._do()
        return np.zeros((), dtype)


class Entry:
    """A step in the history of a layer.

    Parameters
    ----------
    layer : Labels
        Its history takes the step as the latest one; what was undone before cannot be done again
        any more, as after a stroke of the brush. The event ``paint`` is not emitted.
    step : Step
        Its methods are called by turns, beginning with ``undo``.
    """

    def __init__(self, layer: Labels, step: Step) -> None:
        self._stands = True
        self._step = step
        before, after = _Values(self._undo), _Values(self._redo)
        self._atom = ((_NO_PIXEL,), before, after)
        save = getattr(layer, "_save_history", None)
        if save is None:  # a napari that keeps its history in another way: nothing to undo
            return
        # A stroke that goes on is one step of its own; this one is before it.
        blocked, layer._block_history = in_stroke(layer), False
        try:
            with layer.events.paint.blocker():
                save(self._atom)
        finally:
            layer._block_history = blocked
        before.arm()
        after.arm()

    @property
    def stands(self) -> bool:
        """Whether the step is not undone."""
        return self._stands

    def is_last(self, layer: Labels) -> bool:
        """Whether this is what Ctrl+Z would undo now, and no stroke goes on."""
        history: Sequence[Any] = getattr(layer, "_undo_history", ())
        return (
            self._stands
            and bool(history)
            and history[-1][-1] is self._atom
            and not in_stroke(layer)
        )

    def _undo(self) -> None:
        if self._stands:
            self._stands = False
            self._step.undo()

    def _redo(self) -> None:
        if not self._stands:
            self._stands = True
            self._step.redo()


def forget(layer: Labels) -> bool:
    """Make a layer forget all that could be undone or done again.

    Returns
    -------
    bool
        False in a napari that keeps its history in another way: nothing is forgotten.
    """
    reset = getattr(layer, "_reset_history", None)
    if reset is None or in_stroke(layer):
        return False
    reset()
    return True


def in_stroke(layer: Labels) -> bool:
    """Whether the mouse button is down while somebody paints on a layer."""
    return bool(getattr(layer, "_block_history", False))
