"""What the histories of layers remember of planes: the latest as it is, the older compressed."""

from __future__ import annotations

import threading
import weakref
import zlib
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_clsclip._predicted_objects import PredictedObjects
from napari_clsclip._predicted_plane import PlaneState
from napari_clsclip._user_pixels import UserPixels

RAW_BYTES: Final = 2**29
"""Bytes of arrays that all histories of this process keep as they are, so that undo is quick."""

_NOTHING: Final = np.empty((0, 0), np.int32)


class PackedArray:
    """An array of labels or flags that may be compressed.

    Parameters
    ----------
    array : ndarray
        It must not change any more.
    """

    def __init__(self, array: NDArray[Any]) -> None:
        self._shape, self._dtype = array.shape, array.dtype
        self.nbytes: Final = array.nbytes
        self._array: NDArray[Any] | None = array
        self._bytes = b""

    def pack(self) -> None:
        """Compress; for one thread, while others may call :meth:`get`."""
        array = self._array
        if array is not None:
            self._bytes = zlib.compress(np.ascontiguousarray(array).data, 1)
            self._array = None

    def get(self) -> NDArray[Any]:
        """Return an equal array; the same one if it is not yet packed."""
        array = self._array
        if array is not None:
            return array
        return np.frombuffer(bytearray(zlib.decompress(self._bytes)), self._dtype).reshape(
            self._shape
        )


@dataclass(frozen=True)
class _FewPixels:
    """The user's pixels of a plane, most often a few of many.

    Attributes
    ----------
    shape : tuple of 2 int
    where : ndarray of int, shape (n,)
        Number of each changed pixel, row by row.
    before : ndarray of int, shape (n,)
        Label that it had before.
    """

    shape: tuple[int, ...]
    where: NDArray[np.intp]
    before: NDArray[Any]

    @classmethod
    def of(cls, user: UserPixels) -> _FewPixels | None:
        if user.changed is None or user.before is None:
            return None
        where = np.flatnonzero(user.changed)
        return cls(user.changed.shape, where, user.before.ravel()[where])

    def get(self) -> UserPixels:
        changed = np.zeros(self.shape, np.bool_)
        before = np.zeros(self.shape, self.before.dtype)
        changed.ravel()[self.where] = True
        before.ravel()[self.where] = self.before
        return UserPixels(changed, before)


class PackedPlane:
    """A state of a :class:`~napari_clsclip._predicted_plane.PredictedPlane`.

    Where nobody has changed a pixel, the prediction says what was written.
    """

    def __init__(self, state: PlaneState) -> None:
        self._state: PlaneState | None = state
        self._packed: tuple[_FewPixels | None, NDArray[Any] | None, PackedArray | None]
        self._threshold = state.threshold
        known = (state.user.changed, state.user.before, state.written, state.ceded)
        self.nbytes: Final = sum(array.nbytes for array in known if array is not None)

    def pack(self) -> None:
        """As :meth:`PackedArray.pack`."""
        state = self._state
        if state is None:
            return
        user, painted = _FewPixels.of(state.user), state.painted
        if state.written is not None and user is not None:
            painted = state.written.ravel()[user.where]
        self._packed = user, painted, _packed(state.ceded)
        self._state = None

    def get(self) -> PlaneState:
        """Return an equal state."""
        state = self._state
        if state is not None:
            return state
        user, painted, ceded = self._packed
        return PlaneState(
            self._threshold,
            UserPixels() if user is None else user.get(),
            None,
            painted,
            None if ceded is None else ceded.get(),
        )


class PackedObjects:
    """The objects of a plane; the probabilities are shared, not copied."""

    def __init__(self, objects: PredictedObjects) -> None:
        self._objects: PredictedObjects | None = objects
        self._packed: tuple[PredictedObjects, _FewPixels | None, PackedArray, PackedArray]
        known = (objects.user.changed, objects.user.before, objects.written, objects.last)
        self.nbytes: Final = sum(array.nbytes for array in known if array is not None)

    def pack(self) -> None:
        """As :meth:`PackedArray.pack`."""
        objects = self._objects
        if objects is None:
            return
        bare = replace(objects, written=_NOTHING, last=_NOTHING, user=UserPixels())
        written, last = PackedArray(objects.written), PackedArray(objects.last)
        written.pack()
        last.pack()
        self._packed = bare, _FewPixels.of(objects.user), written, last
        self._objects = None

    def get(self) -> PredictedObjects:
        """Return equal objects; the same ones if they are not yet packed."""
        objects = self._objects
        if objects is not None:
            return objects
        bare, user, written, last = self._packed
        changed = UserPixels() if user is None else user.get()
        return replace(bare, written=written.get(), last=last.get(), user=changed)


Packable = PackedArray | PackedPlane | PackedObjects


class RawArrays:
    """What is not compressed yet, the oldest first; for the Qt thread.

    Parameters
    ----------
    max_bytes : int
        How many bytes they may have. Beyond that, the oldest are compressed in a thread.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._known: deque[tuple[weakref.ref[Packable], int]] = deque()

    def add(self, arrays: Iterable[Packable]) -> None:
        """Take in arrays; returns at once."""
        self._known.extend((weakref.ref(array), array.nbytes) for array in arrays)
        living = [known for known in self._known if known[0]() is not None]
        total = sum(size for _, size in living)
        self._known = deque(living)
        old: list[Packable] = []
        while self._known and total > self.max_bytes:
            reference, size = self._known.popleft()
            total -= size
            if (array := reference()) is not None:
                old.append(array)
        if old:
            pack_in_thread(old)


def pack_in_thread(arrays: list[Packable]) -> None:
    """Compress arrays, one after the other; returns at once."""

    def run() -> None:
        for array in arrays:
            array.pack()

    threading.Thread(target=run, name="clsclip-pack", daemon=True).start()


raw_arrays: Final = RawArrays(RAW_BYTES)
"""Those of all layers of this process."""


def _packed(array: NDArray[Any] | None) -> PackedArray | None:
    if array is None:
        return None
    packed = PackedArray(array)
    packed.pack()
    return packed
