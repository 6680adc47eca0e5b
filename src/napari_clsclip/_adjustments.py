"""When a change of the threshold is over: the slider was released, or has rested for a while."""

from __future__ import annotations

from typing import Final

from qtpy.QtCore import QObject, QTimer
from superqt import QLabeledDoubleSlider

from napari_clsclip._layer_steps import LayerSteps

REST_MILLISECONDS: Final = 800
"""How long keys, wheel and spin box must rest until the next change is a step of its own."""


class Adjustments(QObject):
    """Makes one step, to be undone with one Ctrl+Z, of each drag of a slider.

    Parameters
    ----------
    slider : QLabeledDoubleSlider
        Its parent from now on.
    steps : LayerSteps
    """

    def __init__(self, slider: QLabeledDoubleSlider, steps: LayerSteps) -> None:
        super().__init__(slider)
        self._steps = steps
        self._held = False
        self._rest_timer = QTimer(self, interval=REST_MILLISECONDS, singleShot=True)
        self._rest_timer.timeout.connect(steps.end_adjustment)
        slider.sliderPressed.connect(self._begin)
        slider.sliderReleased.connect(self._end)
        slider.valueChanged.connect(self._rest)

    def _begin(self) -> None:
        self._held = True  # the value may have jumped to the mouse already: the same step
        self._rest_timer.stop()

    def _end(self) -> None:
        self._held = False
        self._steps.end_adjustment()

    def _rest(self) -> None:
        if not self._held:
            self._rest_timer.start()
