"""Corrections that an earlier napari did not save: found, read, and put back in their place."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image
from numpy.typing import NDArray

from clsclip.errors import ClsClipError, FileError, InvalidImageError
from napari_clsclip._image_fingerprint import fingerprint
from napari_clsclip._kept import Kept, KeptResult
from napari_clsclip._layers import displayed_plane
from napari_clsclip._object_planes import ObjectPlanes
from napari_clsclip._placement import Placement
from napari_clsclip._predicted_objects import COLUMNS
from napari_clsclip._result_looks import METADATA_KEY, new_layer
from napari_clsclip._result_patches import Identity, Result
from napari_clsclip._results import ResultLayers
from napari_clsclip._unsaved_files import KeptSession, Offer, dead_sessions
from napari_clsclip._unsaved_layers import UnsavedCorrections, image_array


class Search(threading.Thread):
    """Looks for corrections of napari processes that have ended, in a daemon thread.

    Parameters
    ----------
    root : Path
        See :func:`napari_clsclip._unsaved_files.unsaved_folder`.
    hold : callable
        Takes each session that was found; it is locked.

    Attributes
    ----------
    offers : list of Offer
        The latest first; once the thread has ended.
    problems : list of str
        What went wrong, in words for the user.
    """

    def __init__(self, root: Path, hold: Callable[[KeptSession], None]) -> None:
        super().__init__(name="clsclip-unsaved", daemon=True)
        self.offers: Final[list[Offer]] = []
        self.problems: Final[list[str]] = []
        self._root = root
        self._hold = hold

    def run(self) -> None:
        """Search."""
        try:
            for session in dead_sessions(self._root):
                found = []
                for folder in session.entries():
                    try:
                        kept = folder.read_about()
                    except FileError as error:
                        self.problems.append(error.message)
                    else:
                        found += [] if kept is None else [Offer(folder, kept)]
                        if kept is None:
                            folder.remove()  # never complete, or half removed
                self._hold(session)
                self.offers.extend(found)
        except OSError as error:
            self.problems.append(
                f"Unsaved corrections in {self._root} cannot be looked for: {error}."
            )
        self.offers.sort(key=lambda offer: offer.kept.painted, reverse=True)


class Restoration(threading.Thread):
    """Reads what was kept of a layer, and finds its image among the open ones; daemon thread.

    Once it has ended, :meth:`finish` is to be called in the Qt thread.

    Parameters
    ----------
    offer : Offer
    viewer : ViewerModel
        Whose images are looked at.
    """

    def __init__(self, offer: Offer, viewer: ViewerModel) -> None:
        super().__init__(name="clsclip-restore", daemon=True)
        self.offer: Final = offer
        self._images = [] if offer.kept.image is None else _alike(viewer, offer.kept)
        self._image: weakref.ref[Image] | None = None
        self._outcome: tuple[NDArray[Any], dict[str, NDArray[Any]], int] | Exception
        self._outcome = FileError("Not read yet.")

    def run(self) -> None:
        """Read."""
        try:
            self._image = self._find_image()
            self._outcome = self.offer.folder.read(self.offer.kept)
        except Exception as error:
            self._outcome = error
        self._images = []

    def finish(
        self, viewer: ViewerModel, results: ResultLayers, unsaved: UnsavedCorrections
    ) -> str:
        """Add the layer.

        Returns
        -------
        str
            What there is to say about it.

        Raises
        ------
        ClsClipError
            If it cannot be read; everything stays on disk.
        """
        if isinstance(self._outcome, ClsClipError):
            raise self._outcome
        if isinstance(self._outcome, Exception):
            raise FileError(
                f"The corrections in {self.offer.folder.path} cannot be read: {self._outcome}. "
                "They were left where they are."
            ) from self._outcome
        labels, features, lost = self._outcome
        kept = self.offer.kept
        image = None if self._image is None else self._image()
        if image is not None and image not in viewer.layers:
            image = None
        placement = _placement_on(image, kept, viewer) or _stored_placement(kept)
        words = tuple(map(str, _listed(kept.made.get("words")))) or (kept.name,)
        table = features if "objects" in kept.made else None
        layer = new_layer(labels, placement, words, table)
        layer.name = kept.name
        layer.metadata[METADATA_KEY] = _made(kept)
        if image is not None and kept.result is not None:
            results.restore(layer, _result(kept, kept.result, image, labels, features))
        unsaved.adopt(layer, self.offer.folder, kept)
        viewer.add_layer(layer)
        viewer.layers.selection.active = layer
        return _said(kept, image, lost)

    def _find_image(self) -> weakref.ref[Image] | None:
        about = self.offer.kept.image
        for reference, source in self._images:
            try:
                if about is not None and fingerprint(source, about.index) == about.fingerprint:
                    return reference
            except Exception:  # noqa: S112 - an image that cannot be read is not the one
                continue
        return None


def _alike(viewer: ViewerModel, kept: Kept) -> list[tuple[weakref.ref[Image], Any]]:
    """Open images of the shape and data type that the corrected one had, by its name first."""
    about = kept.image
    found = []
    for layer in viewer.layers:
        if about is None or not isinstance(layer, Image) or not about.fingerprint:
            continue
        if about.level >= len(layer.level_shapes):
            continue
        source = image_array(layer, about.level)
        if tuple(source.shape) == about.shape and np.dtype(source.dtype).str == about.dtype:
            found.append((layer.name != about.name, weakref.ref(layer), source))
    return [(reference, source) for _, reference, source in sorted(found, key=lambda f: f[0])]


def _placement_on(image: Image | None, kept: Kept, viewer: ViewerModel) -> Placement | None:
    """Where the labels lie on the open image, which may have been moved meanwhile."""
    if image is None or kept.result is None or kept.result.origin is not None:
        return None
    try:
        plane = displayed_plane(image, viewer.dims, level=kept.result.level, whole=False)
    except InvalidImageError:  # 3D display
        return None
    return plane.placement if plane.index.shape == kept.shape else None


def _stored_placement(kept: Kept) -> Placement:
    where = kept.placement
    return Placement(
        scale=np.array(where.scale),
        translate=np.array(where.translate),
        rotate=np.array(where.rotate),
        shear=np.array(where.shear),
        affine=np.array(where.affine),
        units=where.units,
        axis_labels=where.axis_labels,
    )


def _result(
    kept: Kept,
    known: KeptResult,
    image: Image,
    labels: NDArray[Any],
    features: dict[str, NDArray[Any]],
) -> Result:
    identity = Identity(
        words=known.words,
        model=known.model,
        objects=known.objects is not None,
        shape=kept.shape,
        hidden=known.hidden,
        level=known.level,
        origin=known.origin,
    )
    result = Result(weakref.ref(image), identity, known.model_version, known.threshold)
    if known.objects is not None:
        columns = {*COLUMNS, *(("plane",) if known.hidden else ())}
        result.objects = ObjectPlanes(
            known.threshold,
            known.objects,
            painted=int(labels.max(initial=0)),
            restored=features if columns == set(features) else {},
        )
    return result


def _made(kept: Kept) -> dict[str, Any]:
    """How the layer was made, with numbers where JSON has texts."""
    made: dict[str, Any] = dict(kept.made)
    if isinstance(classes := made.get("classes"), dict):
        made["classes"] = {int(number): word for number, word in classes.items()}
    return made


def _said(kept: Kept, image: Image | None, lost: int) -> str:
    said = f"'{kept.name}' is back as it was."
    if image is None:
        name = f" '{kept.image.name}'" if kept.image is not None else ""
        said += f" Its image{name} is not open: open it to see them together."
    if lost:
        said += f" {lost} of its tiles could not be read."
    return said


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else []
