"""The form row that says how much of an image is segmented."""

from __future__ import annotations

from enum import Enum
from typing import Final

from napari.components import ViewerModel
from napari.layers import Image
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QComboBox, QVBoxLayout, QWidget

from clsclip.errors import ClsClipError
from napari_clsclip._channels_row import ChannelsRow
from napari_clsclip._layers import Plane, displayed_plane
from napari_clsclip._plane_choice import EveryPlane, plane_count, visible_region


class Scope(Enum):
    """How much of an image is segmented; the value is for the user."""

    PLANE = "This plane"
    REGION = "Visible region"
    ALL = "All planes"


_TOOLTIPS: Final = {
    Scope.PLANE: "The plane on screen. If it is very large, block by block into a file on disk.",
    Scope.REGION: "The part of the plane that the canvas shows; the rest of the labels stays.",
    Scope.ALL: "Every plane along the sliders, the one on screen first. What is done is kept when "
    "you cancel, and Segment goes on from there. Planes in which you have painted stay.",
}
_FULL_TOOLTIP: Final = (
    "Read the finest level of this multiscale image instead of the level on screen."
)


class ScopeRow(QWidget):
    """Choice of scope, and of full resolution for multiscale images.

    Parameters
    ----------
    viewer : ViewerModel
        What it shows decides which planes and which region are meant.
    channels : ChannelsRow
        Says which axis holds channels, and no planes.
    """

    def __init__(self, viewer: ViewerModel, channels: ChannelsRow) -> None:
        super().__init__()
        self._viewer = viewer
        self._channels = channels
        self._image: Image | None = None
        self.choice = QComboBox()
        for row, scope in enumerate(Scope):
            self.choice.addItem(scope.value, scope)
            self.choice.setItemData(row, _TOOLTIPS[scope], Qt.ItemDataRole.ToolTipRole)
        self.choice.setToolTip("How much of the image is segmented.")
        self.full_resolution = QCheckBox("Full resolution")
        self.full_resolution.setToolTip(_FULL_TOOLTIP)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.choice)
        layout.addWidget(self.full_resolution)
        self.full_resolution.hide()
        channels.changed.connect(self._update)
        viewer.dims.events.order.connect(self._update)
        viewer.dims.events.ndisplay.connect(self._update)

    @property
    def scope(self) -> Scope:
        """What is chosen."""
        return Scope(self.choice.currentData())

    @scope.setter
    def scope(self, scope: Scope) -> None:
        self.choice.setCurrentIndex(list(Scope).index(scope))

    def follow(self, image: Image | None) -> None:
        """Say how many planes an image has, and offer its full resolution if it has levels."""
        self._image = image
        self._update()

    def planes(self, image: Image) -> EveryPlane | tuple[Plane]:
        """Choose what to segment of an image: one plane or region, or every plane.

        A single plane may be too large for one request, see :func:`is_large`.

        Raises
        ------
        InvalidImageError
            If there is nothing that could be segmented; see :func:`displayed_plane`,
            :meth:`ChannelsRow.apply` and :func:`visible_region`.
        """
        level = 0 if image.multiscale and self.full_resolution.isChecked() else None
        plane = displayed_plane(
            image, self._viewer.dims, level=level, whole=self.scope is Scope.ALL
        )
        plane = self._channels.apply(plane)
        if self.scope is Scope.REGION:
            return (visible_region(plane, image, self._viewer),)
        return EveryPlane(plane) if self.scope is Scope.ALL else (plane,)

    def overview(self, image: Image) -> Plane | None:
        """The plane on screen at the coarsest level; None if the image has no levels."""
        if not image.multiscale:
            return None
        level = len(image.data) - 1
        try:
            return self._channels.apply(
                displayed_plane(image, self._viewer.dims, level=level, whole=False)
            )
        except (ClsClipError, IndexError):  # layers that are combined may have other levels
            return None

    def _update(self) -> None:
        image = self._image
        self.full_resolution.setVisible(image is not None and bool(image.multiscale))
        count = ""
        if image is not None:
            try:
                plane = displayed_plane(image, self._viewer.dims, whole=False)
                plane = self._channels.apply(plane)
            except ClsClipError:
                pass  # told when it is to be segmented
            else:
                count = f" ({plane_count(plane):,})"
        self.choice.setItemText(list(Scope).index(Scope.ALL), f"{Scope.ALL.value}{count}")
