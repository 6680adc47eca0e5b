"""Which label layers hold corrections that nobody has saved: watched from the first stroke on."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer
from napari.utils.notifications import show_warning
from numpy.typing import NDArray

from clsclip.errors import InvalidImageError
from napari_clsclip._acceptance import Acceptance
from napari_clsclip._image_fingerprint import fingerprint
from napari_clsclip._kept import Kept, KeptImage, KeptPlacement, KeptResult, Position
from napari_clsclip._layers import PlaneIndex, displayed_index
from napari_clsclip._result_looks import METADATA_KEY
from napari_clsclip._results import ResultLayers
from napari_clsclip._save_events import on_save
from napari_clsclip._unsaved_files import KeptFolder, Offer, Tile, tiles_in, unsaved_folder
from napari_clsclip._unsaved_journal import Entry, Journal

Box = tuple[slice, ...]


@dataclass(eq=False)
class _Watched:
    """What is known of a layer that the plugin made."""

    labels: Any
    entry: Entry = field(default_factory=Entry)
    image: KeptImage | None = None
    result: KeptResult | None = None
    unsaved: set[Position] = field(default_factory=set)
    touched: set[Tile] = field(default_factory=set)
    painted: datetime = field(default_factory=lambda: datetime.now(UTC))
    begun: bool = False


class UnsavedCorrections:
    """Keeps on disk what a person paints on the label layers that the plugin made.

    All methods are for the Qt thread and return within a few milliseconds; the journal writes.

    A layer has unsaved corrections from the first pixel that a person changes until napari saves
    the layer to a file, or until all planes with changes were accepted as they are. Neither its
    removal from the viewer nor the end of napari changes that: a hand slips, and napari asks
    nobody when it ends. What was undone with Ctrl+Z is not told apart from what was painted.

    Parameters
    ----------
    viewer : ViewerModel
    journal : Journal

    Attributes
    ----------
    offers : list of Offer
        What earlier napari kept and nobody has decided about yet; for the bar, of which there may
        be several, one after the other.
    """

    def __init__(self, viewer: ViewerModel, journal: Journal) -> None:
        self._viewer = weakref.ref(viewer)
        self.journal: Final = journal
        self.offers: Final[list[Offer]] = []
        self._results: weakref.ref[ResultLayers] | None = None
        self._watched: weakref.WeakKeyDictionary[Labels, _Watched] = weakref.WeakKeyDictionary()
        self._read: weakref.WeakKeyDictionary[Labels, Callable[[], Image | None]]
        self._read = weakref.WeakKeyDictionary()
        viewer.layers.events.inserted.connect(self._take_inserted)
        viewer.layers.events.removed.connect(self._take_removed)
        on_save(self.let_go)
        for layer in viewer.layers:
            self._watch(layer)

    def follow(self, results: ResultLayers) -> None:
        """Ask these results what is known of a layer."""
        self._results = weakref.ref(results)
        results.written.append(self._take_written)

    def adopt(self, layer: Labels, folder: KeptFolder, kept: Kept) -> None:
        """Go on with the files of an earlier napari for a layer that was restored from them."""
        watched = _Watched(
            layer.data, Entry(folder), kept.image, kept.result, set(kept.unsaved),
            painted=kept.painted, begun=True,
        )  # fmt: skip
        if kept.image is not None:
            watched.entry.fingerprint = partial(str, kept.image.fingerprint)
        self._watched[layer] = watched
        self._connect(layer)
        self._mark(layer, watched, ())

    def accepted(self, layer: Labels, acceptance: Acceptance) -> None:
        """Note that the backend keeps a plane now, as it was when the person accepted it."""
        watched = self._watched.get(layer)
        index = acceptance.plane.index
        if watched is None or not watched.begun or layer.data.shape != index.shape:
            return
        leading = index.hidden == tuple(range(layer.ndim - 2))
        # Compared, because the person may have painted on meanwhile.
        if leading and np.array_equal(index.view(layer.data), acceptance.ids):
            watched.unsaved.discard(index.position)
            self._mark_or_end(layer, watched)

    def keep_whole(self, layer: Labels, image: Image | None) -> None:
        """Keep all of a layer once it is corrected: its labels were read from a file."""
        self._read[layer] = (lambda: None) if image is None else weakref.ref(image)

    def exchange(self, layer: Labels, data: NDArray[Any]) -> None:
        """Note that a layer is about to hold an array that nobody has painted in."""
        if layer in self._watched:
            self._watched[layer] = _Watched(data)

    def let_go(self, layers: Sequence[Layer]) -> None:
        """Note that the corrections of layers are safe elsewhere, or not wanted."""
        for layer in layers:
            watched = self._watched.get(layer)
            if watched is not None:
                watched.unsaved.clear()
                self._mark_or_end(layer, watched)

    def _mark_or_end(self, layer: Labels, watched: _Watched) -> None:
        if watched.unsaved:
            self._mark(layer, watched, ())
        elif watched.begun:
            self.journal.discard(watched.entry)
            self._watched[layer] = _Watched(layer.data)

    def _take_inserted(self, event: Any) -> None:
        self._watch(event.value)

    def _watch(self, layer: Layer) -> None:
        if not isinstance(layer, Labels) or METADATA_KEY not in layer.metadata or layer.multiscale:
            return
        watched = self._watched.get(layer)
        if watched is None:
            self._watched[layer] = _Watched(layer.data)
            self._connect(layer)
        elif watched.begun:  # it was removed, and is back
            self._mark(layer, watched, ())

    def _connect(self, layer: Labels) -> None:
        layer.events.paint.connect(self._take_paint)
        layer.events.labels_update.connect(self._take_stroke)
        layer.events.set_data.connect(self._take_undo)
        layer.events.data.connect(self._take_data)
        layer.events.features.connect(self._take_looks)
        layer.events.name.connect(self._take_looks)

    def _take_removed(self, event: Any) -> None:
        watched = self._watched.get(event.value)
        if watched is not None and watched.begun:
            self._mark(event.value, watched, watched.touched, removed=True)

    def _take_paint(self, event: Any) -> None:
        """Take what napari puts into its history: a whole stroke, once the mouse is released."""
        layer = event.source
        boxes = [_box_of(atom, layer.data.shape) for atom in event.value]
        self._painted(layer, [tile for box in boxes for tile in tiles_in(box)])

    def _take_stroke(self, event: Any) -> None:
        """Take a part of a stroke that goes on, as napari tells the canvas to draw it."""
        layer, viewer = event.source, self._viewer()
        if viewer is None or len(event.offset) != 2:
            return  # in 3D, the stroke is taken when it ends
        try:
            index = displayed_index(layer, viewer.dims)
        except InvalidImageError:
            return
        box: list[slice] = [_single(part) for part in index.index]
        for axis, start, length in zip(
            index.displayed, event.offset, event.data.shape, strict=True
        ):
            box[axis] = slice(int(start), int(start) + int(length))
        self._painted(layer, list(tiles_in(box)), whole=False)

    def _painted(self, layer: Labels, tiles: Sequence[Tile], *, whole: bool = True) -> None:
        watched = self._of(layer)
        if watched is None or not tiles:
            return
        watched.painted = datetime.now(UTC)
        watched.touched.update(tiles)
        positions = {tile.position for tile in tiles}
        new = not positions <= watched.unsaved
        watched.unsaved |= positions
        if watched.begun:
            self._mark(layer, watched, tiles, about=whole or new)
        else:
            self._begin(layer, watched, tiles)

    def _begin(self, layer: Labels, watched: _Watched, tiles: Iterable[Tile]) -> None:
        """Keep the whole layer from now on: the planes that were painted first."""
        watched.begun = True
        self._know_image(layer, watched)
        first, later = set(tiles), set[Tile]()
        for index in self._known(layer):
            for tile in _tiles_of(index):
                (first if tile.position in watched.unsaved else later).add(tile)
        if layer in self._read:
            later.update(tiles_in([slice(0, n) for n in layer.data.shape]))
        self._mark(layer, watched, first, later=later)

    def _take_undo(self, event: Any) -> None:
        """Look again at what was ever painted: napari tells nothing else of undo and redo."""
        watched = self._of(event.source)
        if watched is not None and watched.begun:
            self._mark(event.source, watched, (), later=watched.touched, about=False)

    def _take_written(self, layer: Labels, index: PlaneIndex) -> None:
        """Take in what the plugin itself has changed."""
        watched = self._of(layer)
        if watched is not None and watched.begun:
            self._mark(layer, watched, (), later=_tiles_of(index))

    def _take_looks(self, event: Any) -> None:
        watched = self._of(event.source)
        if watched is not None and watched.begun:
            self._mark(event.source, watched, ())

    def _take_data(self, event: Any) -> None:
        self._of(event.source)

    def _of(self, layer: Labels) -> _Watched | None:
        """What is known of a layer, after a look whether somebody has put another array into it."""
        watched = self._watched.get(layer)
        if watched is None or watched.labels is layer.data:
            return watched
        old, watched.labels = watched.labels, layer.data
        if watched.begun and (old.shape, old.dtype) == (layer.data.shape, layer.data.dtype):
            known = [tile for index in self._known(layer) for tile in _tiles_of(index)]
            self._painted(layer, [*watched.touched, *known])
            return watched
        # What was kept has another shape or type and stays as it is; the array is another entry.
        watched = self._watched[layer] = _Watched(layer.data)
        if layer.data.ndim >= 2 and np.any(layer.data):
            self._painted(layer, list(tiles_in([slice(0, n) for n in layer.data.shape])))
        return watched

    def _mark(
        self,
        layer: Labels,
        watched: _Watched,
        tiles: Iterable[Tile],
        *,
        later: Iterable[Tile] = (),
        about: bool = True,
        removed: bool = False,
    ) -> None:
        kept, features = None, None
        if about:
            kept = self._kept(layer, watched, removed)
            features = _columns(layer)
        self.journal.mark(
            watched.entry, layer.data, tiles, later=later, about=kept, features=features
        )

    def _kept(self, layer: Labels, watched: _Watched, removed: bool) -> Kept:
        results = None if self._results is None else self._results()
        if results is not None:  # what it was stays true if the results or their image are gone
            watched.result = _result(results, layer) or watched.result
        return Kept(
            painted=watched.painted,
            name=str(layer.name),
            shape=tuple(map(int, layer.data.shape)),
            dtype=np.dtype(layer.data.dtype).str,
            placement=_placement(layer),
            made=json.loads(json.dumps(layer.metadata.get(METADATA_KEY, {}), default=str)),
            image=watched.image,
            result=watched.result,
            unsaved=tuple(sorted(watched.unsaved)),
            removed=removed,
        )

    def _known(self, layer: Labels) -> Iterator[PlaneIndex]:
        results = None if self._results is None else self._results()
        for index in () if results is None else results.everything(layer):
            if index.shape == layer.data.shape:
                yield index

    def _know_image(self, layer: Labels, watched: _Watched) -> None:
        results, viewer = None if self._results is None else self._results(), self._viewer()
        read = self._read.get(layer)
        image = read() if read else None if results is None else results.image(layer)
        if image is None or viewer is None:
            return
        level = 0 if results is None else results.level(layer) or 0
        watched.image = about_image(image, viewer, level)
        source = image_array(image, level)
        watched.entry.fingerprint = partial(fingerprint, source, watched.image.index)


_of_viewers: weakref.WeakKeyDictionary[ViewerModel, UnsavedCorrections]
_of_viewers = weakref.WeakKeyDictionary()


def unsaved_corrections(viewer: ViewerModel) -> UnsavedCorrections:
    """Return what watches the layers of a viewer as long as that lives, also without widget."""
    known = _of_viewers.get(viewer)
    if known is None:
        journal = Journal(unsaved_folder(), show_warning)
        known = _of_viewers[viewer] = UnsavedCorrections(viewer, journal)
        weakref.finalize(viewer, journal.close, wait=False)
    return known


def image_array(image: Image, level: int) -> Any:
    """Array of an image layer at a resolution level."""
    return image.data[level] if image.multiscale else image.data


def about_image(image: Image, viewer: ViewerModel, level: int) -> KeptImage:
    """What is kept of an image, but its fingerprint: the plane on screen is to be looked at."""
    source = image_array(image, level)
    colors = (None,) if image.rgb else ()
    try:
        index = displayed_index(image, viewer.dims, level).index
    except InvalidImageError:  # 3D display, or the sliders stand outside
        index = (*(0,) * (image.ndim - 2), slice(None), slice(None))
    return KeptImage(
        name=str(image.name),
        path=None if image.source.path is None else str(image.source.path),
        shape=tuple(map(int, source.shape)),
        dtype=np.dtype(source.dtype).str,
        level=level,
        index=(*(part if isinstance(part, int) else None for part in index), *colors),
    )


def _result(results: ResultLayers, layer: Labels) -> KeptResult | None:
    identity = results.identity(layer)
    if identity is None:
        return None
    objects = results.objects(layer)
    return KeptResult(
        words=identity.words,
        model=identity.model,
        model_version=results.model_version(layer),
        threshold=results.threshold(layer),
        objects=None if objects is None else objects.settings,
        hidden=identity.hidden,
        level=identity.level,
        origin=identity.origin,
    )


def _placement(layer: Labels) -> KeptPlacement:
    rows = np.asarray(layer.rotate, dtype=float).tolist()
    return KeptPlacement(
        scale=tuple(map(float, layer.scale)),
        translate=tuple(map(float, layer.translate)),
        rotate=tuple(map(tuple, rows)),
        shear=tuple(map(float, layer.shear)),
        affine=tuple(map(tuple, np.asarray(layer.affine.affine_matrix, dtype=float).tolist())),
        units=tuple(map(str, layer.units)),
        axis_labels=tuple(map(str, layer.axis_labels)),
    )


def _columns(layer: Labels) -> dict[str, NDArray[Any]]:
    """Columns of the layer's table, as arrays without Python objects."""
    columns = {}
    for name, column in layer.features.items():
        values = np.asarray(column)
        columns[str(name)] = values.astype(np.str_) if values.dtype.kind == "O" else values
    return columns


def _tiles_of(index: PlaneIndex) -> Iterator[Tile]:
    ends = zip(index.index, index.shape, strict=True)
    return tiles_in([_single(p) if isinstance(p, int) else slice(*p.indices(n)) for p, n in ends])


def _single(part: int | slice) -> slice:
    return part if isinstance(part, slice) else slice(part, part + 1)


def _box_of(atom: Any, shape: tuple[int, ...]) -> Box:
    """Where an entry of napari's history has changed pixels; of an unknown kind: anywhere."""
    key = getattr(atom, "slice_key", None)
    if key is not None:
        return tuple(slice(*part.indices(n)) for part, n in zip(key, shape, strict=True))
    try:
        rows = [np.asarray(axis) for axis in atom[0]]
        if len(rows) == len(shape) and all(row.dtype.kind in "iu" and row.size for row in rows):
            return tuple(slice(int(row.min()), int(row.max()) + 1) for row in rows)
    except (TypeError, ValueError):
        pass
    return tuple(slice(0, n) for n in shape)
