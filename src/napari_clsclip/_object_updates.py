"""When objects are found anew: after the threshold or a setting has changed, or paint has dried."""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any, Final

import numpy as np
from napari.components import ViewerModel
from napari.layers import Labels
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer, Signal

from clsclip.errors import ClsClipError, InvalidImageError
from napari_clsclip._layers import displayed_index
from napari_clsclip._object_planes import ObjectPlanes, PlaneUpdate, Position
from napari_clsclip._result_looks import METADATA_KEY
from napari_clsclip._results import ResultLayers
from napari_clsclip._undo_history import in_stroke

DEBOUNCE_MILLISECONDS: Final = 150
"""How long the slider must rest before objects are found anew."""

POLL_MILLISECONDS: Final = 20


class ObjectUpdates(QObject):
    """Brings layers of objects up to date, one plane at a time, in worker threads.

    The old objects stay until the new ones are there. A threshold that comes in meanwhile makes
    what is being computed void.

    Parameters
    ----------
    viewer : ViewerModel
    results : ResultLayers
        Of this viewer.
    parent : QObject
        With which the updates end.

    Attributes
    ----------
    updated : Signal(Labels)
        Emitted when all planes of a layer are up to date again.
    failed : Signal(str)
        Emitted with the reason.
    """

    updated = Signal(object)
    failed = Signal(str)

    def __init__(self, viewer: ViewerModel, results: ResultLayers, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._results = results
        self._watched: weakref.WeakSet[Labels] = weakref.WeakSet()
        self._running: tuple[weakref.ref[Labels], PlaneUpdate] | None = None
        self._rest_timer = QTimer(self, interval=DEBOUNCE_MILLISECONDS, singleShot=True)
        self._rest_timer.timeout.connect(self._start_next)
        self._poll_timer = QTimer(self, interval=POLL_MILLISECONDS)
        self._poll_timer.timeout.connect(self._poll)

    @property
    def busy(self) -> bool:
        """Whether objects are being found, or will be in a moment."""
        return self._running is not None or self._rest_timer.isActive()

    def schedule(self) -> None:
        """Bring everything up to date once nobody has asked for a moment; returns at once."""
        self._rest_timer.start()

    def watch(self, layer: Labels) -> None:
        """Measure objects of a layer anew whenever they are painted."""
        if layer not in self._watched:
            self._watched.add(layer)
            layer.events.paint.connect(self._take_paint)
            layer.events.set_data.connect(self._take_undo)  # napari tells nothing else of it

    def _take_paint(self, event: Any) -> None:
        objects = self._results.objects(event.source)
        if objects is not None:
            # The last of what napari remembers about a stroke is what was painted.
            highest = max((int(np.max(atom[-1])) for atom in event.value), default=0)
            objects.painted = max(objects.painted, highest)
            self._take_undo(event)

    def _take_undo(self, event: Any) -> None:
        objects = self._results.objects(event.source)
        if objects is not None:
            shown = self._shown(event.source)
            if shown is None or event.source.n_edit_dimensions > 2:
                objects.repainted.update(objects.planes)
            else:
                objects.repainted.update(objects.keys_at(shown))
            self.schedule()

    def _start_next(self) -> None:
        if self._running is not None:
            return  # it is polled, and what comes next is found out when it ends
        for layer, objects in self._results.object_layers():
            shape = layer.data.shape
            for gone in [key for key, (index, _) in objects.planes.items() if index.shape != shape]:
                objects.drop(gone)  # the user has put other data into the layer
            key = objects.lagging(self._shown(layer))
            if key is not None:
                selected = int(layer.selected_label)
                self._run(layer, PlaneUpdate(objects, key, layer.data, selected))
                return

    def _run(self, layer: Labels, update: PlaneUpdate) -> None:
        self._running = (weakref.ref(layer), update)
        update.start()
        self._poll_timer.start()

    def _poll(self) -> None:
        if self._running is None or not self._running[1].done:
            return
        reference, update = self._running
        layer = reference()
        if layer is not None and in_stroke(layer):
            return  # objects and the rest of the stroke could not be undone one after the other
        self._running = None
        self._poll_timer.stop()
        objects = None if layer is None else self._results.objects(layer)
        if layer is not None and objects is not None:
            try:
                self._finish(layer, objects, update)
            except ClsClipError as error:
                self.failed.emit(error.message)
                return
        if self._running is None:
            self._start_next()

    def _finish(self, layer: Labels, objects: ObjectPlanes, update: PlaneUpdate) -> None:
        if update.error is not None:
            raise update.error
        written = update.write(layer.data, partial(self._remember, layer, update))
        if written is False:
            self._run(layer, update.again(int(layer.selected_label)))
        if not written or not update.changes:
            return
        self._results.tell_written(layer, update.index)
        shown = self._shown(layer)
        complete = objects.lagging(shown) is None
        if shown == update.index.position:
            layer.refresh(extent=False)
            objects.repainted.discard(update.index.key)  # nobody paints while this function runs
        if complete or shown == update.index.position:
            layer.features = objects.table()
        if complete:
            if METADATA_KEY in layer.metadata:
                layer.metadata[METADATA_KEY]["objects"] = objects.settings.model_dump()
            self.updated.emit(layer)

    def _remember(self, layer: Labels, update: PlaneUpdate, pixels: NDArray[np.int32]) -> None:
        """Let the change of a plane be undone with what caused it."""
        step = self._results.following_step(layer)
        if step is not None:
            step.include(update.index, pixels)

    def _shown(self, layer: Labels) -> Position | None:
        """Which plane of a layer is on screen, if any."""
        try:
            return displayed_index(layer, self._viewer.dims).position
        except InvalidImageError:
            return None  # 3D display, or the sliders stand outside
