"""The selected result and the form: each follows the other's threshold and settings of objects."""

from __future__ import annotations

from napari.components import ViewerModel
from napari.layers import Labels
from qtpy.QtCore import QObject, QTimer, Signal
from superqt import QLabeledDoubleSlider

from napari_clsclip._adjustments import Adjustments
from napari_clsclip._large_run import fixed_threshold, fixed_threshold_words
from napari_clsclip._object_updates import ObjectUpdates
from napari_clsclip._options import MoreOptions
from napari_clsclip._results import ResultLayers
from napari_clsclip._summary import objects_found


class SelectedResult(QObject):
    """Changes the selected result as the form says, and shows in the form what is selected.

    Parameters
    ----------
    viewer : ViewerModel
    results : ResultLayers
        Of this viewer.
    threshold : QLabeledDoubleSlider
    options : MoreOptions
        With the settings of objects.
    parent : QObject
        With which this ends.

    Attributes
    ----------
    told : Signal(str)
        Something for the user, unless more important things are being told.
    failed : Signal(str)
        Objects could not be found anew; why.
    """

    told = Signal(str)
    failed = Signal(str)

    def __init__(
        self,
        viewer: ViewerModel,
        results: ResultLayers,
        threshold: QLabeledDoubleSlider,
        options: MoreOptions,
        parent: QObject,
    ) -> None:
        super().__init__(parent)
        self._viewer, self._results = viewer, results
        self._threshold, self._options = threshold, options
        self._object_updates = ObjectUpdates(viewer, results, self)
        self._object_updates.updated.connect(self._tell_objects)
        self._object_updates.failed.connect(self.failed)
        self._hidden_planes_timer = QTimer(self, interval=0)
        self._hidden_planes_timer.timeout.connect(self._update_hidden_plane)
        threshold.valueChanged.connect(self._apply_threshold)
        Adjustments(threshold, results.steps)
        results.steps.restored.append(self._take_restored)
        parent.destroyed.connect(results.steps.forget_listeners)
        options.objects_changed.connect(self._apply_objects)

    @property
    def settled(self) -> bool:
        """Whether all planes and objects are what the threshold and the settings say."""
        return not (self._object_updates.busy or self._hidden_planes_timer.isActive())

    def follow_objects(self, layer: Labels) -> None:
        """Keep the objects of a layer up to date from now on."""
        self._object_updates.watch(layer)
        self._object_updates.schedule()  # the form may say something else by now

    def show(self) -> None:
        """Show the threshold of the active layer, and what its objects are found with."""
        active = self._viewer.layers.selection.active
        if (fixed := fixed_threshold(active)) is not None:
            self._show_threshold(fixed)
        elif isinstance(active, Labels) and active is self._results.current():
            self._results.steps.end_adjustment()
            self._show_settings(active)

    def _apply_threshold(self, threshold: float) -> None:
        active = self._viewer.layers.selection.active
        if fixed_threshold(active) is not None:
            self.told.emit(fixed_threshold_words(active, threshold))
            return
        layer = self._results.current()
        if layer is not None:
            self._results.set_threshold(layer, threshold)
            self._hidden_planes_timer.start()
            self._object_updates.schedule()

    def _apply_objects(self) -> None:
        layer = self._results.current()
        objects = None if layer is None else self._results.objects(layer)
        if objects is not None:
            self._results.set_object_settings(layer, self._options.objects())
            self._object_updates.schedule()

    def _tell_objects(self, layer: Labels) -> None:
        objects = self._results.objects(layer)
        if objects is not None:
            words = next(iter(objects.planes.values()))[1].segmentation.words
            self.told.emit(f"{objects_found(words, objects.table())}.")

    def _update_hidden_plane(self) -> None:
        if not self._results.update_hidden_plane():
            self._hidden_planes_timer.stop()

    def _take_restored(self, layer: Labels) -> None:
        """Let everything follow a layer of which a step was undone, or done again."""
        if layer is self._results.current():
            self._show_settings(layer)
        self._hidden_planes_timer.start()
        self._object_updates.schedule()

    def _show_settings(self, layer: Labels) -> None:
        self._show_threshold(self._results.threshold(layer))
        objects = self._results.objects(layer)
        if objects is not None:
            self._options.show_objects(objects.settings)

    def _show_threshold(self, threshold: float) -> None:
        self._threshold.blockSignals(True)
        self._threshold.setValue(threshold)
        self._threshold.blockSignals(False)
