"""The curves of a training: IoU of held-out images over the loss, against time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QFontMetricsF, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

from clsclip.wire_training import CurvePoint
from napari_clsclip._curve_axes import Axis, axis, tick_text

IOU_COLOR: Final = "#2f9e44"
OLD_COLOR: Final = "#e8890c"
LOSS_COLOR: Final = "#4c8dff"
"""Colours that stand out from light and dark grounds, also for the colour-blind."""

_TOOLTIP: Final = (
    "Above: IoU of the words that are learnt, on images that were held out, and on drawn scenes "
    "and earlier images if they were known before; 1 is perfect. Below: the loss; it should fall."
)
_LINE_WIDTH: Final = 2.0
_DOT: Final = 2.5
_DOTS: Final = 40
_IOU_PART: Final = 0.55
_SWATCH: Final = 14.0
_GAP: Final = 4.0
_LEAST: Final = 0.1


@dataclass(frozen=True)
class Series:
    """One line of a plot.

    Attributes
    ----------
    name : str
    color : str
    points : tuple of (float, float)
        Seconds, ascending, and value.
    """

    name: str
    color: str
    points: tuple[tuple[float, float], ...]

    @property
    def legend(self) -> str:
        """Name and last value."""
        return f"{self.name} {self.points[-1][1]:.2f}" if self.points else self.name


class TrainingCurve(QWidget):
    """Two plots, one above the other, on one axis of time."""

    def __init__(self) -> None:
        super().__init__()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip(_TOOLTIP)
        self.setAccessibleName("Curves of the training")
        self.iou: tuple[Series, ...] = ()
        self.loss: tuple[Series, ...] = ()
        self.show_points(())

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Wide enough for the legend, and twelve lines of text high."""
        return QSize(260, 12 * self.fontMetrics().height())

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """As narrow as the dock widget may become."""
        return QSize(200, self.sizeHint().height())

    def show_points(self, points: Sequence[CurvePoint]) -> None:
        """Show the reports of a training, in the order of their time."""
        self.iou = (
            Series("held-out IoU", IOU_COLOR, _pairs(points, "iou")),
            Series("known before", OLD_COLOR, _pairs(points, "old_iou")),
        )
        self.loss = (Series("loss", LOSS_COLOR, _pairs(points, "loss")),)
        said = [series.legend for series in (*self.iou, *self.loss) if series.points]
        self.setAccessibleDescription(", ".join(said) or "Nothing measured yet.")
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Draw axes, lines and legends."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        metrics = QFontMetricsF(self.font())
        line = metrics.height()
        every = [point for series in (*self.iou, *self.loss) for point in series.points]
        seconds = max((point[0] for point in every), default=0.0)
        unit, label = (60.0, "min") if seconds >= 120 else (1.0, "s")
        times = axis([seconds / unit], least=10.0 if unit == 1.0 else 2.0, most_ticks=5)
        above, below = _values(self.iou), _values(self.loss)
        ticks = (tick_text(tick, values) for values in (above, below) for tick in values.ticks)
        left = max(map(metrics.horizontalAdvance, ticks)) + 2 * _GAP
        right = metrics.horizontalAdvance("00") / 2 + _GAP
        width = self.width() - left - right
        height = self.height() - 3 * line - 2 * _GAP  # two legends and the numbers of the time
        upper = QRectF(left, line + _GAP, width, _IOU_PART * height)
        lower = QRectF(left, upper.bottom() + line + _GAP, width, (1 - _IOU_PART) * height)
        self._draw(painter, upper, self.iou, times, above, unit)
        self._draw(painter, lower, self.loss, times, below, unit)
        painter.setPen(self._ink(0.75))
        for tick in times.ticks:
            text = tick_text(tick, times)
            if tick == times.ticks[-1]:
                text = f"{text} {label}"
            x = lower.left() + times.place(tick) * lower.width()
            advance = metrics.horizontalAdvance(text)
            x = min(x - advance / 2, self.width() - advance)
            painter.drawText(QPointF(x, lower.bottom() + metrics.ascent() + 1), text)
        painter.end()

    def _draw(
        self, painter: QPainter, box: QRectF, lines: Sequence[Series], times: Axis, values: Axis,
        unit: float,
    ) -> None:  # fmt: skip
        """Draw one plot: the numbers of its values, its lines, and a legend above it."""
        metrics = QFontMetricsF(painter.font())
        for tick in values.ticks:
            y = box.bottom() - values.place(tick) * box.height()
            painter.setPen(QPen(self._ink(0.75 if tick == 0 else 0.2), 1))
            painter.drawLine(QPointF(box.left(), y), QPointF(box.right(), y))
            painter.setPen(self._ink(0.75))
            text = tick_text(tick, values)
            x = box.left() - _GAP - metrics.horizontalAdvance(text)
            painter.drawText(QPointF(x, y + metrics.ascent() / 2 - 1), text)
        legends = [series.legend for series in lines]
        beside = _SWATCH + _GAP
        taken = sum(beside + metrics.horizontalAdvance(text) for text in legends)
        if taken + 3 * _GAP * (len(lines) - 1) > self.width() - box.left():
            legends = [series.name for series in lines]
        x = box.left()
        for series, legend in zip(lines, legends, strict=True):
            color = QColor(series.color)
            painter.setPen(QPen(color, _LINE_WIDTH))
            y = box.top() - metrics.height() / 2 - 1
            painter.drawLine(QPointF(x, y), QPointF(x + _SWATCH, y))
            painter.setPen(self._ink(1.0))
            painter.drawText(QPointF(x + beside, y + metrics.ascent() / 2 - 1), legend)
            x += beside + metrics.horizontalAdvance(legend) + 3 * _GAP
            places = [
                QPointF(
                    box.left() + times.place(seconds / unit) * box.width(),
                    box.bottom() - values.place(value) * box.height(),
                )
                for seconds, value in series.points
            ]
            painter.setPen(QPen(color, _LINE_WIDTH))
            painter.drawPolyline(QPolygonF(places))
            if len(places) <= _DOTS:  # single reports stay visible
                painter.setBrush(color)
                for place in places:
                    painter.drawEllipse(place, _DOT, _DOT)
                painter.setBrush(Qt.BrushStyle.NoBrush)

    def _ink(self, opacity: float) -> QColor:
        """The theme's colour of text."""
        color = QColor(self.palette().color(self.foregroundRole()))
        color.setAlphaF(opacity)
        return color


def _values(lines: Sequence[Series]) -> Axis:
    """Axis of the values of lines; all from 0 to 1 where there are none."""
    values = [value for series in lines for _, value in series.points]
    return axis(values, least=_LEAST if values else 1.0, most_ticks=4)


def _pairs(points: Sequence[CurvePoint], name: str) -> tuple[tuple[float, float], ...]:
    """Seconds and value of those reports that have it."""
    values = ((point.seconds, getattr(point, name)) for point in points)
    return tuple((s, v) for s, v in values if v is not None and math.isfinite(v))
