"""The form row that says which channels of an image are red, green and blue."""

from __future__ import annotations

import weakref
from typing import Final

from napari.components import ViewerModel
from napari.layers import Image
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QFormLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

from napari_clsclip._channels import Colors, from_layers, guessed_channel_axis, with_channels
from napari_clsclip._layers import Plane

AS_IT_IS: Final = "as they are"
LAYERS: Final = "of several layers"

_COLORS: Final = (("Red", "#ff6b6b"), ("Green", "#51cf66"), ("Blue", "#74a9ff"))
_SOURCE_TOOLTIP: Final = (
    "Which axis of the image holds channels, or whether layers of the same shape are the channels "
    "of one image. Each is stretched by the contrast limits of its layer."
)
_COLOR_TOOLTIP: Final = "What is shown in this colour. A single channel is taken as grey."


class ChannelsRow(QWidget):
    """Choice of an axis or of layers, and of one channel for each colour.

    Hidden unless the image can have channels: it has no colours, and more than two axes or
    another layer of its shape beside it.

    Attributes
    ----------
    changed : Signal
        Another axis or channel was chosen.
    """

    changed = Signal()

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        self._image: Image | None = None
        self._layers: list[Image] = []
        self._chosen: weakref.WeakKeyDictionary[Image, tuple[str, Colors]]
        self._chosen = weakref.WeakKeyDictionary()
        self.source = QComboBox()
        self.source.setToolTip(_SOURCE_TOOLTIP)
        self.colors = tuple(QComboBox() for _ in _COLORS)
        self._color_row = QWidget()
        form = QFormLayout(self._color_row)
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        for (name, color), combo in zip(_COLORS, self.colors, strict=True):
            label = QLabel(name)
            label.setStyleSheet(f"color: {color};")
            combo.setToolTip(_COLOR_TOOLTIP)
            combo.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            combo.activated.connect(self._remember)
            form.addRow(label, combo)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.source)
        layout.addWidget(self._color_row)
        self._color_row.hide()
        self.source.activated.connect(self._take_source)

    @property
    def axis(self) -> int | None:
        """The axis of channels, if one is chosen."""
        data = self.source.currentData()
        return data if isinstance(data, int) else None

    def possible(self) -> bool:
        """Whether there is anything to choose."""
        return self.source.count() > 1

    def follow(self, image: Image | None) -> None:
        """Offer the axes and layers that an image may have as channels; earlier choices stay."""
        self._image = image
        self.source.clear()
        self.source.addItem(AS_IT_IS, None)
        self._layers = []
        if image is not None and not image.rgb:
            for axis in range(image.ndim if image.ndim > 2 else 0):
                count = image.level_shapes[0][axis]
                label = str(image.axis_labels[axis])
                name = "" if label.lstrip("-").isdigit() else f" ({label})"
                self.source.addItem(f"along axis {axis}{name}: {count:,}", axis)
            self._layers = [
                layer
                for layer in self._viewer.layers
                if isinstance(layer, Image)
                and not layer.rgb
                and layer.level_shapes[0].tolist() == image.level_shapes[0].tolist()
            ]
            if len(self._layers) > 1:
                self.source.addItem(LAYERS, LAYERS)
        self._restore()

    def apply(self, plane: Plane) -> Plane:
        """Take the chosen channels of a plane of the image.

        Raises
        ------
        InvalidImageError
            See :func:`with_channels` and :func:`from_layers`.
        """
        if self.axis is not None:
            return with_channels(plane, self.axis, self._colors())
        if self.source.currentData() == LAYERS:
            return from_layers(plane, self._layers, self._colors(), self._viewer.dims)
        return plane

    def _colors(self) -> Colors:
        red, green, blue = (combo.currentData() for combo in self.colors)
        return red, green, blue

    def _restore(self) -> None:
        """Choose what was chosen before for this image, else what its axis labels say."""
        image = self._image
        source, colors = self._chosen.get(image, ("", None)) if image else ("", None)
        row = self.source.findText(source)
        if image is not None and not source and (axis := guessed_channel_axis(image)) is not None:
            row = self.source.findData(axis)
        self.source.setCurrentIndex(max(row, 0))
        self._offer_channels(colors if row >= 0 else None)

    def _take_source(self) -> None:
        self._offer_channels(None)
        self._remember()

    def _remember(self) -> None:
        if self._image is not None:
            self._chosen[self._image] = (self.source.currentText(), self._colors())
        self.changed.emit()

    def _offer_channels(self, colors: Colors | None) -> None:
        if self.axis is not None and self._image is not None:
            count = int(self._image.level_shapes[0][self.axis])
            names = [str(channel) for channel in range(count)]
        elif self.source.currentData() == LAYERS:
            names = [str(layer.name) for layer in self._layers]
        else:
            names = []
        for k, combo in enumerate(self.colors):
            combo.clear()
            combo.addItem("–", None)  # noqa: RUF001 - a dash for nothing
            for channel, name in enumerate(names):
                combo.addItem(name, channel)
            wanted = colors[k] if colors is not None else k
            known = wanted is not None and wanted < len(names)
            combo.setCurrentIndex(wanted + 1 if known and wanted is not None else 0)
        self._color_row.setVisible(bool(names))
